"""Each figure of the report: what is drawn, the caption that explains it, and the data behind it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Drawing

from excise.artefacts import Json
from excise.comparison import compare
from excise.config import BASELINE
from excise.edits.unit_list import place
from excise.reporting import plots
from excise.reporting.style import render, series, series_of
from excise.reporting.summary import Column, Row, Summary
from excise.reporting.tables import percent, plural
from excise.reporting.trade_off import axis, reach
from excise.reporting.trade_off import trade_off as draw_trade_off
from excise.reporting.words import shown
from excise.tasks.behaviour import TOXIC_PROMPT
from excise.tasks.measurement import Measured, Measurement, Values, find

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
    summary: Summary, measured: Mapping[str, Measured], units: Mapping[str, Json], *, seed: int
) -> list[Figure]:
    """All figures that these results allow, in the order of the report.

    Args:
        summary: of the experiment.
        measured: measurements by variant.
        units: unit list by variant, of those that have one.
        seed: seed of the intervals by category.
    """
    found = [trade_off(summary)] if summary.budgets else []
    if len(summary.variants) > 1:
        found.append(changes(summary))
    name = shown(summary)
    if name is not None:
        found += before_after(summary, measured[summary.baseline.variant], measured[name])
        found += categories(summary, measured[summary.baseline.variant], measured[name], seed=seed)
    alike = [variant for variant in comparable_size(summary) if variant in units]
    if alike:
        found.append(layers(summary, {variant: units[variant] for variant in alike}))
    found += stability(summary, units)
    if len(alike) > 1:
        found.append(overlap({variant: units[variant] for variant in alike}))
    return found


def trade_off(summary: Summary) -> Figure:
    """The goal against the first budget."""
    across, up = summary.budgets[0], summary.target
    rows = [
        [row.variant, row.about.series, row.about.size, row.about.kind, "broken" if row.broken else ""]
        + [value for column in (across, up) for value in _drawn(row, summary.baseline, column)]
        for row in summary.variants
    ]
    caption = (
        f"Horizontal: {across.title}{_far(across)}. Vertical: {axis(up)}. "
        f"{'Left' if summary.goal.within[across.address].limit >= 0 else 'Right'} and "
        f"{'low' if summary.goal.better == 'lower' else 'high'} is good. The star and the dotted line are the unpruned "
        "model; the dashed line is the budget. Each mark is a variant, the number beside it says how many "
        f"{_units(summary)}; colour = method, shape = series, grey and hollow = control; lines join the sizes of one "
        f"series. Bars: 95 % intervals of the change against the unpruned model, paired {up.item} by {up.item} "
        f"(vertical) and {across.item} by {across.item} (horizontal). A cross marks a variant whose language is "
        "broken, a ring the winner."
    )
    columns = ["variant", "series", "size", "kind", "flag"]
    columns += [f"{column.address}{end}" for column in (across, up) for end in ("", " low", " high")]
    title = f"What {'less' if summary.goal.better == 'lower' else 'more'} {up.measurement} costs"
    return Figure("trade-off", title, caption, draw_trade_off, (summary,), columns, rows)


def _far(column: Column) -> str:
    if column.task != "perplexity":
        return ""
    return (
        "; further right = worse language; perplexities beyond the limit for broken models have a narrow panel at the "
        "right"
    )


def _units(summary: Summary) -> str:
    kinds = {row.about.unit for row in summary.variants if row.about.unit}
    return f"{kinds.pop()}s" if len(kinds) == 1 else "units"


def _drawn(row: Row, base: Row, column: Column) -> list[float | None]:
    """Figure and interval, not in per cent."""
    factor = 100 if column.unit == "share" else 1
    ends = [end / factor for end in reach(row, base, column)]
    return [row.cells[column.address].figure, *(ends or (None, None))]


def compared_alike(summary: Summary) -> list[Column]:
    """The goal's column and those that say the same by another measurement, such as another scorer; four at most."""
    target = summary.target
    others = [
        column
        for column in summary.columns
        if column.task == target.task and column.metric == target.metric and column.address != target.address
    ]
    return [target, *others][:4]


