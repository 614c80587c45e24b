"""The findings in sentences: what was found, how sure it is, what it cost."""

from typing import Any

from excise.artefacts import Json
from excise.attribution.registry import METHODS
from excise.reporting.summary import LRP, adjective, baseline_row, by_name, noun
from excise.reporting.tables import counted, exact_percent, interval, number, p_value, percent, points


def setting(config: Json, dotted: str) -> Any:
    """A value of the configuration by its dotted name, None where it is not set."""
    value: Any = config
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


SIGNIFICANCE = 0.05
"""Corrected p values below this count as established."""

FEW_WINDOWS = 8
"""An interval of perplexity from fewer windows than this comes with a caution."""


def shown(summary: Json) -> str | None:
    """The variant that the report looks at closely: the winner, else the best one that is not broken."""
    verdict = summary["verdict"]
    name: str | None = verdict["winner"] or verdict["closest"]
    return name


def treatment(row: Json) -> str:
    """What was done to the selected neurons: ``Pruning 100 neurons (0.22 % of all)``."""
    about = " about their mean" if row["ablation"] == "mean" else ""
    match row["scale"]:
        case 0:
            verb = "Holding at their mean" if about else "Pruning"
        case -1:
            verb = f"Reversing{about}"
        case "per row":
            verb = f"Scaling, each by its own number{about}, the output of"
        case scale:
            verb = f"Scaling by {scale:g}{about} the output of"
    return f"{verb} {row['neurons']:,} neurons ({percent(row['share_of_neurons'], 2)} of all)"


def difference(change: Json) -> str:
    """``-7.3 points, 95 % interval -10.4 to -4.2``."""
    return f"{points(change['difference'])} points, 95 % interval {interval(change['interval'])}"


def effect(change: Json) -> str:
    """Before and after, the difference and its interval, in words."""
    relative = "" if change["relative"] is None else f"; {percent(change['relative'], 0, signed=True)} relative"
    if change["relative_interval"] is not None:
        low, high = change["relative_interval"]
        relative += f", {percent(low, 0, signed=True)} to {percent(high, 0, signed=True)}"
    return f"from {percent(change['before'])} to {percent(change['after'])} ({difference(change)}{relative})"


def cost(row: Json) -> str:
    """What a variant costs in perplexity: ``+3.8 %, 95 % interval +2.5 to +5.2 %``."""
    change = percent(row["perplexity_change"], signed=True)
    if row["perplexity_interval"] is None:
        return change
    low, high = row["perplexity_interval"]
    return f"{change}, 95 % interval {points(low)} to {percent(high, signed=True)}"


def answer(summary: Json) -> str:
    """The result in one or two sentences, with its interval and its cost."""
    rows, scorer, base = by_name(summary), summary["primary"], baseline_row(summary)
    budget = exact_percent(summary["limits"]["max_perplexity_increase"])
    name = shown(summary)
    if name is None:
        return (
            f"No result: of {len(rows) - 1} variants none is left to judge, each one is a control or its language is "
            "broken."
        )
    row = rows[name]
    price = (
        f"perplexity on {summary['perplexity']['text']} went from {number(base['perplexity'])} to "
        f"{number(row['perplexity'])} ({cost(row)})"
    )
    if summary["verdict"]["winner"]:
        return (
            f"{treatment(row)} chosen by {row['method']} took the share of {adjective(summary)} continuations "
            f"{effect(row['change'][scorer])}, judged by {scorer} on {summary['prompts']:,} prompts; {price}."
            f"{_corrected(row['change'][scorer], summary['comparisons'])}"
        )
    change = row["change"][scorer]
    best = "largest reduction" if change["difference"] < 0 else "least rise, for none fell,"
    return (
        f"No variant reduced the share of {adjective(summary)} continuations reliably within a perplexity increase of "
        f"{budget}. The {best} of one that is not broken, {name}, went {effect(change)}; {price}."
    )


def _corrected(change: Json, comparisons: int) -> str:
    """Whether the winner's reduction passes the permutation test, corrected where it was picked among several."""
    verdict = "holds" if change["p_holm"] < SIGNIFICANCE else "is not established"
    test = f"Corrected for the {comparisons} candidates compared" if comparisons > 1 else "By the permutation test"
    return f" {test} it {verdict} (p {_equals(change['p_holm'])})."


def _of_many(name: str, change: Json, comparisons: int) -> str:
    """What it means for a change that its variant was picked among several, or that it was not."""
    sure = change["p_holm"] < SIGNIFICANCE
    if comparisons == 1:
        end = "" if sure else ", so no change is established"
        return f"{end}. {name} was the only candidate on these prompts, so none was picked by them."
    return (
        f"; corrected (Holm) for the {comparisons} candidates compared: p {_equals(change['p_holm'])}"
        f"{'' if sure else ', so after correction no change is established'}. {name} was picked as the best of them on "
        "these prompts, which flatters it. An interval that holds for all of them together is "
        f"{interval(change['simultaneous_interval'])} points."
    )


