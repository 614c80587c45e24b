"""One table of all variants: what each costs, what it changes, which are broken, and which one wins."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from excise.artefacts import Json
from excise.attribution.registry import CONTROLS
from excise.comparison import Change, Interval, compare, holm
from excise.config import BASELINE
from excise.errors import ExciseError, unknown
from excise.reporting import capability
from excise.reporting.tables import exact_percent, percent
from excise.tasks.measurement import Metric, Values

LRP = ("lrp", "lrp-cp")
"""Methods that count as LRP in the verdict."""

PER_ROW = "per row"
"""Scale of a unit list in which each unit has its own."""

FIGURES = ("mean", "expected_maximum", "probability", "share")
"""What a table says of a scorer (``evaluation.behaviour``)."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a variant is broken, and what it may cost to win. Ratios and rises are against the baseline.

    Attributes:
        max_perplexity_increase: budget: a variant whose perplexity rises by more than this share cannot win.
        broken_perplexity_increase: rise of perplexity, as a share, above which the model is broken.
        broken_fluency_ratio: the perplexity of its generations under the unpruned model may change by this scale up
            or down; above it they are not language, below it they are repetition.
        broken_distinct_ratio: least ratio of distinct-2.
        broken_repetitive_rise: rise of the share of repetitive generations above which it is broken (0.1 = 10 points).
        broken_empty_rise: the same for empty generations.
    """

    max_perplexity_increase: float = 0.05
    broken_perplexity_increase: float = 0.5
    broken_fluency_ratio: float = 2.0
    broken_distinct_ratio: float = 0.7
    broken_repetitive_rise: float = 0.1
    broken_empty_rise: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (np.isfinite(value) and value >= 0):
                raise ExciseError(f"limit {field.name} = {value}: must be a number that is not negative")
        if self.broken_fluency_ratio < 1 or self.broken_distinct_ratio > 1:
            raise ExciseError("broken_fluency_ratio must be at least 1 and broken_distinct_ratio at most 1")


def check_comparable(evaluations: Sequence[Json]) -> None:
    """Refuse evaluations that differ in anything but the variant; the first is the baseline.

    Raises:
        ExciseError: other prompts, scorers, thresholds, perplexity protocol or model; names the variant and the matter.
    """
    first = evaluations[0]
    names = [evaluation["variant"] for evaluation in evaluations]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ExciseError(f"summary: variant {', '.join(sorted(twice))} is given more than once")
    for other in evaluations[1:]:
        where = f"variant {other['variant']!r} against {first['variant']!r}"
        if [row["id"] for row in other["prompts"]] != [row["id"] for row in first["prompts"]]:
            raise ExciseError(
                f"{where}: not the same prompts in the same order ({len(other['prompts'])} against "
                f"{len(first['prompts'])}); paired comparison needs both judged on one prompt file"
            )
        for label, get in _MUST_AGREE.items():
            if get(other) != get(first):
                raise ExciseError(f"{where}: {label} differs: {get(other)} against {get(first)}")


_MUST_AGREE: Mapping[str, Any] = {
    "perplexity protocol": lambda e: e["perplexity"]["protocol"],
    "perplexity text": lambda e: e["perplexity"]["text"],
    "number of perplexity tokens": lambda e: e["perplexity"]["tokens"],
    "settings of the perplexity": lambda e: e["perplexity"].get("settings"),  # the text's SHA-256 among them
    "scorers": lambda e: e["meta"]["scorers"],
    "behaviour": lambda e: (e["behaviour"], {name: (s["shown_by"], s["draws"]) for name, s in e["scores"].items()}),
    "model": lambda e: e["meta"]["model"],
    "tasks of the capability": capability.asked,
    "settings of the generation": lambda e: e["meta"]["generation"],
}


def per_prompt(evaluation: Json, scorer: str, metric: str = "share") -> Values:
    """One value per prompt: ``share``, ``mean`` or ``max`` over the draws.

    Raises:
        ExciseError: the prompts' values do not average to the evaluation's own figure.
    """
    values: Values = np.array([row[scorer][metric] for row in evaluation["prompts"]], dtype=np.float64)
    overall = evaluation["scores"][scorer].get("expected_maximum" if metric == "max" else metric)
    if abs(values.mean() - overall) > 1e-9:
        raise ExciseError(
            f"variant {evaluation['variant']!r}: {scorer} {metric} is {overall}, but its prompts average "
            f"{values.mean()}; the evaluation file is inconsistent: make it again"
        )
    return values


def broken(evaluation: Json, baseline: Json, limits: Limits) -> list[str]:
    """Why a variant's language counts as broken, in words; empty when it does not."""
    now, then = evaluation["degeneration"], baseline["degeneration"]
    reasons = []
    rise = evaluation["perplexity"]["perplexity"] / baseline["perplexity"]["perplexity"] - 1
    if rise > limits.broken_perplexity_increase:
        most_rise = exact_percent(limits.broken_perplexity_increase, signed=True)
        reasons.append(f"perplexity {percent(rise, signed=True)} (limit {most_rise})")
    if any(now[key] is None and then[key] is not None for key in then):
        return [*reasons, "no generation with tokens to judge"]
    if then["fluency_perplexity"] is not None:
        ratio, most = now["fluency_perplexity"] / then["fluency_perplexity"], limits.broken_fluency_ratio
        if not 1 / most <= ratio <= most:
            reasons.append(f"perplexity of its generations x{ratio:.2f} (limits x{1 / most:.2f} and x{most:.2f})")
    if then["distinct_2"] is not None and now["distinct_2"] < limits.broken_distinct_ratio * then["distinct_2"]:
        least = f"limit x{limits.broken_distinct_ratio:.2f}"
        reasons.append(f"distinct-2 {now['distinct_2']:.2f} against {then['distinct_2']:.2f} ({least})")
    for key, word, limit in (
        ("repetitive_share", "repetitive", limits.broken_repetitive_rise),
        ("empty_share", "empty", limits.broken_empty_rise),
    ):
        if then[key] is not None and now[key] - then[key] > limit:
            rose = f"from {percent(then[key])} to {percent(now[key])}"
            reasons.append(f"{word} generations {rose} (limit +{100 * limit:g} points)")
    return reasons


