"""What several methods share."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from excise.attribution import Measure, Options, Values
from excise.attribution.backward import recomputing, relevance
from excise.attribution.batches import Batch
from excise.attribution.forward import Reduce, collect, per_token
from excise.attribution.lxt_patch import patched
from excise.attribution.objectives import plain
from excise.errors import ExciseError
from excise.models.units import axis
from excise.models.unpatched import assert_unpatched


@contextlib.contextmanager
def measuring_relevance(model: nn.Module, options: Options, rule: str | None) -> Iterator[Measure]:
    """Relevance of every unit under a rule of LRP, or gradient x activation without one.

    Raises:
        ExciseError: the model is not covered by the rule, or some sample's relevance is zero everywhere.
    """
    if rule is None:
        assert_unpatched(model)
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(patched(model, rule)) if rule is not None else None
        stack.enter_context(recomputing(model, options.recompute))

        def measure(batch: Batch) -> Values:
            elementwise, halve = (plain, False) if patch is None else (patch.elementwise, patch.halve)
            values = relevance(
                model, batch, objective=options.objective, unit=options.unit, elementwise=elementwise, halve=halve
            )
            if patch is not None:
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
                f"sample {sample!r}: the relevance of every unit is zero; the backward pass did not reach the model"
            )


@contextlib.contextmanager
def measuring_activation(
    model: nn.Module, options: Options, reduce: Reduce, *, per_channel: bool = False
) -> Iterator[Measure]:
    """What ``reduce`` sums of the activations over tokens, as a mean over each sample's tokens: ``activation``.

    Args:
        model: a causal language model of a supported family.
        options: which unit.
        reduce: sums the activations of every channel over tokens.
        per_channel: keep the channels; otherwise those of each unit are added up.
    """
    assert_unpatched(model)
    units = axis(model.config, options.unit)

    def measure(batch: Batch) -> Values:
        values = collect(model, batch, unit=options.unit, channels=reduce)
        if not per_channel:
            values = {name: units.fold(value) for name, value in values.items()}
        return per_token(values, batch)

    yield measure
