"""The summary of an experiment: one row per variant, one cell per metric, and who wins; typed, and read back typed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from excise.artefacts import Json, read_json, write_json
from excise.comparison import Change
from excise.errors import ExciseError
from excise.findings import Spread
from excise.goal import Goal
from excise.tasks.measurement import About


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When the language of a variant is broken. Ratios and rises are against the baseline.

    Attributes:
        broken_perplexity_increase: rise, as a share, of a perplexity that has a budget.
        broken_fluency_ratio: the perplexity of its generations under the unpruned model may change by this factor up
            or down; above it they are not language, below it they are repetition.
        broken_distinct_ratio: least ratio of distinct-2.
        broken_repetitive_rise: rise of the share of repetitive generations above which it is broken (0.1 = 10 points).
        broken_empty_rise: the same for empty generations.
    """

    broken_perplexity_increase: float = 0.5
    broken_fluency_ratio: float = 2.0
    broken_distinct_ratio: float = 0.7
    broken_repetitive_rise: float = 0.1
    broken_empty_rise: float = 0.1

    def __post_init__(self) -> None:
        """Refuse limits that mean nothing."""
        for one in fields(self):
            value = getattr(self, one.name)
            if not (isfinite(value) and value >= 0):
                raise ExciseError(f"limit {one.name} = {value}: must be a number that is not negative")
        if self.broken_fluency_ratio < 1 or self.broken_distinct_ratio > 1:
            raise ExciseError("broken_fluency_ratio must be at least 1 and broken_distinct_ratio at most 1")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A metric of the summary.

    Attributes:
        address: NAME.METRIC.
        task: which task measured it.
        measurement: NAME: of what.
        metric: METRIC.
        label: what people call the measurement.
        title: head of the column in tables.
        unit: ``share`` or ``number``.
        direction: which way is better: ``lower``, ``higher`` or None.
        compared: whether cells have a change with an interval.
        item: what an item is called.
        items: how many there are.
        settings: what was equal for all variants.
    """

    address: str
    task: str
    measurement: str
    metric: str
    label: str
    title: str
    unit: str
    direction: str | None
    compared: bool
    item: str
    items: int
    settings: Json


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure of a variant.

    Attributes:
        figure: the variant's.
        change: against the baseline; None for the baseline itself and for metrics that are only shown.
        p_holm: p value corrected for all candidates; None for controls, which make no claim.
        stderr: standard error of the figure, where its task gives one.
    """

    figure: float | None
    change: Change | None = None
    p_holm: float | None = None
    stderr: float | None = None


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a variant's language counts as broken.

    Attributes:
        kind: ``perplexity``, ``no tokens``, ``fluency``, ``distinct_2``, ``repetitive_share`` or ``empty_share``.
        before: figure of the baseline.
        after: figure of the variant.
        limit: the limit that was broken (see ``Limits``).
    """

    kind: str
    before: float | None = None
    after: float | None = None
    limit: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A variant.

    Attributes:
        variant: its name.
        about: what it is.
        cells: by address.
        over: addresses of the budgets that it exceeds.
        broken: why its language is broken; empty where it is not.
        units: SHA-256 of the unit list that made it; None where there is none.
    """

    variant: str
    about: About
    cells: Mapping[str, Cell]
    over: tuple[str, ...] = ()
    broken: tuple[Reason, ...] = ()
    units: str | None = None

    def change(self, address: str) -> Change:
        """The change of a compared metric; of the baseline there is none."""
        change = self.cells[address].change
        if change is None:
            raise ExciseError(f"summary: variant {self.variant!r} has no change of {address}")
        return change


@dataclass(frozen=True, kw_only=True)
class Against:
    """The winner against other variants: their average, item by item.

    Attributes:
        variants: names of the others.
        change: from them to the winner.
    """

    variants: tuple[str, ...]
    change: Change


@dataclass(frozen=True, kw_only=True)
class Peers:
    """Candidates that take as much of the model in different ways.

    Attributes:
        variants: the best first.
        change: from the second to the best, item by item.
    """

    variants: tuple[str, ...]
    change: Change


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Who wins.

    Attributes:
        winner: the candidate with the largest gain among those eligible; None: nobody.
        eligible: candidates that are not broken, within every budget, and better with their whole interval; best first.
        tied: where the goal is a measured time, the other ones that are as fast as the winner; it costs least of them.
        runner_up: the best of them whose method is not the winner's.
        closest: the candidate with the largest gain that is not broken, eligible or not.
        controls_that_improve: controls whose whole interval is on the better side of zero.
        against_controls: the winner against the random draws of as many units, to which the same was done.
        against_runner_up: from ``runner_up`` to the winner.
        peers: candidates that are model folders, by how much was taken of the model.
    """

    winner: str | None = None
    eligible: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    runner_up: str | None = None
    closest: str | None = None
    controls_that_improve: tuple[str, ...] = ()
    against_controls: Against | None = None
    against_runner_up: Change | None = None
    peers: tuple[Peers, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Findings:
    """A variant that was found several times, each time from references of its own.

    Attributes:
        variants: names, the first finding first; only that one may win.
        spreads: the effect of the findings, by address of a compared metric.
    """

    variants: tuple[str, ...]
    spreads: Mapping[str, Spread]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All variants of an experiment, compared.

    Attributes:
        goal: what decides.
        limits: when language is broken.
        columns: the metrics, in the order of the tasks.
        variants: rows, the baseline first.
        comparisons: number of candidates, which intervals and p values are corrected for.
        verdict: who wins.
        findings: variants that were found several times.
        meta: provenance.
    """

    goal: Goal
    limits: Limits
    columns: tuple[Column, ...]
    variants: tuple[Row, ...]
    comparisons: int
    verdict: Verdict
    findings: tuple[Findings, ...] = ()
    meta: Json = field(default_factory=dict)

    @property
    def baseline(self) -> Row:
        """The row of the unpruned model."""
        return self.variants[0]

    @property
    def rows(self) -> dict[str, Row]:
        """The rows by variant."""
        return {row.variant: row for row in self.variants}

    def findings_of(self, variant: str) -> Findings | None:
        """The findings of a variant, where it was found several times."""
        return next((one for one in self.findings if variant in one.variants), None)

    def column(self, address: str) -> Column:
        """The column of an address."""
        return next(column for column in self.columns if column.address == address)

    @property
    def target(self) -> Column:
        """The column of the goal."""
        return self.column(self.goal.metric)

    @property
    def budgets(self) -> list[Column]:
        """The columns that have a budget."""
        return [self.column(address) for address in self.goal.within]

    def of_task(self, task: str) -> list[Column]:
        """The columns of a task."""
        return [column for column in self.columns if column.task == task]


@cache
def _adapter() -> TypeAdapter[Summary]:
    return TypeAdapter(Summary)


def write_summary(path: Path, summary: Summary) -> None:
    """Write ``summary.json``."""
    body: dict[str, Any] = _adapter().dump_python(summary, mode="json")
    write_json(path, body.pop("meta"), body)


def read_summary(path: Path) -> Summary:
    """Read ``summary.json``.

    Raises:
        ExciseError: it is not one.
    """
    try:
        return _adapter().validate_python(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ExciseError(
            f"{path}: not a summary of this version of excise ({where}: {first['msg']}); run excise summary again"
        ) from error