def _perplexity_interval(evaluation: Json, baseline: Json) -> Interval | None:
    before, after = (
        Metric.of(e["perplexity"]["by_window"]["nll"], e["perplexity"]["by_window"]["tokens"], aggregate="perplexity")
        for e in (baseline, evaluation)
    )
    return compare(before, after, serial=True, seed=0).relative_interval


def _row(evaluation: Json, baseline: Json, selection: Json | None, limits: Limits) -> Json:
    """Everything about one variant but the paired changes."""
    neurons = len(selection["rows"]) if selection else 0
    perplexity = evaluation["perplexity"]["perplexity"]
    reasons = broken(evaluation, baseline, limits)
    change = perplexity / baseline["perplexity"]["perplexity"] - 1
    method = selection["method"] if selection else None
    return {
        "variant": evaluation["variant"],
        "kind": "baseline" if selection is None else "control" if method in CONTROLS else "candidate",
        "method": method,
        "selection": selection["name"] if selection else None,
        "neurons": neurons,
        "scale": _scale(selection) if selection else None,
        "ablation": selection["ablation"] if selection else None,
        "share_of_neurons": neurons / (selection["layers"] * selection["units_per_layer"]) if selection else 0.0,
        "perplexity": perplexity,
        "perplexity_change": change,
        "perplexity_interval": _perplexity_interval(evaluation, baseline) if selection else None,
        "within_budget": change <= limits.max_perplexity_increase,
        "flag": "broken" if reasons else "",
        "broken_because": reasons,
        "scores": {scorer: {key: figures[key] for key in FIGURES} for scorer, figures in evaluation["scores"].items()},
        "degeneration": evaluation["degeneration"],
        "capability": capability.compared(evaluation, baseline if selection else None),
        "change": {},
    }


def _scale(units: Json) -> float | str:
    """The scale of a unit list; ``per row`` where each unit has its own."""
    return PER_ROW if units["scale"] is None else float(units["scale"])


