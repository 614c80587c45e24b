"""Run a method over the batches of a shard, check every value, and add up."""

from collections.abc import Sequence
from typing import Any

import torch

from excise.artefacts import Json
from excise.attribution import Measured, Options, Values
from excise.attribution.backward import embed, last_hidden
from excise.attribution.batches import Batch
from excise.errors import ExciseError
from excise.models.loading import input_device
from excise.progress import Progress
from excise.statistics import Statistics, batch_sums


def measure(
    model: Any,
    method: Measured,
    batches: Sequence[Batch],
    part: range,
    *,
    options: Options,
    meta: Json,
    per_sample: bool = False,
) -> Statistics:
    """Measure a model on some of the batches of a corpus.

    Args:
        model: a causal language model of a supported family.
        method: how to measure.
        batches: all batches of the corpus.
        part: which of them to run.
        options: how the method measures.
        meta: provenance of the result.
        per_sample: keep the values of each sample too.

    Raises:
        ExciseError: a value is NaN or infinite (named by layer and sample), dropout is on, a batch leaks between
            its tokens, or the method refuses the model.
    """
    check_ready(model)
    statistics = Statistics(meta, len(batches))
    device = input_device(model)
    samples = sum(len(batches[index].ids) for index in part)
    with Progress(samples, "samples", meta["method"]) as progress, method.measuring(model, options) as values_of:
        for index in part:
            batch = batches[index].to(device)
            if index == part.start:
                check_causal(model, batch)
            values = values_of(batch)
            check_finite(values, batch)
            statistics.add(
                index,
                batch_sums(
                    values,
                    tokens=int(batch.counted.sum()),
                    squares=method.squares,
                    rows=method.rows,
                    per_sample=per_sample,
                ),
            )
            progress.advance(len(batch.ids))
    return statistics


def check_ready(model: Any) -> None:
    """Freeze the parameters, and refuse a model with a part in training mode.

    Raises:
        ExciseError: some module is in training mode; names it.
    """
    for name, module in model.named_modules():
        if module.training:
            raise ExciseError(f"{name or 'the model'} is in training mode: dropout would be random. Call model.eval().")
    model.requires_grad_(False)


def check_causal(model: Any, batch: Batch) -> None:
    """Make sure that no token sees a later one: padding on the right relies on it, and so does every target.

    Raises:
        ExciseError: changing a sample's last token changed the states of tokens before it.
    """
    length = min(16, int(batch.mask[-1].sum()))  # of the longest sample: no padding among them
    first = Batch(
        index=batch.index,
        ids=batch.ids[-1:],
        input_ids=batch.input_ids[-1:, :length].clone(),
        mask=batch.mask[-1:, :length],
        counted=batch.counted[-1:, :length],
        position_ids=batch.position_ids[-1:, :length],
        target_start=batch.target_start[-1:],
    )
    with torch.no_grad():
        before = last_hidden(model, first, embed(model, first))
        first.input_ids[0, -1] = (first.input_ids[0, -1] + 1) % model.config.vocab_size
        after = last_hidden(model, first, embed(model, first))
    # NaN is left to check_finite, which names it.
    if not torch.equal(before[:, :-1].nan_to_num(), after[:, :-1].nan_to_num()):
        raise ExciseError("a token's state depends on a later token: some attention of this model has lost its mask")


def check_finite(values: Values, batch: Batch) -> None:
    """Refuse NaN and infinity.

    Raises:
        ExciseError: there is one; names the layer and the sample.
    """
    for name, value in values.items():
        bad = ~torch.isfinite(value)
        if bad.any():
            sample, layer, neuron = bad.nonzero()[0].tolist()
            raise ExciseError(
                f"{name} of sample {batch.ids[sample]!r} is {value[sample, layer, neuron]} at layer {layer}, index "
                f"{neuron} ({int(bad.sum())} values in this batch). Check the sample, or use --dtype float32."
            )
