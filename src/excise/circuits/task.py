"""Whether a model does a task: the first numbers of every circuit."""

from collections.abc import Sequence

import torch

from excise.artefacts import Json
from excise.circuits.batches import PairBatch, Prefix, embed
from excise.circuits.objectives import value
from excise.circuits.stream import Stream
from excise.errors import ExciseError
from excise.models.loading import input_device


def does_it(stream: Stream, batches: Sequence[PairBatch]) -> Json:
    """Run both prompts of every pair.

    Returns:
        ``pairs``; ``accuracy``: share of clean prompts with a positive logit difference; ``clean``, ``corrupted``: mean
        logit difference, of the clean prompt's answers in both.
    """
    values: dict[str, list[torch.Tensor]] = {"clean": [], "corrupt": []}
    for batch in batches:
        here = batch.to(input_device(stream.model))
        for name, found in values.items():
            tokens = getattr(here, name)
            with torch.no_grad():
                logits = Prefix(stream, tokens, 0).run(embed(stream, tokens))
                found.append(value("logit-difference", logits, here, logits).double().cpu())
    clean, corrupt = (torch.cat(found) for found in values.values())
    return {
        "pairs": len(clean),
        "accuracy": float((clean > 0).double().mean()),
        "clean": float(clean.mean()),
        "corrupted": float(corrupt.mean()),
    }


def refuse_failure(measured: Json, least: float, where: str) -> None:
    """Refuse a model that does not do the task.

    Raises:
        ExciseError: too few answers are right, or the corruption does not lower the logit difference.
    """
    if measured["accuracy"] < least:
        raise ExciseError(
            f"{where}: the model prefers the right answer in {measured['accuracy']:.0%} of {measured['pairs']} pairs, "
            f"fewer than --min-accuracy {least:.0%}: it does not do this task, so there is no circuit to find. Use "
            "another task, or a larger model."
        )
    if measured["corrupted"] >= measured["clean"]:
        raise ExciseError(
            f"{where}: the logit difference is {measured['clean']:+.2f} on clean prompts and "
            f"{measured['corrupted']:+.2f} on corrupted ones: the corruption does not take the answer away"
        )
