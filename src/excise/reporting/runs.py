"""Do two runs of one experiment, on two machines for instance, come to the same conclusions?

Digits differ between processors: rounding moves a few sampled tokens, with them references, lists and every figure. A
conclusion is what of a figure should survive that: whether a variant's change is established, and in which direction;
whether its language is broken or its cost beyond the budget; who wins, and from whom the winner is told apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from excise.comparison import Change, compare
from excise.errors import ExciseError
from excise.reporting.summary import Row, Summary
from excise.tasks.measurement import Measured, find


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        summary: its summary.
        measured: its measurements by variant.
    """

    summary: Summary
    measured: dict[str, Measured]


@dataclass(frozen=True)
class Agreement:
    """What two runs say.

    Attributes:
        conclusions: of every variant but the baseline, in each run: ``better``, ``worse``, ``open``, ``broken``, or one
            of the first three ``, over budget``.
        winners: of each run; None: nobody wins.
        tied: in each run the candidates that could win and are not told apart from the winner, best first.
    """

    conclusions: dict[str, tuple[str, str]]
    winners: tuple[str | None, str | None]
    tied: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def differing(self) -> list[str]:
        """Variants about which the runs conclude differently."""
        return [name for name, (first, second) in self.conclusions.items() if first != second]

    @property
    def one_winner(self) -> bool:
        """Whether the winner is the same, or each run does not tell the other's winner from its own."""
        first, second = self.winners
        return first == second or (second in self.tied[0] and first in self.tied[1])

    @property
    def holds(self) -> bool:
        """Whether the conclusions agree."""
        return not self.differing and self.one_winner


def agreement(first: Run, second: Run) -> Agreement:
    """Compare two runs of one experiment.

    Raises:
        ExciseError: they are not of one experiment: goal, variants, or how something was measured differs.
    """
    _check(first.summary, second.summary)
    rows = first.summary.rows, second.summary.rows
    names = [row.variant for row in first.summary.variants[1:]]
    return Agreement(
        conclusions={name: (concluded(rows[0][name], first), concluded(rows[1][name], second)) for name in names},
        winners=(first.summary.verdict.winner, second.summary.verdict.winner),
        tied=(not_told_apart(first), not_told_apart(second)),
    )


def concluded(row: Row, run: Run) -> str:
    """What a run says of a variant."""
    goal = run.summary.goal
    if row.broken:
        return "broken"
    change = row.change(goal.metric)
    worse = "higher" if goal.better == "lower" else "lower"
    said = "better" if change.improves(goal.better) else "worse" if change.improves(worse) else "open"
    return f"{said}, over budget" if row.over else said


def not_told_apart(run: Run) -> tuple[str, ...]:
    """The eligible candidates whose paired difference to the winner has an interval that contains zero."""
    summary = run.summary
    winner, *others = summary.verdict.eligible or (None,)
    if winner is None:
        return ()
    return tuple(name for name in others if not _apart(between(run, winner, name)))


def between(run: Run, first: str, second: str) -> Change:
    """The change of the goal's metric from one variant to another, item by item."""
    settings = run.summary.meta["settings"]
    (one, before), (_, after) = (find(run.measured[name], run.summary.goal.metric) for name in (first, second))
    return compare(before, after, serial=one.serial, seed=settings["seed"], resamples=settings["resamples"])


def _apart(change: Change) -> bool:
    return change.improves("lower") or change.improves("higher")


def _check(first: Summary, second: Summary) -> None:
    """Refuse runs of two experiments."""
    kinds: Sequence[tuple[str, object, object]] = (
        ("goal", first.goal, second.goal),
        ("limits of broken language", first.limits, second.limits),
        ("variants", [row.variant for row in first.variants], [row.variant for row in second.variants]),
        *(
            (f"what {column.address} was measured with", column.settings, other.settings)
            for column, other in zip(first.columns, second.columns, strict=False)
        ),
        ("metrics", [one.address for one in first.columns], [one.address for one in second.columns]),
    )
    for what, one, other in kinds:
        if one != other:
            raise ExciseError(f"not two runs of one experiment: {what} differs: {one} against {other}")
