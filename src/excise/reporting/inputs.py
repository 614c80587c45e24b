"""Read what the summary and the report are made from, and check that it belongs together."""

import re
from collections.abc import Sequence
from pathlib import Path

from excise.artefacts import Json, read_json, read_jsonl, sha256_file
from excise.edits.unit_list import read_units
from excise.errors import ExciseError

TOOK = re.compile(r" took ([\d.]+) s and at most (\d+) MB$", re.MULTILINE)
"""The last line of a stage's log (``excise.cli``)."""

EVALUATION_KEYS = ("variant", "behaviour", "scores", "degeneration", "perplexity", "prompts")
SELECTION_KEYS = ("name", "method", "unit", "scale", "ablation", "layers", "units_per_layer", "stability", "rows")


def read_evaluation(path: Path) -> Json:
    """Read one evaluation.

    Raises:
        ExciseError: it is not one, or its perplexity lacks the losses of the windows.
    """
    found = _with_keys(path, read_json(path), EVALUATION_KEYS, "evaluation")
    if "by_window" not in found["perplexity"]:
        raise ExciseError(f"{path}: its perplexity does not say by_window; run excise perplexity and evaluate again")
    return found


def _with_keys(path: Path, value: Json, keys: Sequence[str], kind: str) -> Json:
    if missing := [key for key in ("meta", *keys) if key not in value]:
        raise ExciseError(f"{path}: not an {kind} of excise: lacks {', '.join(missing)}")
    return value


def read_variants(
    baseline: Path, evaluations: Sequence[Path], selections: Sequence[Path]
) -> tuple[Json, list[Json], list[Json]]:
    """The baseline's evaluation, and evaluation and unit list of each variant.

    Raises:
        ExciseError: the counts differ, or an evaluation was made with another unit list than the one given.
    """
    if len(evaluations) != len(selections):
        raise ExciseError(
            f"{len(evaluations)} evaluations but {len(selections)} selections; give one unit list for each variant, "
            "in the same order, and none for the baseline"
        )
    lists = [_with_keys(path, read_units(path), SELECTION_KEYS, "unit list") for path in selections]
    read = [read_evaluation(path) for path in evaluations]
    for path, evaluation, chosen in zip(evaluations, read, selections, strict=True):
        _check_selection(path, evaluation, sha256_file(chosen), chosen)
    first = read_evaluation(baseline)
    _check_selection(baseline, first, None, None)
    return first, read, lists


def _check_selection(path: Path, evaluation: Json, sha256: str | None, selection: Path | None) -> None:
    """Compare the unit list that an evaluation names with the one it is put beside."""
    made_with = (evaluation["meta"]["selection"] or {}).get("sha256")
    if made_with != sha256:
        raise ExciseError(
            f"{path}: was made with {_short(made_with)}, but stands beside {_short(sha256)}"
            f"{f' ({selection})' if selection else ''}. The order of --evaluations and --selections must be the same."
        )


def _short(sha256: str | None) -> str:
    return "no unit list (the unpruned model)" if sha256 is None else f"the unit list with sha256 {sha256[:12]}"


def read_scored(generations: Path, scores: Path) -> tuple[list[Json], list[Json]]:
    """Generations with their scores.

    Returns:
        Provenance of both files, and the rows of the generations with ``score`` added.

    Raises:
        ExciseError: some generation has no score, or the other way round.
    """
    made, rows = read_jsonl(generations, ("id", "draw", "prompt", "completion"))
    judged, scored = read_jsonl(scores, ("id", "draw"), numbers=("score",))
    values = {(row["id"], row["draw"]): row["score"] for row in scored}
    if values.keys() != {(row["id"], row["draw"]) for row in rows}:
        raise ExciseError(f"{scores}: does not score the generations of {generations}; run excise score again")
    return [made, judged], [{**row, "score": values[row["id"], row["draw"]]} for row in rows]


def read_timings(folder: Path) -> list[Json]:
    """What the stages say in their logs below a folder, added up by the first part of the logs' path.

    Returns:
        Rows ``{step, jobs, seconds, longest, memory}``: wall seconds in all and of the longest job, largest resident
        memory in MB; slowest step first.

    Raises:
        ExciseError: no log says what its stage took.
    """
    steps: dict[str, Json] = {}
    for path in sorted(folder.rglob("*.log")):
        took = TOOK.search(path.read_text(encoding="utf-8", errors="replace"))
        if took is None:
            continue
        name = path.relative_to(folder).with_suffix("").parts[0]
        step = steps.setdefault(name, {"step": name, "jobs": 0, "seconds": 0.0, "longest": 0.0, "memory": 0})
        step["jobs"] += 1
        step["seconds"] += float(took[1])
        step["longest"] = max(step["longest"], float(took[1]))
        step["memory"] = max(step["memory"], int(took[2]))
    if not steps:
        raise ExciseError(f"{folder}: no log in it that says what a stage took")
    return sorted(steps.values(), key=lambda step: (-step["seconds"], step["step"]))