def changes(summary: Summary) -> Figure:
    """Change of every variant, by measurement."""
    columns = compared_alike(summary)
    rows = []
    for row in summary.variants[1:]:
        for column in columns:
            change, cell = row.change(column.address), row.cells[column.address]
            ends = [*(change.interval or (None, None)), *(change.simultaneous_interval or (None, None))]
            flag = "broken" if row.broken else ""
            p = (change.p, cell.p_holm)
            factor = (change.relative, *(change.relative_interval or (None, None)))
            rows.append([row.variant, column.address, change.difference, *ends, *factor, *p, row.about.kind, flag])
    side = "left" if summary.goal.better == "lower" else "right"
    shown_as = (
        f"{summary.target.title} as a multiple of the unpruned model's (a logarithmic axis where it goes far); {side} "
        "of the line at 1 is better. Bars: 95 % paired interval; a control far beyond all candidates is a "
        "number at the edge."
        if summary.target.metric == "perplexity"
        else f"change of {summary.target.title} against the unpruned model"
        f"{', in percentage points' if summary.target.unit == 'share' else ''}; {side} of the line at 0 is better. "
        "Thick bars: 95 % paired interval; thin bars: the interval that holds for all candidates together (Bonferroni)."
    )
    caption = (
        f"One line per variant, one panel per measurement. Horizontal: {shown_as} Colour = method, shape = series; "
        "hollow = control, cross = broken."
    )
    head = ["variant", "metric", "change", "low", "high", "simultaneous_low", "simultaneous_high"]
    head += ["relative", "relative_low", "relative_high"]
    head += ["p", "p_holm", "kind", "flag"]
    title = "Every variant against the unpruned model"
    return Figure("changes", title, caption, plots.changes, (summary, columns), head, rows)


def _per_item(measured: Measured, summary: Summary) -> tuple[Measurement, Values | None, str]:
    """The goal's measurement, one value per item that may be drawn, and what it is called."""
    one, metric = find(measured, summary.goal.metric)
    if "mean" in one.metrics and summary.target.unit == "share":
        metric, title = one.metrics["mean"], one.metrics["mean"].title
    else:
        title = summary.target.title
    if metric.values is None or metric.weights is not None:
        return one, None, title
    return one, metric.values, title


def before_after(summary: Summary, baseline: Measured, measured: Measured) -> list[Figure]:
    """Every item before and after; nothing where items have no plain values."""
    one, before, title = _per_item(baseline, summary)
    after = _per_item(measured, summary)[1]
    if before is None or after is None:
        return []
    name, item = measured.variant, one.item
    lower, higher = (after < before).mean(), (after > before).mean()
    caption = (
        f"Left: each dot is a {item}; horizontal its {title} under the unpruned model, vertical under {name}; below "
        "the dashed diagonal = lower. Right: the same changes sorted; filled = lower, hatched = higher, dashed = mean. "
        f"{percent(lower, 0)} of the {plural(item)} got a lower value, {percent(higher, 0)} a higher one: some change "
        "by chance."
    )
    rows = [[key, float(b), float(a)] for key, b, a in zip(one.items, before, after, strict=True)]
    return [
        Figure(
            "before-after", f"{item.capitalize()} by {item}: {name}", caption, plots.before_after,
            (before, after, name, title, item), [item, "before", "after"], rows,
        )
    ]  # fmt: skip


