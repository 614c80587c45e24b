"""Which of several candidates is best on the tuning prompts."""

from excise.errors import ExciseError
from excise.reporting.summary import Row, Summary
from excise.reporting.tables import in_words, percent
from excise.reporting.verdict import by_gain
from excise.reporting.words import said_of


def chosen(summary: Summary, *, where: str) -> Row:
    """The candidate that gains most within the budgets, broken ones aside.

    Args:
        summary: comparison on the tuning prompts.
        where: what to call it in the error.

    Raises:
        ExciseError: no candidate is within the budgets with its language intact and better than unpruned.
    """
    target = summary.target
    rows = [row for row in summary.variants if row.about.kind == "candidate"]
    able = [
        row
        for row in rows
        if not row.over and not row.broken and summary.goal.gain(row.change(target.address).difference or 0.0) > 0
    ]
    if able:
        return min(able, key=by_gain(summary.goal))

    def went(row: Row) -> str:
        changes = [
            f"{said_of(column)} {percent(row.change(column.address).relative, 1, signed=True)}"
            for column in (*summary.budgets, target)
        ]
        return f"{row.variant}: {', '.join(changes)}{', broken' if row.broken else ''}"

    verb = "lowers" if summary.goal.better == "lower" else "raises"
    budgets = " and ".join(
        f"{said_of(column)} changed by at most {in_words(summary.goal.within[column.address])}"
        for column in summary.budgets
    )
    raise ExciseError(
        f"{where}: no candidate {verb} {said_of(target)}{f' with {budgets}' if budgets else ''} and its language "
        f"intact ({'; '.join(map(went, rows))}). Offer smaller numbers of units or a stronger protection, or raise "
        "the budget (tuning.max_perplexity_increase)."
    )