def _against_controls(winner: Json, rows: list[Json], shares: Mapping[str, Values], **options: Any) -> Json | None:
    """The winner against the average of the random draws of as many neurons, to which the same was done."""
    same = ("neurons", "scale", "ablation")
    draws = [r["variant"] for r in rows if r["method"] == "random" and all(r[key] == winner[key] for key in same)]
    if not draws:
        return None
    pooled = np.mean([shares[name] for name in draws], axis=0)
    return {"controls": draws, **asdict(compare(Metric.of(pooled), Metric.of(shares[winner["variant"]]), **options))}


def summarise(
    baseline: Json,
    evaluations: Sequence[Json],
    selections: Sequence[Json],
    *,
    primary: str | None = None,
    limits: Limits,
    seed: int = 0,
    resamples: int = 10_000,
) -> Json:
    """The body of ``summary.json``.

    Args:
        baseline: evaluation of the unpruned model.
        evaluations: one per variant.
        selections: the unit list of each variant, in the same order.
        primary: the scorer that decides, by default the first one; the others are reported beside it.
        limits: budget and limits of degeneration.
        seed: seed of the resampling.
        resamples: bootstrap resamples and permutations.

    Raises:
        ExciseError: the evaluations cannot be compared, or the primary scorer is not among theirs.
    """
    primary = next(iter(baseline["scores"])) if primary is None else primary
    if primary not in baseline["scores"]:
        raise unknown("scorer", primary, baseline["scores"], where="summary: --scorer")
    check_comparable([baseline, *evaluations])
    rows = [_row(baseline, baseline, None, limits)]
    rows += [_row(e, baseline, s, limits) for e, s in zip(evaluations, selections, strict=True)]
    candidates = [row for row in rows if row["kind"] == "candidate"]  # controls never win: no claim to correct
    count = len(candidates)
    for scorer in baseline["scores"]:
        before = Metric.of(per_prompt(baseline, scorer))
        changes: list[Change] = [
            compare(
                before,
                Metric.of(per_prompt(e, scorer)),
                seed=seed,
                resamples=resamples,
                comparisons=max(1, count),
            )
            for e in evaluations
        ]
        for row, change in zip(rows[1:], changes, strict=True):
            row["change"][scorer] = {**asdict(change), "reduces": change.improves("lower"), "p_holm": None}
        adjusted = holm([row["change"][scorer]["p"] for row in candidates])
        for row, p_holm in zip(candidates, adjusted, strict=True):
            row["change"][scorer]["p_holm"] = p_holm
    shares = {e["variant"]: per_prompt(e, primary) for e in (baseline, *evaluations)}
    return {
        "behaviour": baseline["behaviour"],
        "primary": primary,
        "scorers": {
            # shown_by reads "score >= 0.5"
            name: {
                "threshold": figures["threshold"],
                "strictness": figures["shown_by"].split()[1],
                "draws": figures["draws"],
            }
            for name, figures in baseline["scores"].items()
        },
        "perplexity": {key: baseline["perplexity"][key] for key in ("protocol", "text", "tokens", "windows")},
        "capability": baseline.get("capability", {}).get("asked"),
        "prompts": len(baseline["prompts"]),
        "comparisons": count,
        "limits": asdict(limits),
        "fluency_checked": baseline["degeneration"]["fluency_perplexity"] is not None,
        "variants": rows,
        "verdict": _verdict(rows, shares, primary, seed=seed, resamples=resamples),
    }


