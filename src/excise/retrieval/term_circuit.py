"""The heads that carry the terms of a query: chosen on some pairs, judged together on others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from excise.artefacts import Json
from excise.circuits.faithfulness import RESAMPLES, interval
from excise.errors import ExciseError
from excise.models.encoder import Encoder
from excise.retrieval.terms import TermPair, effects, falls, together


@dataclass(frozen=True)
class TermCircuit:
    """Shares of the fall of the score, over the finding pairs, and the heads that carry most.

    Attributes:
        heads: share of each head alone, ``[layers, heads]``. Shares need not add up to 1: heads act on one another.
        mlps: share of each MLP alone, ``[layers]``.
        chosen: the strongest heads, (layer, head), best first.
        fall: mean fall of the cosine when the term is gone.
    """

    heads: Tensor
    mlps: Tensor
    chosen: list[tuple[int, int]]
    fall: float

    @property
    def names(self) -> list[str]:
        """The strongest heads, as L3H5."""
        return [f"L{layer}H{head}" for layer, head in self.chosen]

    def told(self) -> Json:
        """As the artefact has it."""
        return {"circuit": self.names, "fall": self.fall, "heads": self.heads.tolist(), "mlps": self.mlps.tolist()}


def find(encoder: Encoder, pairs: Sequence[TermPair], share: float) -> TermCircuit:
    """Patch every head and MLP alone and take the share of heads that carry most.

    Raises:
        ExciseError: the share is no head or all, or the score does not fall when the term is gone.
    """
    found = effects(encoder, pairs)
    count = round(share * found.heads[0].numel())
    if not 0 < count < found.heads[0].numel():
        raise ExciseError(f"--share {share:g} is {count} of {found.heads[0].numel()} heads: choose some, not all")
    fall = float(found.whole.mean())
    if fall <= 0:
        raise ExciseError(
            f"the score does not fall when the term is gone (mean change {-fall:+.4f} of the cosine over {len(pairs)} "
            "pairs): this encoder matches no terms here"
        )
    heads = found.heads.mean(0) / fall
    order = heads.flatten().sort(descending=True, stable=True).indices[:count].tolist()
    width = heads.shape[1]
    return TermCircuit(heads, found.mlps.mean(0) / fall, [divmod(place, width) for place in order], fall)


def judge(encoder: Encoder, pairs: Sequence[TermPair], circuit: TermCircuit, *, draws: int, seed: int) -> Json:
    """The share of the score's fall that the chosen heads carry together, with a 95 % interval over pairs.

    Returns:
        ``fall``, ``carried``, ``low``, ``high``, and ``random_mean`` and ``random_highest`` of as many random heads
        that were not chosen.

    Raises:
        ExciseError: the score does not fall on these pairs, or there are fewer other heads than chosen ones.
    """
    every = [divmod(place, circuit.heads.shape[1]) for place in range(circuit.heads.numel())]
    others = [head for head in every if head not in circuit.chosen]
    if len(others) < len(circuit.chosen):
        raise ExciseError(f"{len(circuit.chosen)} heads are chosen and {len(others)} are left to compare with")
    whole = falls(encoder, pairs).numpy()
    if whole.mean() <= 0:
        raise ExciseError("the score does not fall on the judging pairs when the term is gone: nothing can be judged")
    generator = np.random.default_rng(seed)
    index = generator.integers(len(pairs), size=(RESAMPLES, len(pairs)))
    drawn = [generator.choice(len(others), len(circuit.chosen), replace=False) for _ in range(draws)]
    sets = [circuit.chosen, *([others[place] for place in places] for places in drawn)]
    carried, *random = together(encoder, pairs, sets).numpy()
    low, high = interval(carried[index].mean(1) / whole[index].mean(1))
    shares = [float(lost.mean() / whole.mean()) for lost in random]
    return {
        "fall": float(whole.mean()),
        "carried": float(carried.mean() / whole.mean()),
        "low": low,
        "high": high,
        "random_mean": float(np.mean(shares)),
        "random_highest": max(shares),
    }
