"""What several methods share."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from excise.attribution import Options, Values
from excise.attribution.backward import recomputing, relevance
from excise.attribution.batches import Batch
from excise.attribution.forward import collect, per_token
from excise.attribution.lxt_patch import assert_unpatched, patched
from excise.errors import ExciseError


@contextlib.contextmanager
def measuring_relevance(model: nn.Module, options: Options, rule: str | None) -> Iterator[Callable[[Batch], Values]]:
    """Neuron relevance under a rule of LRP, or gradient x activation without one.

    Raises:
        ExciseError: the model is not covered by the rule, or some sample's relevance is zero everywhere.
    """
    if rule is None:
        assert_unpatched(model)
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(patched(model, rule)) if rule is not None else None
        stack.enter_context(recomputing(model, options.recompute))

        def measure(batch: Batch) -> Values:
            if patch is None:
                values = relevance(model, batch, objective=options.objective)
            else:
                values = relevance(
                    model, batch, objective=options.objective, elementwise=patch.elementwise, halve=patch.halve
                )
                patch.verify_ran()
            refuse_zero(values, batch)
            return {"relevance": values.abs() if options.aggregate == "abs" else values}

        yield measure


def refuse_zero(values: torch.Tensor, batch: Batch) -> None:
    """Refuse a sample whose values are zero in every layer.

    Raises:
        ExciseError: there is one; names it.
    """
    for sample, value in zip(batch.ids, values, strict=True):
        if not value.any():
            raise ExciseError(
                f"sample {sample!r}: the relevance of every neuron is zero; the backward pass did not reach the model"
            )


@contextlib.contextmanager
def measuring_activation(
    model: nn.Module,
    options: Options,  # noqa: ARG001 (the interface's)
    neurons: Callable[[torch.Tensor], torch.Tensor],
) -> Iterator[Callable[[Batch], Values]]:
    """What ``neurons`` sums of the activations over tokens, as a mean over each sample's tokens: ``activation``."""
    assert_unpatched(model)
    yield lambda batch: per_token(collect(model, batch, neurons=neurons), batch)


def mean_activation(means: Values, model_folder: Path) -> torch.Tensor:  # noqa: ARG001 (the interface's)
    """Neuron score = that mean, over samples."""
    return means["activation"]


def mean_relevance(means: Values, model_folder: Path) -> torch.Tensor:  # noqa: ARG001 (the interface's)
    """Neuron score = mean relevance over samples (SparC3, eq. 1)."""
    return means["relevance"]


def subtract(general: Values, behaviour: Values) -> tuple[torch.Tensor, torch.Tensor]:
    """The two mean scores as they are: SparC3's contrast is their difference (eq. 7)."""
    return general["score"], behaviour["score"]