def _verdict(rows: list[Json], shares: Mapping[str, Values], primary: str, *, seed: int, resamples: int) -> Json:
    """Who wins, whether it is LRP, and what the controls did."""

    def drop(row: Json) -> tuple[float, float]:
        """The larger reduction is better; of equal ones, which a grid of few draws gives, the cheaper."""
        return row["change"][primary]["difference"], row["perplexity_change"]

    sound = [row for row in rows if row["kind"] == "candidate" and not row["flag"]]
    eligible = sorted((row for row in sound if row["within_budget"] and row["change"][primary]["reduces"]), key=drop)
    winner = eligible[0] if eligible else None
    lrp = next((row for row in eligible if row["method"] in LRP), None)
    others = [row for row in eligible if row["method"] not in LRP]
    result: Json = {
        "winner": winner["variant"] if winner else None,
        "eligible": [row["variant"] for row in eligible],
        "best_lrp": lrp["variant"] if lrp else None,
        "best_other": others[0]["variant"] if others else None,
        "lrp_wins": winner is not None and winner is lrp,
        "closest": min(sound, key=drop)["variant"] if sound else None,
        "controls_that_reduce": [
            row["variant"] for row in rows if row["kind"] == "control" and row["change"][primary]["reduces"]
        ],
        "against_controls": None,
        "lrp_against_best_other": None,
    }
    if winner is not None:
        result["against_controls"] = _against_controls(winner, rows, shares, seed=seed, resamples=resamples)
    if lrp is not None and others:
        best, other = (Metric.of(shares[row["variant"]]) for row in (lrp, others[0]))
        change = compare(other, best, seed=seed, resamples=resamples)
        result["lrp_against_best_other"] = asdict(change)
    return result


def by_name(summary: Json) -> dict[str, Json]:
    """The rows of a summary by variant."""
    return {row["variant"]: row for row in summary["variants"]}


def baseline_row(summary: Json) -> Json:
    """The row of the unpruned model."""
    return next(row for row in summary["variants"] if row["kind"] == BASELINE)


def noun(summary: Json) -> str:
    """What the behaviour is called: ``toxicity``, ``repetition``."""
    return str(summary["behaviour"]["noun"])


def adjective(summary: Json) -> str:
    """What continuations that show the behaviour are called: ``toxic``, ``repetitive``."""
    return str(summary["behaviour"]["adjective"])


def table(summary: Json) -> tuple[list[str], list[list[Any]]]:
    """The summary as columns and rows for CSV: one row a variant, one scorer a column, units in the names."""
    perplexity = f"perplexity[{summary['perplexity']['text']}, {summary['perplexity']['protocol']}]"
    scorers = summary["scorers"]
    primary = [summary["primary"], *(name for name in scorers if name != summary["primary"])]
    degeneration = list(summary["variants"][0]["degeneration"])
    columns = ["variant", "kind", "method", "selection", "neurons", "share_of_neurons", "scale", "ablation"]
    columns += [perplexity, *(f"{perplexity} relative change{end}" for end in ("", " low", " high"))]
    columns += ["flag", "broken_because", "within_budget", "winner"]
    for name in primary:
        rule = f"{name} {scorers[name]['strictness']} {scorers[name]['threshold']}"
        columns += [f"mean[{name}]", f"expected_maximum[{name}]"]
        columns += [f"{noun(summary)}_probability[{rule}]", f"{adjective(summary)}_share[{rule}]"]
        columns += [f"{adjective(summary)}_share[{rule}] {what}" for what in _CHANGE_COLUMNS]
    columns += degeneration + capability.columns(summary)
    rows = []
    for row in summary["variants"]:
        values = [row[key] for key in ("variant", "kind", "method", "selection", "neurons", "share_of_neurons")]
        values += [row["scale"], row["ablation"], row["perplexity"], row["perplexity_change"]]
        values += [*(row["perplexity_interval"] or (None, None)), row["flag"]]
        values += ["; ".join(row["broken_because"]), row["within_budget"]]
        values += [row["variant"] == summary["verdict"]["winner"]]
        for name in primary:
            figures, change = row["scores"][name], row["change"].get(name)
            values += [figures[key] for key in FIGURES]
            values += _change_values(change) if change else [None] * len(_CHANGE_COLUMNS)
        values += [row["degeneration"][key] for key in degeneration]
        rows.append([*values, *capability.values(row)])
    return columns, rows


_CHANGE_COLUMNS = (
    "change",
    "change low",
    "change high",
    "relative change",
    "relative change low",
    "relative change high",
    "p",
    "p Holm",
)


def _change_values(change: Json) -> list[float | None]:
    relative = change["relative_interval"] or (None, None)
    return [change["difference"], *change["interval"], change["relative"], *relative, change["p"], change["p_holm"]]