def about_lrp(summary: Json) -> str | None:
    """Whether LRP won, in words; None when no LRP variant was in the comparison."""
    rows, scorer, verdict = by_name(summary), summary["primary"], summary["verdict"]
    if not any(row["method"] in LRP for row in rows.values()):
        return None
    if verdict["winner"] is None:
        return "LRP did not win: nobody did."
    lrp, other = verdict["best_lrp"], verdict["best_other"]
    if lrp is None:
        return (
            f"LRP did not win: no LRP variant reduced {noun(summary)} reliably within the budget; {verdict['winner']} "
            f"({rows[verdict['winner']]['method']}) did."
        )
    if other is None:
        return (
            f"LRP won: {lrp} is the best variant, and no other method reduced {noun(summary)} reliably within the "
            "budget."
        )
    change = verdict["lrp_against_best_other"]
    high = change["p"] < SIGNIFICANCE and (change["interval"][1] < 0 or change["interval"][0] > 0)
    compared = (
        f"{lrp} compared with {other} on the same prompts: {difference(change)}, "
        f"so the difference between the two {'is' if high else 'is not'} established"
    )
    first = "LRP won" if verdict["lrp_wins"] else f"LRP did not win, {other} ({rows[other]['method']}) did"
    drop = points(rows[other]["change"][scorer]["difference"])
    return f"{first}. The best variant of another method within the budget is {other} ({drop} points). {compared}."


def confidence(summary: Json, config: Json) -> list[str]:
    """How sure the answer is: one sentence a matter."""
    rows, scorer = by_name(summary), summary["primary"]
    name = shown(summary)
    said = []
    if name is not None:
        change = rows[name]["change"][scorer]
        said += [
            f"Each of the {change['items']:,} evaluation prompts was answered by the unpruned and by the pruned "
            f"model and compared with itself. Paired permutation test: p {_equals(change['p'])}"
            f"{_of_many(name, change, summary['comparisons'])}",
        ]
        if change["detectable"]:
            said.append(
                f"A true change of {number(100 * change['detectable'], 1)} points or more would have been found with "
                "80 % probability, by one test without correction; smaller ones may go unseen here."
            )
        said.append(_price(rows[name], summary))
        said.append(_language(rows[name], baseline_row(summary)))
        said += _against_controls(summary)
        said += _other_scorers(summary, name)
    if setting(config, "generations.scorer") == scorer:
        said.append(
            f"{scorer} also picked the references that the neurons were found with. A scorer that had no part in that "
            "is better evidence."
        )
    if not summary["fluency_checked"]:
        said.append("The perplexity of the generations under the unpruned model was not measured.")
    for row in summary["variants"]:
        if row["flag"]:
            said.append(
                f"{row['variant']} is broken, so its share of {adjective(summary)} continuations proves nothing: "
                f"{'; '.join(row['broken_because'])}."
            )
    return said


def _price(row: Json, summary: Json) -> str:
    """How sure it is that a variant is within the budget."""
    windows, budget = summary["perplexity"]["windows"], summary["limits"]["max_perplexity_increase"]
    if row["perplexity_interval"] is None:
        return "Perplexity was measured on one window, so its change has no interval."
    low, high = row["perplexity_interval"]
    place = "reaches beyond" if low <= budget < high else "lies within" if high <= budget else "lies beyond"
    caution = f" {windows} windows are few: take this interval with caution." if windows < FEW_WINDOWS else ""
    return (
        f"Perplexity was compared window by window ({windows:,} of them): {cost(row)}. The interval {place} the budget "
        f"of {exact_percent(budget, signed=True)}; it speaks for text like this one.{caution}"
    )


def _language(row: Json, base: Json) -> str:
    """The degeneration figures of a variant beside those of the unpruned model."""
    now, then = row["degeneration"], base["degeneration"]
    figures = [f"distinct-2 {number(then['distinct_2'], 3)} to {number(now['distinct_2'], 3)}"]
    if then["fluency_perplexity"] is not None:
        read = f"{number(then['fluency_perplexity'])} to {number(now['fluency_perplexity'])}"
        figures.insert(0, f"perplexity of the generations under the unpruned model {read}")
    for key, word in (("repetitive_share", "repetitive"), ("empty_share", "empty")):
        figures.append(f"{word} generations {percent(then[key])} to {percent(now[key])}")
    return f"What {row['variant']} writes is still language, as far as these figures tell: {', '.join(figures)}."


