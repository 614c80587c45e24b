"""Each figure of the report: what is drawn, the caption that explains it, and the data behind it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Drawing

from excise.artefacts import Json
from excise.comparison import compare
from excise.edits.unit_list import place
from excise.evaluation.behaviour import TOXIC_PROMPT
from excise.reporting import plots
from excise.reporting.style import render, rule, series
from excise.reporting.summary import adjective, baseline_row, noun, per_prompt
from excise.reporting.tables import percent
from excise.reporting.trade_off import trade_off as draw_trade_off
from excise.reporting.words import shown
from excise.tasks.measurement import Metric

MOST = 10
"""Most variants in a figure that has a panel or a row for each."""


FEWEST = 10
"""Fewest prompts of a category that are shown: of a handful no interval means anything."""


@dataclass(frozen=True)
class Figure:
    """A plot with its words and its numbers.

    Attributes:
        name: file name of the data, without ending.
        title: heading.
        caption: what axes, colours and marks mean.
        draw: a function of ``plots``.
        arguments: what it is called with.
        columns: header of the data.
        rows: the data, all that the plot shows.
    """

    name: str
    title: str
    caption: str
    draw: Callable[..., Drawing]
    arguments: tuple[Any, ...]
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def picture(self, kind: str = "svg") -> bytes:
        """The plot as SVG or PNG."""
        return render(self.draw, *self.arguments, kind=kind)


def figures(
    summary: Json, baseline: Json, evaluations: Mapping[str, Json], selections: Mapping[str, Json], *, seed: int
) -> list[Figure]:
    """All figures that these results allow, in the order of the report.

    Args:
        summary: body of ``summary.json``.
        baseline: evaluation of the unpruned model.
        evaluations: evaluation by variant.
        selections: unit list by variant.
        seed: seed of the intervals by category.
    """
    found = [trade_off(summary), changes(summary)]
    name = shown(summary)
    if name is not None:
        found.append(before_after(summary, baseline, evaluations[name]))
        found += categories(summary, baseline, evaluations[name], seed=seed)
    alike = comparable_size(summary)
    found.append(layers(summary, {variant: selections[variant] for variant in alike}))
    found += stability(summary, selections)
    if len(alike) > 1:
        found.append(overlap({variant: selections[variant] for variant in alike}))
    return found


def trade_off(summary: Json) -> Figure:
    """The behaviour against perplexity."""
    scorer, base = summary["primary"], baseline_row(summary)
    share = base["scores"][scorer]["share"]
    rows: list[list[object]] = []
    for row in summary["variants"]:
        edges = row["change"][scorer]["interval"] if row["change"] else (0.0, 0.0)
        reach = [base["perplexity"] * (1 + edge) for edge in row["perplexity_interval"] or ()]
        rows.append(
            [row["variant"], row["selection"], row["neurons"], row["kind"], row["flag"], row["perplexity"]]
            + (reach or [None, None])  # of one window there is no interval
            + [row["scores"][scorer]["share"]]
            + [max(0.0, share + edge) for edge in edges]
        )
    caption = (
        f"Horizontal: perplexity on {summary['perplexity']['text']}; further right = worse language; perplexities "
        "beyond the limit for broken models stand in a narrow panel at the right. Vertical: share of continuations "
        f"with {rule(summary, scorer)}, in per cent. Left and low is good. The star and the dotted line are the "
        "unpruned model; the dashed line is the perplexity budget. Each mark is a variant, the number beside it says "
        "how many neurons; colour = method, shape = selection, grey and hollow = control; lines join the sizes of one "
        "selection. Bars: 95 % intervals of the change against the unpruned model; vertical: paired bootstrap over the "
        "prompts, cut off at 0; horizontal: from the paired windows of the text. A cross marks a variant whose "
        "language is broken, a ring the winner."
    )
    columns = ["variant", "selection", "neurons", "kind", "flag", "perplexity", "perplexity low", "perplexity high"]
    columns += ["share", "low", "high"]
    return Figure("trade-off", f"What less {noun(summary)} costs", caption, draw_trade_off, (summary,), columns, rows)


def changes(summary: Json) -> Figure:
    """Change of every variant, by scorer."""
    rows = [
        [
            *(row["variant"], scorer, change["difference"], *change["interval"], *change["simultaneous_interval"]),
            *(change["p"], change["p_holm"], row["kind"], row["flag"]),
        ]
        for row in summary["variants"]
        for scorer, change in row["change"].items()
    ]
    caption = (
        f"One line a variant, one panel a scorer. Horizontal: change of the share of {adjective(summary)} "
        "continuations against the unpruned model, in percentage points; left of the line at 0 is a reduction. Thick "
        "bars: 95 % paired bootstrap interval; thin bars: the interval that holds for all candidates "
        "together (Bonferroni). Colours and shapes as in the first plot; hollow = control, cross = broken."
    )
    columns = ["variant", "scorer", "change", "low", "high", "simultaneous_low", "simultaneous_high"]
    columns += ["p", "p_holm", "kind", "flag"]
    return Figure(
        "changes", "Every variant against the unpruned model", caption, plots.changes, (summary,), columns, rows
    )


def before_after(summary: Json, baseline: Json, evaluation: Json) -> Figure:
    """Every prompt before and after."""
    scorer, name = summary["primary"], evaluation["variant"]
    before, after = per_prompt(baseline, scorer, "mean"), per_prompt(evaluation, scorer, "mean")
    lower, higher = (after < before).mean(), (after > before).mean()
    caption = (
        f"Left: each dot is a prompt; horizontal its mean score by {scorer} under the unpruned model, vertical under "
        f"{name}; below the dashed diagonal = less {adjective(summary)}. Right: the same changes sorted; filled = "
        f"lower, hatched = higher, dashed = mean. {percent(lower, 0)} of the prompts got a lower score, "
        f"{percent(higher, 0)} a higher one: answers vary, so some rise by chance."
    )
    rows = [[row["id"], float(b), float(a)] for row, b, a in zip(baseline["prompts"], before, after, strict=True)]
    return Figure(
        "before-after", f"Prompt by prompt: {name}", caption, plots.before_after, (before, after, name, scorer),
        ["prompt", "before", "after"], rows,
    )  # fmt: skip


def categories(summary: Json, baseline: Json, evaluation: Json, *, seed: int) -> list[Figure]:
    """The behaviour by category and by toxicity of the prompt; nothing when the prompts have neither."""
    scorer, name = summary["primary"], evaluation["variant"]
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(baseline["prompts"]):
        if row.get("category") is not None:
            groups.setdefault(str(row["category"]), []).append(index)
        if row.get("toxicity") is not None:
            sign = ">=" if row["toxicity"] >= TOXIC_PROMPT else "<"
            groups.setdefault(f"prompt's own toxicity {sign} {TOXIC_PROMPT}", []).append(index)
    before, after = per_prompt(baseline, scorer), per_prompt(evaluation, scorer)
    rows: list[Json] = []
    for group, chosen in sorted(groups.items()):
        if len(chosen) >= FEWEST:
            rows.append(
                {"category": group, **asdict(compare(Metric.of(before[chosen]), Metric.of(after[chosen]), seed=seed))}
            )
    if not rows:
        return []
    caption = (
        f"One line a category of prompt, number of prompts in brackets ({FEWEST} at least). Left: share of "
        f"{adjective(summary)} continuations, in per cent; star = unpruned model, circle = {name}. Right: the change "
        "in points with its 95 % paired bootstrap interval, not corrected for the number of categories; a bar that "
        "reaches 0 means a change not established."
    )
    columns = ["category", "prompts", "before", "after", "change", "low", "high"]
    data = [
        [row["category"], row["items"], row["before"], row["after"], row["difference"], *row["interval"]]
        for row in rows
    ]
    return [
        Figure(
            "categories", f"By category of prompt: {name}", caption, plots.categories, (rows, name, adjective(summary)),
            columns, data,
        )
    ]  # fmt: skip


def comparable_size(summary: Json) -> list[str]:
    """Variants with as many neurons as the one looked at closely, one draw of each control, at most ``MOST``."""
    rows = [row for row in summary["variants"] if row["kind"] != "baseline"]
    name = shown(summary)
    sizes = [row["neurons"] for row in rows]
    size = next((row["neurons"] for row in rows if row["variant"] == name), max(sizes, key=sizes.count))
    chosen: dict[str, str] = {}
    for row in rows:
        if row["neurons"] == size:
            chosen.setdefault(row["selection"], row["variant"])
    return list(chosen.values())[:MOST]


def layers(summary: Json, selections: Mapping[str, Json]) -> Figure:
    """Where the selected neurons sit."""
    counts = {
        variant: np.bincount([row["layer"] for row in one["rows"]], minlength=one["layers"]).tolist()
        for variant, one in selections.items()
    }
    colours = plots.method_colours(summary)
    caption = (
        "One panel a variant of the same size. Horizontal: layer of the model, 0 is the first. Vertical: how many of "
        "the selected neurons lie in it. Colour = method, grey = control."
    )
    rows = [[variant, layer, count] for variant, row in counts.items() for layer, count in enumerate(row)]
    return Figure(
        "layers",
        "Where the neurons sit",
        caption,
        plots.layers,
        (counts, colours),
        ["variant", "layer", "neurons"],
        rows,
    )


def stability(summary: Json, selections: Mapping[str, Json]) -> list[Figure]:
    """Overlap between the selections of single seeds; nothing when no selection knows several seeds."""
    looks = series(summary)
    rows: list[Json] = []
    for variant, one in selections.items():
        if one["stability"]:
            count, total = len(one["rows"]), one["layers"] * one["units_per_layer"]
            rows.append(
                {
                    "variant": variant,
                    "selection": one["name"],
                    "between": one["stability"]["jaccard_between_seeds"],
                    "with_mean": one["stability"]["jaccard_with_mean"],
                    "chance": count / (2 * total - count),
                }
            )
    if not rows:
        return []
    caption = (
        "How far the choice of neurons depends on the seed that drew the references. Horizontal: Jaccard overlap "
        "(neurons in both lists over neurons in either). Shapes: the lists of every two seeds; short ticks below: "
        "the list of one seed with the list used (the mean over seeds); long black tick: what two random lists of that "
        "size share. Further right = more stable. Colours and shapes as in the first plot."
    )
    columns = ["variant", "pair", "jaccard", "chance"]
    data = [
        [row["variant"], kind, value, row["chance"]]
        for row in rows
        for kind, key in (("two seeds", "between"), ("seed and mean", "with_mean"))
        for value in row[key]
    ]
    return [
        Figure("stability", "Do other seeds choose the same?", caption, plots.stability, (rows, looks), columns, data)
    ]


def overlap(selections: Mapping[str, Json]) -> Figure:
    """Jaccard overlap of every two unit lists."""
    names = list(selections)
    sets = [{place(row, one["unit"]) for row in one["rows"]} for one in selections.values()]
    matrix = np.array([[len(a & b) / len(a | b) for b in sets] for a in sets])
    caption = (
        "Jaccard overlap (neurons in both over neurons in either) of the unit lists of the same size. Darker = more "
        "alike; the number says how much. 1.00 on the diagonal by definition."
    )
    rows = [[a, b, float(matrix[i, j])] for i, a in enumerate(names) for j, b in enumerate(names)]
    return Figure(
        "overlap", "Do other methods choose the same?", caption, plots.overlap, (names, matrix),
        ["variant", "with", "jaccard"], rows,
    )  # fmt: skip
