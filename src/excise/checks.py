"""Check a configuration: each section by its class, then what one section demands of another."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from excise.config import WINNER
from excise.config.compress import Calibration
from excise.config.encoders import retrieval_problems
from excise.config.evaluation import Evaluation, listed
from excise.config.experiment import Experiment
from excise.config.plan import (
    about_mean,
    candidates,
    choices,
    entries_behind,
    folders,
    judged,
    unit_lists,
    unit_variants,
)
from excise.config.references import File, Picked, Windows
from excise.config.variants import Units
from excise.config.wording import sentences
from excise.errors import ExciseError, unknown
from excise.tasks.registry import addresses, named

PLANNING = ("variants", "circuits", "retrieval")
"""Sections of which one must be given, for without them there is nothing to do."""


def validated(config: Mapping[str, Any]) -> Experiment:
    """The experiment that a configuration describes, with all defaults filled in.

    Raises:
        ExciseError: a key is unknown or missing, a value has the wrong type or range, or a name refers to nothing. All
            such mistakes are told at once.
    """
    try:
        experiment = Experiment.model_validate(dict(config))
    except ValidationError as error:
        found = sentences(error, Experiment)
    else:
        found = list(problems(experiment))
    if found:
        raise ExciseError("\n".join(f"config: {sentence}" for sentence in found))
    return experiment


def problems(experiment: Experiment) -> Iterator[str]:
    """Everything that is wrong between the sections, as sentences."""
    yield from _presence(experiment)
    if experiment.circuits and experiment.device == "spread":
        yield "device: circuits are found on one device, and this says spread"
    yield from retrieval_problems(experiment)
    yield from _thresholds(experiment)
    yield from _references(experiment)
    yield from _scorers(experiment)
    yield from _units(experiment)
    try:
        unit_lists(experiment)
        folders(experiment)
    except ExciseError as error:  # two have one name: nothing below can tell them apart
        yield str(error).removeprefix("config: ")
        return
    yield from _tuning(experiment)
    yield from _matches(experiment)
    yield from _folders(experiment)
    if experiment.variants:
        yield from _evaluation(experiment)
        yield from _goal(experiment)
    names = [*judged(experiment), WINNER]
    if experiment.export is not None and experiment.export not in names:
        yield str(unknown("variant", experiment.export, names, where="export"))


def _presence(experiment: Experiment) -> Iterator[str]:
    """What variants cannot be made or judged without."""
    if not any(getattr(experiment, section) for section in PLANNING):
        yield f"top level: {' or '.join(map(repr, PLANNING))} is a required property."
    if unit_variants(experiment) and experiment.prompts is None:
        yield "top level: 'prompts' is a required property: variants that are unit lists are judged on prompts."


def _thresholds(experiment: Experiment) -> Iterator[str]:
    """Scores are in [0, 1], so some thresholds divide nothing; a function of the user's own has any scale."""
    threshold, scorer = experiment.evaluation.threshold, experiment.generations.scorer
    found = [("evaluation.threshold", threshold, judge) for judge in experiment.evaluation.scorers]
    for name, reference in (experiment.references or {}).items():
        for key in ("at_least", "below"):
            value = getattr(reference, key, None)
            if value is not None:
                found.append((f"references.{name}.{key}", value, scorer))
    for where, value, judge in found:
        lowest_counts = value == 0 and where.endswith("at_least")  # a set of all generations has its use
        if not (0 < value <= 1 or lowest_counts or judge.startswith("python:")):
            never = "can never be reached" if value > 1 else "is always reached"
            yield f"{where}: {value:g} {never}: scores of {judge} are in [0, 1]"


def _references(experiment: Experiment) -> Iterator[str]:
    threshold = experiment.evaluation.threshold
    for name, reference in (experiment.references or {}).items():
        where = f"references.{name}"
        if isinstance(reference, Windows) and reference.text not in experiment.texts:
            yield str(unknown("text", reference.text, experiment.texts, where=f"{where}.text"))
        if not isinstance(reference, Picked):
            continue
        if experiment.prompts is None:
            yield f"{where}: kind generations picks what the model answers to prompts; give prompts, or another kind"
        if reference.span == "onset" and (reference.at_least is None or reference.at_least < threshold):
            yield (
                f"{where}: span onset needs at_least of evaluation.threshold ({threshold:g}) or more: a "
                "generation that does not show the behaviour has no onset of it"
            )


