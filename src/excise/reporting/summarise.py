"""From measurements to the summary: every variant against the baseline, metric by metric, and the verdict."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from excise.artefacts import Json
from excise.comparison import Change, compare, holm
from excise.errors import ExciseError
from excise.findings import spread
from excise.goal import Budget, Goal
from excise.reporting.summary import Cell, Column, Findings, Limits, Row, Summary
from excise.reporting.verdict import broken, judge
from excise.tasks.measurement import Measured, check_comparable, find, merged

TIMED = ("cost", "encoder-cost")
"""Tasks that measure time on this machine: their smallest differences are chance."""


def summarise(
    files: Iterable[Measured],
    *,
    goal: Goal | None = None,
    max_perplexity_increase: float = 0.05,
    limits: Limits | None = None,
    seed: int = 0,
    resamples: int = 10_000,
    meta: Json | None = None,
) -> Summary:
    """Compare all variants with the baseline.

    Args:
        files: measurements of all variants, in any order; one of them of the baseline.
        goal: what decides; None: ``default_goal``.
        max_perplexity_increase: budget of the default goal.
        limits: when language is broken.
        seed: seed of the resampling.
        resamples: bootstrap resamples and permutations.
        meta: provenance.

    Raises:
        ExciseError: the variants cannot be compared, or the goal names a metric that was not measured.
    """
    limits = limits or Limits()
    baseline, others = _parted(merged(files))
    for other in others:
        _check_model(baseline, other)
        check_comparable(baseline, other)
    goal = default_goal(baseline, max_perplexity_increase) if goal is None else goal
    for address in (goal.metric, *goal.within):
        find(baseline, address, where="goal")
    columns = _columns(baseline, goal)
    count = sum(other.about.kind == "candidate" for other in others)  # controls never win: no claim to correct
    rows = [_row(measured, baseline, columns, seed, resamples, max(1, count)) for measured in (baseline, *others)]
    rows = _corrected(rows, columns)
    figures = [{address: cell.figure for address, cell in row.cells.items()} for row in rows]
    perplexities = [address for address in goal.within if _task(columns, address) == "perplexity"]
    rows = [
        replace(row, broken=broken(now, figures[0], limits, perplexities), over=_over(row, goal))
        for row, now in zip(rows, figures, strict=True)
    ]
    decides = find(baseline, goal.metric)[0]
    values = {one.variant: find(one, goal.metric)[1] for one in (baseline, *others)}
    timed, serial = decides.task in TIMED, decides.serial
    verdict = judge(rows[1:], goal, values, timed=timed, serial=serial, seed=seed, resamples=resamples)
    return Summary(
        goal=goal,
        limits=limits,
        columns=tuple(columns),
        variants=tuple(rows),
        comparisons=count,
        verdict=verdict,
        findings=tuple(_findings(baseline, others, columns)),
        meta={"model": baseline.meta.get("model"), **(meta or {})},
    )


def default_goal(baseline: Measured, max_perplexity_increase: float) -> Goal:
    """The goal where none is configured.

    Lower (or raise) the first metric of the first measurement that has a direction, with the first text's perplexity up
    by at most ``max_perplexity_increase``, where perplexity is not the goal itself.

    Raises:
        ExciseError: no metric has a direction.
    """
    for one in baseline.measurements:
        for name, metric in one.metrics.items():
            if metric.direction is not None and metric.compared:
                texts = [other for other in baseline.measurements if other.task == "perplexity" != one.task]
                return Goal(
                    metric=f"{one.name}.{name}",
                    direction="lower" if metric.direction == "lower" else "raise",
                    within={f"{texts[0].name}.perplexity": Budget(limit=max_perplexity_increase)} if texts else {},
                )
    raise ExciseError("goal: none of the metrics has a direction; say which one to lower or to raise")


def _parted(measured: Sequence[Measured]) -> tuple[Measured, list[Measured]]:
    """The baseline and the others.

    Raises:
        ExciseError: there is not exactly one baseline.
    """
    baselines = [one.variant for one in measured if one.about.kind == "baseline"]
    if len(baselines) != 1:
        found = ", ".join(baselines) if baselines else "none"
        raise ExciseError(f"summary: exactly one variant must be the baseline, the unpruned model; found {found}")
    return (
        next(one for one in measured if one.about.kind == "baseline"),
        [one for one in measured if one.about.kind != "baseline"],
    )


def _check_model(baseline: Measured, other: Measured) -> None:
    """A variant is the baseline's model, changed in memory, or a folder that was made from it, in one step or more."""
    first, second = baseline.meta.get("model"), other.meta.get("model")
    if first == second:
        return
    base = (second or {}).get("base")
    while base is not None and base["fingerprint"] != (first or {}).get("fingerprint"):
        base = base.get("base")
    if base is None:
        raise ExciseError(
            f"variant {other.variant!r} against {baseline.variant!r}: the model differs: {second} against {first}"
        )


