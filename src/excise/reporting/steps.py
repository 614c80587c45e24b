"""What was done, step by step."""

from excise.artefacts import Json
from excise.attribution.registry import CONTROLS, METHODS
from excise.reporting.summary import Summary
from excise.reporting.tables import counted, exact_percent, figure, in_words, plural
from excise.reporting.words import digits, said_of, setting


def _reference(reference: Json, summary: Summary, config: Json) -> str:
    """A reference set of the configuration in words."""
    if reference["kind"] == "windows":
        text = config.get("texts", {}).get(reference["text"], {}).get("label", reference["text"])
        return f"{counted(reference['windows'], 'window')} of {reference['seqlen']:,} tokens of {text} per seed"
    if reference["kind"] == "file":
        return f"from a file, {_most(reference)}"
    lower, upper = reference.get("at_least"), reference.get("below")
    rule = f"at least {lower:g}" if lower is not None else f"below {upper:g}"
    turn = f"; of each only the token at which it turned {summary.target.settings['adjective']} is explained"
    dealt = ", after the scores were dealt anew among them" if reference.get("permuted") else ""
    return (
        f"answers of the model scored {rule}{dealt}, {_most(reference)}"
        f"{turn if reference.get('span') == 'onset' else ''}"
    )


def _looked_at(config: Json) -> set[str]:
    """The reference sets that some variant's method looks at."""
    variants = [one for one in (config.get("variants") or {}).values() if one.get("method") not in CONTROLS]
    return {one[side] for one in variants for side in ("target", "retain") if side in one}


def _most(reference: Json) -> str:
    """How many samples a seed gives."""
    return "all of each seed" if reference["count"] == "all" else f"at most {reference['count']:,} per seed"


def _times(config: Json, section: str) -> str:
    """How often a section of the configuration lets a prompt be answered."""
    if setting(config, f"{section}.greedy"):
        return "once, always with the most probable token,"
    draws = setting(config, f"{section}.num_generations")
    return "once" if draws == 1 else f"{draws} times"


def method(summary: Summary, config: Json) -> list[str]:
    """What was done, step by step, as far as the configuration tells."""
    target = summary.target
    steps = []
    if target.task == "behaviour":
        steps += _found(summary, config)
    steps += [
        f"{column.title}: {column.items:,} {plural(column.item)}"
        + (f", {column.settings['tokens']:,} tokens" if "tokens" in column.settings else "")
        + f"; unpruned {figure(summary.baseline.cells[column.address].figure, column.unit, digits(column))}."
        for column in summary.columns
        if column.compared and column.task != "capability"
    ]
    steps.append(_rule(summary))
    return steps


def _found(summary: Summary, config: Json) -> list[str]:
    """How units that show a behaviour were found, and how variants answered."""
    target = summary.target
    prompts = setting(config, "prompts.label") or "prompts"
    steps = []
    if (fraction := setting(config, "prompts.attribution_fraction")) is not None:
        tuning = setting(config, "prompts.tuning_fraction")
        part = f"{exact_percent(tuning)} to choose how many, " if tuning else ""
        judging = setting(config, "prompts.judging.label")
        judges = f"{judging} ({target.items:,})" if judging else f"the others ({target.items:,})"
        steps.append(
            f"{prompts}: {exact_percent(fraction)} of the prompts served to find units, {part}{judges} only to judge."
        )
    if (generations := setting(config, "generations")) is not None:
        seeds = setting(config, "seeds") or []
        steps.append(
            f"The model answered each prompt of the first part {_times(config, 'generations')} per seed "
            f"({counted(len(seeds), 'seed')}); {generations['scorer']} scored the answers, and the reference "
            "sets were picked by score."
        )
    methods = dict.fromkeys(row.about.method for row in summary.variants if row.about.method is not None)
    steps += [
        f"Reference set {name}: {_reference(one, summary, config)}."
        for name, one in (config.get("references") or {}).items()
        if name in _looked_at(config)
    ]
    steps.append(
        f"{_units(summary)} were ranked over all layers together by their score for what shall be kept minus their "
        f"score for what is {target.settings['adjective']}, lowest first. The scores: "
        + "; ".join(
            f"{name} = {METHODS[name].label if name in METHODS else 'see the documentation'}" for name in methods
        )
        + "."
    )
    steps.append(
        f"Each variant answered each of the {target.items:,} evaluation prompts "
        f"{_times(config, 'evaluation')} and was compared with the unpruned model prompt by prompt."
    )
    return steps


NAMES = {"neuron": "neurons (intermediate channels of the MLPs)", "head": "attention heads"}
"""Units, where their plural does not say what they are."""


def _units(summary: Summary) -> str:
    """The kinds of units that were ranked, at the begin of a sentence."""
    kinds = dict.fromkeys(row.about.unit for row in summary.variants if row.about.unit)
    said = " and ".join(NAMES.get(kind, f"{kind}s") for kind in kinds)
    return said[:1].upper() + said[1:]


def _rule(summary: Summary) -> str:
    """What it takes to win."""
    limits, verb = summary.limits, "lower" if summary.goal.better == "lower" else "raise"
    side = "below" if verb == "lower" else "above"
    budgets = "".join(
        f", and may change {said_of(column)} by {in_words(summary.goal.within[column.address])} at most"
        for column in summary.budgets
    )
    said = (
        f"To win, a variant must not be a control, must not be broken, must {verb} {said_of(summary.target)} with "
        f"its whole interval {side} zero{budgets}."
    )
    broken = []
    if any(column.task == "perplexity" for column in summary.budgets):
        broken.append(f"perplexity up by more than {exact_percent(limits.broken_perplexity_increase)}")
    if summary.of_task("degeneration"):
        broken += [
            "perplexity of its generations changed by more than a factor of "
            f"{limits.broken_fluency_ratio:g} either way",
            f"distinct-2 below {limits.broken_distinct_ratio:g} of the unpruned model's",
            f"{100 * limits.broken_repetitive_rise:g} points more repetitive generations",
            f"{100 * limits.broken_empty_rise:g} points more empty ones",
        ]
    if not broken:
        return said
    *most, last = broken
    return f"{said} Broken means: {', '.join(most)}{', or ' if most else ''}{last}."
