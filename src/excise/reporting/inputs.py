"""Read what the report is made from, and check by digests that it belongs together, in whatever order it comes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from excise.artefacts import Json, read_jsonl, sha256_file
from excise.edits.unit_list import read_units
from excise.errors import ExciseError
from excise.reporting.summary import Summary, read_summary
from excise.tasks.files import read_measurements
from excise.tasks.measurement import Measured, merged

TOOK = re.compile(r" took ([\d.]+) s and at most (\d+) MB$", re.MULTILINE)
"""The last line of a stage's log (``excise.cli``)."""


@dataclass(frozen=True)
class Found:
    """A summary, and what it was made from.

    Attributes:
        summary: of the experiment.
        measured: measurements by variant.
        units: unit lists by variant, of those that were made with one that was given.
        origins: provenance of all of it.
    """

    summary: Summary
    measured: Mapping[str, Measured]
    units: Mapping[str, Json]
    origins: Sequence[Json]


def by_digest(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by the SHA-256 of their bytes."""
    return {sha256_file(path): path for path in paths}


def read_all(summary_path: Path, measurements: Sequence[Path], units: Sequence[Path]) -> Found:
    """A summary with its measurements and unit lists.

    Raises:
        ExciseError: the summary was made from other measurements, or a unit list belongs to no variant.
    """
    summary = read_summary(summary_path)
    used = {digest for digests in summary.meta["settings"]["measurements"].values() for digest in digests}
    given = by_digest(measurements)
    if used != given.keys():
        raise ExciseError(
            f"{summary_path}: was made from other measurements than those given; run excise summary again"
        )
    measured = {one.variant: one for one in merged(map(read_measurements, measurements))}
    variants = {row.units: row.variant for row in summary.variants if row.units is not None}
    lists = {}
    for digest, path in by_digest(units).items():
        if digest not in variants:
            raise ExciseError(f"{path}: no variant of {summary_path} was made with this unit list")
        lists[variants[digest]] = read_units(path)
    return Found(summary, measured, lists, [summary.meta, *(one.meta for one in measured.values())])


def read_scored(
    measured: Measured, generations: Mapping[str, Path], scores: Mapping[str, Path]
) -> tuple[list[Json], list[Json]]:
    """A variant's generations with the scores that its measurements were read from.

    Args:
        measured: of the variant.
        generations: files by digest.
        scores: files by digest.

    Returns:
        Provenance of both files, and the rows of the generations with ``score`` added.

    Raises:
        ExciseError: the variant's files are not among them, or some generation has no score.
    """
    settings = measured.meta["settings"]
    texts = next((generations[digest] for digest in settings.get("generations", ()) if digest in generations), None)
    judged = next((scores[digest] for digest in settings.get("scores", ()) if digest in scores), None)
    if texts is None or judged is None:
        what = "generations" if texts is None else "scores"
        raise ExciseError(
            f"variant {measured.variant!r}: the {what} that it was judged by are not among the files of --{what}"
        )
    made, rows = read_jsonl(texts, ("id", "draw", "prompt", "completion"))
    by, scored = read_jsonl(judged, ("id", "draw"), numbers=("score",))
    values = {(row["id"], row["draw"]): row["score"] for row in scored}
    if values.keys() != {(row["id"], row["draw"]) for row in rows}:
        raise ExciseError(f"{judged}: does not score the generations of {texts}; run excise score again")
    return [made, by], [{**row, "score": values[row["id"], row["draw"]]} for row in rows]


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
