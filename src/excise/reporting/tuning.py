"""Which of several candidates is best on the tuning prompts."""

from excise.artefacts import Json
from excise.errors import ExciseError
from excise.reporting.summary import adjective
from excise.reporting.tables import exact_percent, percent


def chosen(summary: Json, *, where: str) -> Json:
    """The row of the candidate that reduces the behaviour most within the budget, broken ones aside.

    Args:
        summary: body of the comparison on the tuning prompts, as ``summary.summarise`` gives it.
        where: what to call it in the error.

    Raises:
        ExciseError: no candidate is within the budget with its language intact and a smaller share than unpruned.
    """

    def cost(row: Json) -> tuple[float, float]:
        return row["change"][summary["primary"]]["difference"], row["perplexity_change"]

    rows = [row for row in summary["variants"] if row["kind"] == "candidate"]
    able = [row for row in rows if row["within_budget"] and not row["flag"] and cost(row)[0] < 0]
    if able:
        return min(able, key=cost)
    tried = "; ".join(
        f"{row['variant']}: perplexity {percent(row['perplexity_change'], signed=True)}, {adjective(summary)} share "
        f"{percent(row['change'][summary['primary']]['relative'], 0, signed=True)}{', broken' if row['flag'] else ''}"
        for row in rows
    )
    budget = exact_percent(summary["limits"]["max_perplexity_increase"], signed=True)
    raise ExciseError(
        f"{where}: no candidate lowers the {adjective(summary)} share with perplexity up by at most {budget} and its "
        f"language intact ({tried}). Offer smaller numbers of neurons or a stronger protection, or raise "
        "tuning.max_perplexity_increase."
    )
