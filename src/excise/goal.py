"""What an experiment wants: one metric lowered or raised, others kept within budgets.

In the configuration::

    goal: {lower: toxicity.share, within: {wikipedia.perplexity: +5 %, arc_easy.acc: -2 %}}

A budget says how far a metric may go, against the unpruned model: ``+5 %`` and ``-2 %`` are relative, ``+0.5`` and
``-0.01`` are differences in the metric's own unit. The sign says which way costs: a metric with ``+`` may fall freely.
``-5 % surely`` asks that of the whole 95 % interval.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from excise.errors import ExciseError

DIRECTIONS = ("lower", "raise")

_BUDGET = re.compile(r"([+-])\s*(\d+(?:\.\d+)?|\.\d+)\s*(%?)(\s+surely)?")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How far a metric may go.

    Attributes:
        limit: signed: +0.05 = up by 5 % at most, where relative.
        relative: a share of the baseline's figure, not a difference.
        surely: the whole 95 % interval of the change must be within it, not its middle alone (non-inferiority).
    """

    limit: float
    relative: bool = True
    surely: bool = False

    def allows(self, change: float | None) -> bool:
        """Whether a change is within it, relative or in the metric's unit; one that is not known is not."""
        if change is None:
            return False
        return change <= self.limit if self.limit >= 0 else change >= self.limit


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A metric and a direction, and budgets by metric.

    Attributes:
        metric: address NAME.METRIC, for example ``toxicity.share``.
        direction: ``lower`` or ``raise``.
        within: budgets by address.
    """

    metric: str
    direction: str
    within: Mapping[str, Budget] = field(default_factory=dict)

    @property
    def better(self) -> str:
        """Which way is better, as measurements say it: ``lower`` or ``higher``."""
        return "lower" if self.direction == "lower" else "higher"

    def gain(self, difference: float) -> float:
        """A change towards the goal is positive."""
        return -difference if self.direction == "lower" else difference


def parse_budget(text: str, *, where: str) -> Budget:
    """Read ``+5 %``, ``-0.01`` or ``-5 % surely``.

    Raises:
        ExciseError: it is neither.
    """
    found = _BUDGET.fullmatch(text.strip())
    if found is None:
        raise ExciseError(
            f"{where}: {text!r} is not a budget; write a sign and a number: '+5 %' (up by 5 % at most), '-2 %' (down "
            "by 2 % at most), '+0.5' or '-0.01' (a difference, not in per cent); add 'surely' to ask it of the interval"
        )
    sign, number, per_cent, surely = found.groups()
    size = float(number) / 100 if per_cent else float(number)
    return Budget(limit=math.copysign(size, -1.0 if sign == "-" else 1.0), relative=bool(per_cent), surely=bool(surely))


def parse_goal(settings: Mapping[str, object], *, where: str = "goal") -> Goal:
    """Read ``{lower | raise: METRIC, within: {METRIC: BUDGET}}``.

    Raises:
        ExciseError: not exactly one of ``lower`` and ``raise``, or a budget that cannot be read.
    """
    asked = [direction for direction in DIRECTIONS if settings.get(direction) is not None]
    if len(asked) != 1 or settings.keys() - {*DIRECTIONS, "within"}:
        raise ExciseError(f"{where}: give lower or raise (one of them) with a metric, and within with budgets, or not")
    within = settings.get("within") or {}
    if not isinstance(within, Mapping):
        raise ExciseError(f"{where}.within: must be budgets by metric, for example {{wikipedia.perplexity: +5 %}}")
    budgets = {str(name): parse_budget(str(text), where=f"{where}.within.{name}") for name, text in within.items()}
    return Goal(metric=str(settings[asked[0]]), direction=asked[0], within=budgets)