def _columns(baseline: Measured, goal: Goal) -> list[Column]:
    chosen = (goal.metric, *goal.within)
    return [
        Column(
            address=(address := f"{one.name}.{name}"),
            task=one.task,
            measurement=one.name,
            metric=name,
            label=one.label or one.name,
            title=metric.title or f"{one.label or one.name}: {name}",
            unit=metric.unit,
            direction=metric.direction,
            compared=metric.compared or address in chosen,
            item=one.item,
            items=len(one.items),
            settings=one.settings,
        )
        for one in baseline.measurements
        for name, metric in one.metrics.items()
    ]


def _task(columns: Sequence[Column], address: str) -> str:
    return next(column.task for column in columns if column.address == address)


def _row(
    measured: Measured, baseline: Measured, columns: Sequence[Column], seed: int, resamples: int, comparisons: int
) -> Row:
    """The figures of a variant and its changes against the baseline."""
    cells = {}
    for column in columns:
        one, metric = find(measured, column.address)
        change = None
        if column.compared and measured is not baseline:
            before = find(baseline, column.address)[1]
            change = compare(before, metric, serial=one.serial, seed=seed, resamples=resamples, comparisons=comparisons)
        stderr = one.details.get("stderr", {}).get(column.metric)
        cells[column.address] = Cell(figure=metric.figure, change=change, stderr=stderr)
    units = (measured.meta.get("selection") or {}).get("sha256")
    return Row(variant=measured.variant, about=measured.about, cells=cells, units=units)


def _corrected(rows: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """The rows with p values corrected for all candidates (Holm), metric by metric."""
    candidates = [row for row in rows if row.about.kind == "candidate"]
    adjusted: dict[str, dict[str, Cell]] = {row.variant: dict(row.cells) for row in rows}
    for column in columns:
        cells = [(row.variant, row.cells[column.address]) for row in candidates]
        known = [(name, cell, cell.change.p) for name, cell in cells if cell.change and cell.change.p is not None]
        for (name, cell, _), p_holm in zip(known, holm([p for *_, p in known]), strict=True):
            adjusted[name][column.address] = replace(cell, p_holm=p_holm)
    return [replace(row, cells=adjusted[row.variant]) for row in rows]


def _findings(baseline: Measured, others: Sequence[Measured], columns: Sequence[Column]) -> Iterator[Findings]:
    """Groups of variants that differ in nothing but which finding they are."""
    groups: dict[object, list[Measured]] = {}
    for one in others:
        groups.setdefault(replace(one.about, kind="candidate", finding=1, share=None), []).append(one)
    for group in groups.values():
        if len({one.about.finding for one in group}) < max(2, len(group)):
            continue  # found once, or the draws of a random control
        group.sort(key=lambda one: one.about.finding)
        spreads = {}
        for column in columns:
            measurement, before = find(baseline, column.address)
            after = [find(each, column.address)[1] for each in group]
            if column.compared and (found := spread(before, after, serial=measurement.serial)):
                spreads[column.address] = found
        yield Findings(variants=tuple(one.variant for one in group), spreads=spreads)


def _over(row: Row, goal: Goal) -> tuple[str, ...]:
    if row.about.kind == "baseline":
        return ()
    found = goal.within.items()
    return tuple(address for address, budget in found if not budget.allows(reached(row.change(address), budget)))


def reached(change: Change, budget: Budget) -> float | None:
    """What a budget is held against: the change, or the end of its interval on the costly side."""
    if not budget.surely:
        return change.relative if budget.relative else change.difference
    ends = change.relative_interval if budget.relative else change.interval
    return None if ends is None else ends[1] if budget.limit >= 0 else ends[0]