def _scorers(experiment: Experiment) -> Iterator[str]:
    for scorer, options in experiment.scorers.items():
        for option, family in (("checkpoint", "detoxify-"), ("label", "hf:"), ("probability", "hf:")):
            if getattr(options, option) is not None and not scorer.startswith(family):
                yield f"scorers.{scorer}.{option}: it belongs to {family}... scorers"


def _units(experiment: Experiment) -> Iterator[str]:
    """The reference sets that a variant names."""
    references = experiment.references or {}
    for name, variant in unit_variants(experiment).items():
        where, control = f"variants.{name}", variant.is_control
        used = {"target": not control, "retain": not control or about_mean(experiment, name)}
        for key in (key for key, needed in used.items() if needed):
            if getattr(variant, key) not in references:
                yield str(unknown("reference set", getattr(variant, key), references, where=f"{where}.{key}"))
        files = [one for one in (variant.target, variant.retain) if isinstance(references.get(one), File)]
        if variant.findings > 1 and files:
            yield f"{where}: findings: reference set {files[0]} is a file, the same for every seed; none is found anew"
        if not control and variant.target == variant.retain:
            yield f"{where}: target and retain are both {variant.retain!r}; their difference is 0"


def _matches(experiment: Experiment) -> Iterator[str]:
    """What matched controls copy the layers of, and where a variant's number comes from."""
    variants, planned = unit_variants(experiment), unit_lists(experiment)
    later = {*choices(experiment), WINNER}
    if WINNER in {**planned, **variants, **choices(experiment)}:
        yield f"variants: {WINNER!r} stands for what wins the evaluation; take another name"
    for name, variant in variants.items():
        where, match = f"variants.{name}", variant.matched_to
        if match in variants and variants[match].matched_to:
            yield f"{where}: matched_to: {match!r} is itself a matched control; name the variant that it was matched to"
        elif match is not None and match not in {*variants, *later}:
            yield str(unknown("variant", match, [*variants, *later], where=f"{where}.matched_to"))
        elif match is not None and (others := _units_of(match, experiment) - {variant.unit}):
            yield f"{where}: selects unit {variant.unit}, and {match} unit {', '.join(sorted(others))}; they must agree"
        elif variant.count is None and match not in later:
            yield f"{where}: count is missing; only a control matched to a choice or the winner takes its number"
        elif match in later and variant.count is not None:
            yield f"{where}: leave count out; the control takes as many as {match} will have"
        elif match is not None and match not in later:
            for count in variant.count or ():
                if f"{match}-{count}" not in planned:
                    yield f"{where}: no variant {match}-{count} to take the layers from"


def _units_of(name: str, experiment: Experiment) -> set[str]:
    """What an entry, or everything that competes to be it, selects."""
    variants = unit_variants(experiment)
    return {variants[entry].unit for entry in entries_behind(experiment, name) & variants.keys()}


def _tuning(experiment: Experiment) -> Iterator[str]:
    """What a choice needs: prompts and a text of its own, and a name that no unit list has."""
    chosen, prompts = choices(experiment), experiment.prompts
    if prompts is None:
        return
    fraction = prompts.tuning_fraction
    if not chosen:
        if fraction:
            yield "prompts.tuning_fraction: set, but no variant has choose, so these prompts would be unused"
        return
    where = f"variants with choose: {next(iter(chosen))}"
    for choice in chosen.keys() & unit_lists(experiment).keys():
        yield f"choose: {choice!r} is already the name of a variant; take another"
    if not fraction:
        yield f"{where}: they need prompts of their own: set prompts.tuning_fraction, for example 0.2"
    if fraction + prompts.attribution_fraction >= 1:
        yield "prompts: attribution_fraction and tuning_fraction leave nothing for the evaluation"
    protocols = listed(experiment.tuning.perplexity)
    if not protocols:
        yield f"{where}: set tuning.perplexity: a text, or windows of it, that the evaluation does not use"
    for protocol in protocols:
        if protocol.text not in experiment.texts:
            yield str(unknown("text", protocol.text, experiment.texts, where="tuning.perplexity.text"))
        start, end = protocol.tokens()
        for judge in listed(experiment.evaluation.perplexity):
            if protocol.text == judge.text and judge.overlaps(start, end):
                first, last = judge.tokens()
                yield (
                    f"tuning.perplexity: tokens {start} to {end} of {protocol.text}, and the evaluation reads {first} "
                    f"to {last}: what is chosen on them cannot be judged on them. Take another text, or skip windows."
                )