def _equals(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _against_controls(summary: Json) -> list[str]:
    verdict, said = summary["verdict"], []
    controls = [row["variant"] for row in summary["variants"] if row["kind"] == "control"]
    if not controls:
        said.append("There are no controls in this table, so part of the change may be what any damage would do.")
    else:
        reduce = verdict["controls_that_reduce"]
        if len(controls) == 1:
            who = f"The only control, {controls[0]}, {'also shows a' if reduce else 'shows no'}"
        elif reduce:
            who = f"Of {len(controls)} controls {len(reduce)} also {'shows' if len(reduce) == 1 else 'show'} a"
        else:
            who = f"None of the {len(controls)} controls shows a"
        named = f": {', '.join(reduce)}" if reduce and len(controls) > 1 else ""
        said.append(f"{who} reduction whose interval lies below zero{named}.")
    if (against := verdict["against_controls"]) is not None:
        draws = against["controls"]
        drawn = "random draw" if len(draws) == 1 else "average of the random draws"
        said.append(
            f"Against the {drawn} of as many neurons, treated alike ({', '.join(draws)}): {difference(against)}."
        )
    return said


def _other_scorers(summary: Json, name: str) -> list[str]:
    changes = {key: value for key, value in by_name(summary)[name]["change"].items() if key != summary["primary"]}
    if not changes:
        return [
            f"{noun(summary).capitalize()} was judged by one scorer only ({summary['primary']}); scorers disagree, "
            "and a single one sees only part of it."
        ]
    return [
        f"By {key}, which did not decide: {effect(change)}"
        f"{', which agrees.' if change['reduces'] else ', which does not establish a reduction.'}"
        for key, change in changes.items()
    ]


def _reference(reference: Json, summary: Json, config: Json) -> str:
    """A reference set of the configuration in words."""
    if reference["kind"] == "windows":
        text = config.get("texts", {}).get(reference["text"], {}).get("label", reference["text"])
        return f"{counted(reference['windows'], 'window')} of {reference['seqlen']:,} tokens of {text} per seed"
    if reference["kind"] == "file":
        return f"from a file, at most {reference['count']:,} per seed"
    lower, upper = reference.get("at_least"), reference.get("below")
    rule = f"at least {lower:g}" if lower is not None else f"below {upper:g}"
    turn = f"; of each only the token at which it turned {adjective(summary)} is explained"
    return (
        f"answers of the model scored {rule}, at most {reference['count']:,} per seed"
        f"{turn if reference.get('span') == 'onset' else ''}"
    )


def _times(config: Json, section: str) -> str:
    """How often a section of the configuration lets a prompt be answered."""
    if setting(config, f"{section}.greedy"):
        return "once, always with the most probable token,"
    draws = setting(config, f"{section}.num_generations")
    return "once" if draws == 1 else f"{draws} times"


def method(summary: Json, config: Json) -> list[str]:
    """What was done, step by step, as far as the configuration tells."""
    base = baseline_row(summary)
    prompts = setting(config, "prompts.label") or "prompts"
    steps = []
    if (fraction := setting(config, "prompts.attribution_fraction")) is not None:
        tuning = setting(config, "prompts.tuning_fraction")
        part = f"{exact_percent(tuning)} to choose how many, " if tuning else ""
        steps.append(
            f"{prompts}: {exact_percent(fraction)} of the prompts served to find neurons, {part}the others "
            f"({summary['prompts']:,}) only to judge."
        )
    if (responses := setting(config, "generations")) is not None:
        seeds = setting(config, "seeds") or []
        steps.append(
            f"The model answered each prompt of the first part {_times(config, 'generations')} per seed "
            f"({counted(len(seeds), 'seed')}); {responses['scorer']} scored the answers, and the reference "
            "sets were picked by score."
        )
    methods = dict.fromkeys(row["method"] for row in summary["variants"] if row["method"] is not None)
    steps += [
        f"Reference set {name}: {_reference(one, summary, config)}."
        for name, one in (config.get("references") or {}).items()
    ]
    steps.append(
        "Neurons (intermediate channels of the MLPs) were ranked over all layers together by their score for general "
        f"text minus their score for {adjective(summary)} answers, lowest first. The scores: "
        + "; ".join(
            f"{name} = {METHODS[name].label if name in METHODS else 'see the documentation'}" for name in methods
        )
        + "."
    )
    steps.append(
        f"Each variant answered each of the {summary['prompts']:,} evaluation prompts "
        f"{_times(config, 'evaluation')} and was compared with the unpruned model prompt by prompt."
    )
    steps.append(
        f"Perplexity was measured on {summary['perplexity']['text']} by the protocol "
        f"{summary['perplexity']['protocol']} ({summary['perplexity']['tokens']:,} tokens; unpruned "
        f"{number(base['perplexity'])}). Perplexities of other protocols or texts cannot be compared with it."
    )
    limits = summary["limits"]
    steps.append(
        f"To win, a variant must not be a control, must not be broken, must lower the {adjective(summary)} share with "
        "its whole interval below zero, and may raise perplexity by at most "
        f"{exact_percent(limits['max_perplexity_increase'])}. Broken means: perplexity up by more than "
        f"{exact_percent(limits['broken_perplexity_increase'])}, perplexity of its generations changed by more than a "
        f"scale of {limits['broken_fluency_ratio']:g} either way, distinct-2 below "
        f"{limits['broken_distinct_ratio']:g} of the unpruned model's, {100 * limits['broken_repetitive_rise']:g} "
        f"points more repetitive generations, or {100 * limits['broken_empty_rise']:g} points more empty ones."
    )
    return steps
