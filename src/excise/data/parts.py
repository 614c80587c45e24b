"""Divide a collection into what finds the units, what chooses between settings, and what judges."""

from collections.abc import Sequence
from dataclasses import dataclass

from excise.artefacts import Json
from excise.data.prompts import groups, seeded_order, split, words
from excise.errors import ExciseError


@dataclass(frozen=True)
class Parts:
    """The parts of a collection; no text is in two of them, nor nearly so.

    Attributes:
        calibration: documents that importance, repair and distillation may see.
        documents: the documents that are searched.
        tuning: queries on which settings may be chosen.
        test: queries that judge.
        counts: sizes, and what was left out.
    """

    calibration: list[Json]
    documents: list[Json]
    tuning: list[Json]
    test: list[Json]
    counts: Json


def divide(
    documents: Sequence[Json],
    queries: Sequence[Json],
    *,
    calibration: int,
    searched: int | None = None,
    tuning_fraction: float = 0.0,
    relevant: tuple[int, int | None] = (1, None),
    seed: int = 0,
) -> Parts:
    """Draw the searched documents and the calibration documents, and deal the queries out.

    Near-duplicates among documents stay together, and so do near-duplicates among queries. A calibration document that
    nearly is a test query is left out. Judgements of documents that are not searched fall away.

    Args:
        documents: rows ``{id, text}``.
        queries: rows ``{id, text, relevant}``; may be empty, where only the fidelity of embeddings is measured.
        calibration: number of calibration documents, at most this many (whole groups are taken).
        searched: number of documents to search (default: all that are not for calibration).
        tuning_fraction: share of the queries in the tuning part.
        relevant: smallest and largest number of searched relevant documents that a query may have.
        seed: of the draw.

    Raises:
        ExciseError: there are too few documents, or no query is left for some part.
    """
    if calibration < 0 or (searched is not None and searched < 1):
        raise ExciseError(f"--calibration {calibration}, --searched {searched}: these are numbers of documents")
    calibrated, kept = _apart_by_group(documents, calibration, searched, seed)
    low, high = relevant
    judged = [row | {"relevant": {d: g for d, g in row["relevant"].items() if d in kept}} for row in queries]
    fitting = [row for row in judged if low <= len(row["relevant"]) <= (high or len(kept))]
    if queries and not fitting:
        raise ExciseError(
            f"of {len(queries)} queries none has {low} to {high or 'any number of'} relevant documents among the "
            f"{len(kept)} searched: search more documents"
        )
    tuning, test = split(fitting, fraction=tuning_fraction, seed=seed) if tuning_fraction else ([], fitting)
    alike = _nearly_queries(calibrated, test)
    order = {row["id"]: place for place, row in enumerate(documents)}
    calibrated = sorted((row for row in calibrated if row["id"] not in alike), key=lambda row: order[row["id"]])
    counts = {
        "documents": len(kept),
        "calibration": len(calibrated),
        "calibration_like_a_test_query": len(alike),
        "tuning_queries": len(tuning),
        "test_queries": len(test),
        "queries_left_out": len(queries) - len(fitting),
        "relevant": sum(len(row["relevant"]) for row in test),
    }
    return Parts(calibrated, [row for row in documents if row["id"] in kept], tuning, test, counts)


def divide_pairs(
    sentences: Sequence[Json], pairs: Sequence[Json], *, calibration: int, seed: int
) -> tuple[list[Json], list[Json], list[Json]]:
    """Draw pairs whose sentences calibrate; the others judge.

    A sentence of a judging pair calibrates nothing, nor does one that nearly is one.

    Args:
        sentences: rows ``{id, text}``.
        pairs: rows ``{id, first, second}``.
        calibration: number of sentences that calibrate, about: whole pairs are drawn.
        seed: of the draw.

    Returns:
        Sentences that calibrate, sentences of the judging pairs, and the judging pairs.

    Raises:
        ExciseError: no pair is left to judge, or no sentence to calibrate.
    """
    by_id = {row["id"]: row for row in pairs}
    order = seeded_order(by_id, seed)
    drawn = {by_id[name][side] for name in order[: calibration // 2] for side in ("first", "second")}
    judging = {by_id[name]["id"] for name in order[calibration // 2 :]}
    kept = [row for row in pairs if row["id"] in judging]
    judged = {row[side] for row in kept for side in ("first", "second")}
    searched = [row for row in sentences if row["id"] in judged]
    calibrated = apart([row for row in sentences if row["id"] in drawn - judged], [row["text"] for row in searched])
    if not kept or (calibration and not calibrated):
        raise ExciseError(f"{len(pairs)} pairs are too few for {calibration} sentences of calibration: ask for fewer")
    return calibrated, searched, kept


def _apart_by_group(
    documents: Sequence[Json], calibration: int, searched: int | None, seed: int
) -> tuple[list[Json], set[str]]:
    """The calibration documents, and the ids of those that are searched.

    Raises:
        ExciseError: there are too few documents.
    """
    rest = _groups_in_order(documents, seed)
    if searched is None:
        calibrated = _take(rest, calibration)
        kept = {row["id"] for group in rest for row in group}
    else:
        kept = {row["id"] for row in _take(rest, searched)}
        calibrated = _take(rest, calibration)
    if not kept or (calibration and not calibrated):
        raise ExciseError(
            f"{len(documents)} documents are too few for {calibration} of calibration beside {searched or 'some'} that "
            "are searched: ask for fewer"
        )
    return calibrated, kept


def _groups_in_order(documents: Sequence[Json], seed: int) -> list[list[Json]]:
    """Near-duplicates together, in a random order of the groups that depends on ids and seed only."""
    together = [[documents[index] for index in group] for group in groups([row["text"] for row in documents])]
    named = {min(row["id"] for row in group): group for group in together}
    return [named[name] for name in seeded_order(named, seed)]


def _take(rest: list[list[Json]], count: int) -> list[Json]:
    """Remove whole groups from the front of ``rest`` as long as no more than ``count`` documents are taken."""
    taken: list[Json] = []
    left = []
    for group in rest:
        if len(taken) + len(group) <= count:
            taken += group
        else:
            left.append(group)
    rest[:] = left
    return taken


def _nearly_queries(documents: Sequence[Json], queries: Sequence[Json]) -> set[str]:
    """Ids of the documents that are in one group of near-duplicates with a query."""
    border = len(documents)
    together = groups([row["text"] for row in (*documents, *queries)])
    return {documents[i]["id"] for group in together if max(group) >= border for i in group if i < border}


def apart(rows: Sequence[Json], judged: Sequence[str]) -> list[Json]:
    """The rows that no text of another collection repeats: near-duplicates, and titles that a text begins with.

    Args:
        rows: ``{id, text}``, of calibration.
        judged: texts of other collections that judge.
    """
    border = len(rows)
    together = groups([*(row["text"] for row in rows), *judged])
    repeated = {i for group in together if max(group) >= border for i in group if i < border}
    titles = [tuple(words(row["text"])) for row in rows]
    lengths = {len(title) for title in titles}
    begins = {tuple(found[:length]) for found in map(words, judged) for length in lengths}
    return [row for i, row in enumerate(rows) if i not in repeated and titles[i] not in begins]