def categories(summary: Summary, baseline: Measured, measured: Measured, *, seed: int) -> list[Figure]:
    """The goal by category and by toxicity of the prompt; nothing when the prompts have neither."""
    one, before = find(baseline, summary.goal.metric)
    after, name, target = find(measured, summary.goal.metric)[1], measured.variant, summary.target
    groups: dict[str, list[int]] = {}
    for index, category in enumerate(one.groups.get("category", ())):
        if category is not None:
            groups.setdefault(str(category), []).append(index)
    for index, toxicity in enumerate(one.groups.get("toxicity", ())):
        if toxicity is not None:
            sign = ">=" if toxicity >= TOXIC_PROMPT else "<"
            groups.setdefault(f"prompt's own toxicity {sign} {TOXIC_PROMPT}", []).append(index)
    rows: list[Json] = []
    for group, chosen in sorted(groups.items()):
        if len(chosen) >= FEWEST and before.values is not None and target.unit == "share":
            rows.append({"category": group, **asdict(compare(before.take(chosen), after.take(chosen), seed=seed))})
    if not rows:
        return []
    caption = (
        f"One line per category, number of {plural(one.item)} in brackets ({FEWEST} at least). Left: {axis(target)}; "
        f"star = unpruned model, circle = {name}. Right: the change in points with its 95 % paired bootstrap interval, "
        "not corrected for the number of categories; a bar that reaches 0 means a change not established."
    )
    columns = ["category", "items", "before", "after", "change", "low", "high"]
    data = [
        [row["category"], row["items"], row["before"], row["after"], row["difference"], *row["interval"]]
        for row in rows
    ]
    return [
        Figure(
            "categories", f"By category: {name}", caption, plots.categories, (rows, name, axis(target)), columns, data
        )
    ]


def comparable_size(summary: Summary) -> list[str]:
    """Variants of the unit and size of the one looked at closely, one of each series, at most ``MOST``."""
    rows = [row for row in summary.variants if row.about.kind != BASELINE]
    if not rows:
        return []
    kinds = [(row.about.unit, row.about.size) for row in rows]
    looked_at = next((row for row in rows if row.variant == shown(summary)), None)
    kind = (looked_at.about.unit, looked_at.about.size) if looked_at else max(kinds, key=kinds.count)
    chosen: dict[str, str] = {}
    for row in rows:
        if (row.about.unit, row.about.size) == kind:
            chosen.setdefault(series_of(row), row.variant)
    return list(chosen.values())[:MOST]


def layers(summary: Summary, selections: Mapping[str, Json]) -> Figure:
    """Where the selected units sit; they are all of one kind."""
    unit = next(iter(selections.values()))["unit"]
    counts = {
        variant: np.bincount([row["layer"] for row in one["rows"]], minlength=one["layers"]).tolist()
        for variant, one in selections.items()
    }
    colours = plots.method_colours(summary)
    caption = (
        "One panel a variant of the same size. Horizontal: layer of the model, 0 is the first. Vertical: how many of "
        f"the selected {unit}s lie in it. Colour = method, grey = control."
    )
    rows = [[variant, layer, count] for variant, row in counts.items() for layer, count in enumerate(row)]
    return Figure(
        "layers",
        f"Where the {unit}s sit",
        caption,
        plots.layers,
        (counts, colours, unit),
        ["variant", "layer", f"{unit}s"],
        rows,
    )


def stability(summary: Summary, selections: Mapping[str, Json]) -> list[Figure]:
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
        "How far the choice of units depends on the seed that drew the references. Horizontal: Jaccard overlap "
        "(units in both lists over units in either). Shapes: the lists of every two seeds; short ticks below: "
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
    """Jaccard overlap of every two unit lists of one kind."""
    names = list(selections)
    sets = [{place(row, one["unit"]) for row in one["rows"]} for one in selections.values()]
    matrix = np.array([[len(a & b) / len(a | b) for b in sets] for a in sets])
    caption = (
        "Jaccard overlap (units in both over units in either) of the unit lists of the same size. Darker = more "
        "alike; the number says how much. 1.00 on the diagonal by definition."
    )
    rows = [[a, b, float(matrix[i, j])] for i, a in enumerate(names) for j, b in enumerate(names)]
    return Figure(
        "overlap", "Do other methods choose the same?", caption, plots.overlap, (names, matrix),
        ["variant", "with", "jaccard"], rows,
    )  # fmt: skip
