"""What pruning did to the tasks that the models were put through, each figure against the unpruned model's."""

from math import isclose
from statistics import fmean
from typing import Any

from excise.artefacts import Json
from excise.comparison import compare
from excise.reporting.tables import MINUS, number
from excise.tasks.measurement import Metric

COLUMNS = ("stderr", "change", "change low", "change high")


def asked(evaluation: Json) -> Json:
    """Everything about the tasks that must be alike for two variants to be compared; empty where there are none."""
    found = evaluation.get("capability", {})
    return {key: found[key] for key in ("shown", "asked") if key in found} | {
        name: {key: value for key, value in task.items() if key != "metrics"}
        for name, task in found.get("tasks", {}).items()
    }


def compared(evaluation: Json, baseline: Json | None) -> list[Json]:
    """A row for each figure that was asked for.

    Args:
        evaluation: of a variant.
        baseline: of the unpruned model; None where the variant is that.

    Returns:
        Rows with the figure, its standard error by the harness, its difference to the unpruned model's, and the 95 %
        interval of the difference (None where the figure is no mean over documents).
    """
    before = {} if baseline is None else {(row["task"], row["metric"]): row for row in _figures(baseline)}
    rows = []
    for row in _figures(evaluation):
        other = before.get((row["task"], row["metric"]))
        mine, theirs = row.pop("per_document"), other["per_document"] if other else None
        row["difference"] = row["value"] - other["value"] if other else None
        row["interval"] = compare(Metric.of(theirs), Metric.of(mine), seed=0).interval if mine and theirs else None
        rows.append(row)
    return rows


def _figures(evaluation: Json) -> list[Json]:
    """Each figure that was asked for; of a group the documents of its tasks, where its figure is their mean."""
    found = evaluation.get("capability", {})
    rows = []
    for name in found.get("shown", ()):
        result = found["groups"].get(name) or found["tasks"][name]
        for metric, figure in result["metrics"].items():
            leaves = [found["tasks"][leaf]["metrics"].get(metric, {}) for leaf in result.get("tasks", [name])]
            values = [value for leaf in leaves for value in leaf.get("per_document", ())]
            complete = all("per_document" in leaf for leaf in leaves)
            is_mean = complete and isclose(fmean(values), figure["value"], abs_tol=1e-9)
            rows.append(
                {
                    "task": name,
                    "metric": metric.removesuffix(",none"),
                    "num_fewshot": result["num_fewshot"],
                    "documents": result["documents"],
                    **{key: figure[key] for key in ("value", "stderr", "higher_is_better")},
                    "per_document": values if is_mean else None,
                }
            )
    return rows


def title(row: Json) -> str:
    """What a column is called: ``hellaswag acc_norm, 0-shot``."""
    shots = "mixed shots" if row["num_fewshot"] is None else f"{row['num_fewshot']}-shot"
    return f"{row['task']} {row['metric']}, {shots}"


def columns(summary: Json) -> list[str]:
    """Columns of the summary's CSV: each figure, its standard error, its change and the change's interval."""
    names = [f"capability[{title(row)}]" for row in summary["variants"][0]["capability"]]
    return [f"{name} {what}".strip() for name in names for what in ("", *COLUMNS)]


def values(row: Json) -> list[float | None]:
    """One variant's cells under ``columns``."""
    return [
        cell
        for one in row["capability"]
        for cell in (one["value"], one["stderr"], one["difference"], *(one["interval"] or (None, None)))
    ]


def cells(row: Json) -> list[str]:
    """One variant's cells on the page: the unpruned model's figures, or figure, change and interval."""

    def signed(value: float) -> str:
        return f"{value:+.3f}".replace("-", MINUS)

    def cell(one: Json) -> str:
        if one["difference"] is None:
            return number(one["value"], 3) + (f" ± {number(one['stderr'], 3)}" if one["stderr"] is not None else "")
        low_high = f" [{signed(one['interval'][0])} to {signed(one['interval'][1])}]" if one["interval"] else ""
        return f"{number(one['value'], 3)}: {signed(one['difference'])}{low_high}"

    return [cell(one) for one in row["capability"]]


def note(summary: Json) -> str:
    """What the table says, in words."""
    settings, versions = (summary["capability"][key] for key in ("settings", "versions"))
    parts = "; ".join(
        f"{row['task']} {row['metric']}: {row['documents']:,} documents"
        + {True: "", False: ", lower is better", None: ""}[row["higher_is_better"]]
        for row in summary["variants"][0]["capability"]
    )
    limit = f" Only the first {settings['limit']:,} documents of each task were used." if settings["limit"] else ""
    return (
        f"By lm-evaluation-harness {versions['lm-eval']}, with its own prompts. Unpruned: ± standard error. "
        "Else the figure, its change, and the change's 95 % interval from the differences "
        f"document by document, each for its variant alone. {parts}.{limit}"
    )


def table(summary: Json) -> tuple[list[str], list[list[Any]]]:
    """The data behind the table: one row a variant and figure."""
    keys = ["task", "metric", "num_fewshot", "documents", "higher_is_better", "value", "stderr", "difference"]
    rows = [
        [row["variant"], *(one[key] for key in keys), *(one["interval"] or (None, None))]
        for row in summary["variants"]
        for one in row["capability"]
    ]
    return ["variant", *keys, "low", "high"], rows
