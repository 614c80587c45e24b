"""Which smaller encoders an experiment asks for, and what its ``retrieval`` section demands of the others."""

from collections.abc import Iterator
from dataclasses import dataclass

from excise.config.experiment import Experiment
from excise.config.retrieval import TEXTLESS, Layers, Removal, Retrieval
from excise.errors import ExciseError

DENSE = "dense"
"""Name of the encoder that all others are made from."""


@dataclass(frozen=True)
class Smaller:
    """One smaller encoder.

    Attributes:
        name: ``ENTRY-PERCENT``, ``ENTRY-LAYERS`` or ``ENTRY``, with ``-repeatK`` where chance draws several times.
        entry: key in ``retrieval.variants``.
        size: per cent of the units (with a budget: of the time) removed, or layers kept; None for static vectors.
        seed: of a random choice, added to the experiment's.
    """

    name: str
    entry: str
    size: float | None = None
    seed: int = 0


def smaller(retrieval: Retrieval) -> dict[str, Smaller]:
    """Every smaller encoder by name, in the order of the configuration.

    Raises:
        ExciseError: two would have the same name.
    """
    found: dict[str, Smaller] = {}
    for entry, variant in retrieval.variants.items():
        for one in _of(entry, variant):
            if one.name in found or one.name == DENSE:
                raise ExciseError(f"config: retrieval.variants: two encoders are called {one.name!r}; rename one")
            found[one.name] = one
    return found


def _of(entry: str, variant: object) -> Iterator[Smaller]:
    if isinstance(variant, Removal):
        for repeat in range(variant.repeats):
            label = f"{entry}-repeat{repeat}" if variant.repeats > 1 else entry
            for share in variant.remove or [1 - time for time in variant.time or []]:
                percent = round(100 * share, 6)
                yield Smaller(f"{label}-{percent:g}", entry, percent, repeat)
    elif isinstance(variant, Layers):
        for count in variant.keep:
            yield Smaller(f"{entry}-{count}", entry, count)
    else:
        yield Smaller(entry, entry)


def calibrating(retrieval: Retrieval) -> str | None:
    """The collection whose documents score, repair and train; None where there is none."""
    return next((name for name, one in retrieval.collections.items() if one.calibration_documents), None)


def calibrated(retrieval: Retrieval) -> list[str]:
    """Entries of ``variants`` that calibration texts are needed for."""
    return [name for name, variant in retrieval.variants.items() if _reads_texts(variant)]


def _reads_texts(variant: object) -> bool:
    if getattr(variant, "distil", None) is not None:
        return True
    return isinstance(variant, Removal) and (variant.method not in TEXTLESS or variant.repair != "none")


def retrieval_problems(experiment: Experiment) -> Iterator[str]:
    """What does not go together, as sentences."""
    retrieval = experiment.retrieval
    if retrieval is None:
        return
    try:
        smaller(retrieval)
    except ExciseError as error:
        yield str(error).removeprefix("config: ")
    giving = [name for name, one in retrieval.collections.items() if one.calibration_documents]
    if len(giving) > 1:
        yield f"retrieval.collections: {' and '.join(giving)} have calibration_documents; one collection calibrates"
    if not giving and (entries := calibrated(retrieval)):
        yield (
            f"retrieval.variants.{entries[0]} needs calibration texts; give one collection calibration_documents, for "
            "example 600"
        )
    for name, one in retrieval.collections.items():
        if one.tuning_fraction and not one.calibration_documents:
            yield (
                f"retrieval.collections.{name}.tuning_fraction: tuning queries take part in calibration, and this "
                "collection has no calibration_documents"
            )
    if experiment.goal is not None and not experiment.variants:
        yield "goal: it decides among variants; of smaller encoders the fastest that keeps retrieval.at_least wins"
    if experiment.device == "spread":
        yield "device: spread is for causal models; encoders run on one device"
    for name, model in experiment.models.items():
        if model.dtype == "bfloat16":
            yield f"models.{name}.dtype: encoders are embedded in float32 or float64; bfloat16 breaks ties at random"