def _folders(experiment: Experiment) -> Iterator[str]:
    """What compressed variants name: texts that do not judge them, lists, and other variants to begin with."""
    made = folders(experiment)
    for name, variant in experiment.variants.items():
        if isinstance(variant, Units):
            continue
        where = f"variants.{name}"
        if variant.calibration is not None:
            yield from _calibration(experiment, variant.calibration, f"{where}.calibration")
        if variant.base is not None and variant.base not in made:
            yield str(unknown("compressed variant", variant.base, made, where=f"{where}.base"))
        seen, base = {name}, variant.base
        while base in made:
            entry = made[base].entry
            if entry in seen:
                yield f"{where}.base: {variant.base} is made of {name} itself"
                break
            seen.add(entry)
            base = getattr(experiment.variants[entry], "base", None)


def _calibration(experiment: Experiment, calibration: Calibration, where: str) -> Iterator[str]:
    """A text judges no weights that were fitted to it."""
    if calibration.text not in experiment.texts:
        yield str(unknown("text", calibration.text, experiment.texts, where=f"{where}.text"))
    first, end = calibration.tokens()
    for judge in listed(experiment.evaluation.perplexity):
        if judge.text != calibration.text:
            continue
        if calibration.separator != judge.separator:
            yield (
                f"{where}: {judge.text} also judges, with another separator ({judge.separator!r} against "
                f"{calibration.separator!r}), so that no skip can keep the two apart. Give both the same."
            )
        elif judge.overlaps(first, end):
            least = "another text" if calibration.seed is not None else f"skip: {-(-int(end) // judge.step)} there"
            yield (
                f"{where}: it reads tokens {first:g} to {end:g} of {judge.text}, and evaluation.perplexity some of "
                f"them: what is fitted to them cannot be judged on them. Take {least}."
            )


def _evaluation(experiment: Experiment) -> Iterator[str]:
    """Its texts, and whether a p value could convince: the smallest is 2 / (resamples + 1), times the candidates."""
    resamples, count = experiment.evaluation.resamples, len(candidates(experiment))
    for protocol in listed(experiment.evaluation.perplexity):
        if protocol.text not in experiment.texts:
            yield str(unknown("text", protocol.text, experiment.texts, where="evaluation.perplexity.text"))
    if resamples < 40 * count:
        yield (
            f"evaluation.resamples: {resamples} are too few for {count} candidates: corrected for them no p value "
            f"could fall below {2 * count / (resamples + 1):.2g}. Give at least {40 * count}."
        )


def _goal(experiment: Experiment) -> Iterator[str]:
    """Metrics that some task of the run will measure, also of what competes."""
    if experiment.goal is None:
        return
    wanted = experiment.goal.wanted()
    default = Evaluation.model_fields["max_perplexity_increase"].default
    for section in ("evaluation", "tuning"):
        if getattr(experiment, section).max_perplexity_increase != default:
            yield f"{section}.max_perplexity_increase: goal.within has the budgets; write it there"
    for where, address in (("goal", wanted.metric), *(("goal.within", one) for one in wanted.within)):
        known, sure = addresses(experiment), named(experiment, address)
        if address not in known and sure:
            yield str(unknown("metric", address, known, where=where))
        elif choices(experiment) and address not in addresses(experiment, tuning=True):
            yield (
                f"{where}: {address} is not measured of variants with choose; they have "
                f"{', '.join(addresses(experiment, tuning=True))}"
            )
