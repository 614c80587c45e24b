"""Prompts: read them from any source, drop repetitions, split them without near-duplicates across the split."""

import hashlib
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from excise.artefacts import Json, read_distinct
from excise.data.texts import check_words, field_text, file_kind, read_text, records
from excise.errors import ExciseError

SIMILARITY = 0.8
"""Two prompts whose sets of words have at least this Jaccard index are near-duplicates."""

PREFIX_WORDS = 6
"""So are two prompts whose first so many words are the same."""


UNKNOWN = ("", "nan", "null", "none", "na", "n/a")
"""What an unknown toxicity is called, in any case; so are JSON's null and parquet's NaN."""


class Found(NamedTuple):
    """Distinct prompts, and how many were read, were blank, were repetitions, and how many have no toxicity.

    ``unknown`` counts distinct prompts without a toxicity, where others have one.
    """

    rows: list[Json]
    read: int
    blank: int
    repeated: int
    unknown: int


def normalised(text: str) -> str:
    """The text with every run of white space made one space: what "the same prompt" means."""
    return " ".join(text.split())


def prompt_id(text: str) -> str:
    """An id from the content alone: the first 16 hexadecimal digits of the SHA-256 of the normalised text."""
    return hashlib.sha256(normalised(text).encode()).hexdigest()[:16]


def file_prompts(paths: Sequence[Path], *, field: str | None, only: str | None) -> Iterator[Json]:
    """The prompts of some files: ``{text, category?, toxicity?}``, repetitions included.

    A plain text file has a prompt a line; of several, each file is a category, named after it without what all names
    have in common (``rtp_insult.txt`` is ``insult``). Other files have records, see ``prompt_of``.
    """
    shared = os.path.commonprefix([path.name for path in paths])  # noqa: RUF071 (of names, not of paths)
    shared = shared[: max(shared.rfind("_"), shared.rfind("-")) + 1]
    for path in paths:
        if file_kind(path) in (".txt", ".utf8"):
            if only is not None:
                raise ExciseError(f"--only {only}: {path.name} is plain text and marks no prompts")
            category = {"category": path.name.split(".")[0].removeprefix(shared)} if len(paths) > 1 else {}
            lines = read_text(path).removesuffix("\n").split("\n")
            yield from ({"text": line.removesuffix("\r"), **category} for line in lines)
        else:
            yield from record_prompts(records(path), field=field, only=only)


def record_prompts(found: Iterable[tuple[str, Json]], *, field: str | None, only: str | None) -> Iterator[Json]:
    """The prompts of records, those alone that are marked true in the field ``only`` if it is given.

    Raises:
        ExciseError: a record has no text, or no such mark.
    """
    for where, record in found:
        if only is not None:
            if only not in record:
                raise ExciseError(f"{where}: --only {only}: it has no such field; it has {', '.join(record)}")
            if not record[only] or str(record[only]).lower() in ("false", "0"):
                continue
        yield prompt_of(where, record, field)


def prompt_of(where: str, record: Json, field: str | None) -> Json:
    """One record as ``{text, category?, toxicity?}``.

    The text is in ``field``, by default in ``prompt`` or ``text``; RealToxicityPrompts nests it, with the prompt's
    toxicity, as ``{"prompt": {"text": ..., "toxicity": ...}}``.

    A toxicity that is null, NaN or an empty cell is unknown, in every format, and is left out.

    Raises:
        ExciseError: there is no text, or the toxicity is neither a number nor unknown.
    """
    if field is None:
        field = next((name for name in ("prompt", "text") if name in record), "prompt")
    row: Json = {"text": field_text(where, record, field)}
    inner = record[field] if isinstance(record[field], dict) else record
    if record.get("category") is not None:
        row["category"] = str(record["category"])
    toxicity = inner.get("toxicity")
    if toxicity is None or str(toxicity).strip().lower() in UNKNOWN:
        return row
    try:
        row["toxicity"] = float(toxicity)
    except (TypeError, ValueError) as error:
        raise ExciseError(
            f"{where}: toxicity {toxicity!r} is not a number; leave it empty where it is unknown"
        ) from error
    if not 0 <= row["toxicity"] <= 1:  # nor NaN or infinite
        raise ExciseError(
            f"{where}: toxicity {toxicity!r} is not between 0 and 1, as a score is; leave it empty where it is unknown"
        )
    return row


def distinct(prompts: Iterable[Json]) -> Found:
    """Drop blank prompts and repetitions (equal but for white space); the first of each stays, as it was written.

    ``category`` is the category of the first one; ``categories`` lists those of all, in order of appearance.

    Raises:
        ExciseError: nothing is left, or all of it is numbers.
    """
    rows: dict[str, Json] = {}
    read = blank = 0
    for prompt in prompts:
        read += 1
        if not prompt["text"].strip():
            blank += 1
            continue
        row = rows.setdefault(prompt_id(prompt["text"]), {"id": prompt_id(prompt["text"]), **prompt})
        if "category" in prompt:
            categories = row.setdefault("categories", [])
            row.setdefault("category", prompt["category"])
            if prompt["category"] not in categories:
                categories.append(prompt["category"])
    if not rows:
        raise ExciseError(f"no prompts found ({read} read, {blank} blank); is it the right file, field and filter?")
    check_words(row["text"] for row in rows.values())
    known = sum("toxicity" in row for row in rows.values())
    unknown = len(rows) - known if known else 0
    return Found(list(rows.values()), read, blank, read - blank - len(rows), unknown)


def read_prompts(path: str | Path) -> tuple[Json, list[Json]]:
    """Read a prompt artefact.

    Raises:
        ExciseError: it cannot be read, is empty, or an id occurs twice.
    """
    return read_distinct(path, ("id", "text"), "prompts")


def words(text: str) -> list[str]:
    """The words of a text, in lower case, without punctuation."""
    return re.findall(r"\w+", text.casefold())


def near_duplicates(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs (i < j) of texts that are too alike for one to find neurons and the other to judge their removal.

    Alike: equal but for case, punctuation and white space; or Jaccard index of the word sets at least ``SIMILARITY``;
    or the same first ``PREFIX_WORDS`` words. Of several texts with the same words, or the same first ones, only the
    pairs with the first of them are listed.

    Exact, by prefix filtering (Chaudhuri et al. 2006): with the words of each set sorted from rare to frequent, two
    sets with Jaccard index t share a word among the first ``size - ceil(t * size) + 1`` of each.
    """
    spelled = [words(text) for text in texts]
    first: dict[tuple[str, ...], int] = {}
    for index, spelling in enumerate(spelled):
        keys: list[tuple[str, ...]] = [("all", *spelling)] if spelling else [("text", normalised(texts[index]))]
        if len(spelling) >= PREFIX_WORDS:
            keys.append(("prefix", *spelling[:PREFIX_WORDS]))
        for key in keys:
            if (other := first.setdefault(key, index)) != index:
                yield other, index
    frequency = Counter(word for spelling in spelled for word in set(spelling))
    sets = [sorted(set(spelling), key=lambda word: (frequency[word], word)) for spelling in spelled]
    holders: dict[str, list[int]] = defaultdict(list)
    for index, members in enumerate(sets):
        least = math.ceil(SIMILARITY * len(members) - 1e-9)
        candidates = set()
        for word in members[: len(members) - least + 1]:
            candidates.update(holders[word])
            holders[word].append(index)
        for other in sorted(candidates):
            common = len(set(members).intersection(sets[other]))
            if common >= SIMILARITY * (len(members) + len(sets[other]) - common) - 1e-9:
                yield other, index


def groups(texts: Sequence[str]) -> list[list[int]]:
    """Texts put together with their near-duplicates, and those with theirs; in order of the first member."""
    parent = list(range(len(texts)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for one, other in near_duplicates(texts):
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(len(texts)):
        members[root(index)].append(index)
    return list(members.values())


def seeded_order(names: Iterable[str], seed: int | str) -> list[str]:
    """A pseudo-random order of distinct names that depends on them and the seed only, not on how they were given."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())


def unlike(rows: Sequence[Json], others: Sequence[Json]) -> list[Json]:
    """The prompts that are no near-duplicates of others, in their order.

    Raises:
        ExciseError: none is left.
    """
    border = len(others)
    together = groups([row["text"] for row in (*others, *rows)])
    alike = {index - border for group in together if min(group) < border for index in group}
    kept = [row for index, row in enumerate(rows) if index not in alike]
    if not kept:
        raise ExciseError(f"all {len(rows)} judging prompts are near-duplicates of prompts that served otherwise")
    return kept


def split(
    rows: Sequence[Json], *, fraction: float, seed: int, limit: int | None = None
) -> tuple[list[Json], list[Json]]:
    """Split prompts into an attribution part and an evaluation part.

    Within each category groups of near-duplicates come in a random order and are dealt out whole, each to the
    attribution part as long as that brings its size nearer to ``fraction`` of the prompts dealt with so far.

    Args:
        rows: prompts ``{id, text, category?}``.
        fraction: share of the attribution part.
        seed: of the order.
        limit: use only so many prompts, drawn at random.

    Returns:
        (attribution, evaluation), each in the order of ``rows``.

    Raises:
        ExciseError: a number is out of range, or a part would be empty.
    """
    if not 0 < fraction < 1:
        raise ExciseError(f"--fraction {fraction}: must lie between 0 and 1")
    if limit is not None and limit < 2:
        raise ExciseError(f"--limit {limit}: must be at least 2, one prompt for each part")
    if limit is not None:
        kept = set(seeded_order((row["id"] for row in rows), seed)[:limit])
        rows = [row for row in rows if row["id"] in kept]
    by_category: dict[str, dict[str, list[Json]]] = defaultdict(dict)
    for group in groups([row["text"] for row in rows]):
        members = sorted((rows[index] for index in group), key=lambda row: row["id"])
        by_category[members[0].get("category", "")][members[0]["id"]] = members
    chosen: set[str] = set()
    target = 0.0
    for category in sorted(by_category):
        named = by_category[category]
        target += fraction * sum(map(len, named.values()))
        for name in seeded_order(named, seed):
            if len(chosen) + len(named[name]) / 2 <= target:
                chosen.update(row["id"] for row in named[name])
    attribution = [row for row in rows if row["id"] in chosen]
    evaluation = [row for row in rows if row["id"] not in chosen]
    if not attribution or not evaluation:
        raise ExciseError(
            f"{len(rows)} prompts cannot be split by --fraction {fraction}: {len(attribution)} would be for "
            f"attribution and {len(evaluation)} for evaluation. Give more prompts or another fraction; near-duplicates "
            "stay together."
        )
    assert_disjoint(attribution, evaluation)
    return attribution, evaluation


def assert_disjoint(attribution: Sequence[Json], evaluation: Sequence[Json]) -> None:
    """Make sure that no evaluation prompt is, or nearly is, an attribution prompt.

    Args:
        attribution: rows ``{id, text}``.
        evaluation: rows ``{id, text}``.

    Raises:
        ExciseError: some are; the message quotes up to three.
    """
    rows = [*attribution, *evaluation]
    border = len(attribution)
    shared = {row["id"] for row in attribution} & {row["id"] for row in evaluation}
    found = [f"{row['id']} {row['text'][:60]!r}" for row in evaluation if row["id"] in shared]
    like = {j: i for i, j in near_duplicates([row["text"] for row in rows]) if i < border <= j}
    for index, other in sorted(like.items()):
        if rows[index]["id"] not in shared:
            texts = rows[index]["text"][:60], rows[other]["text"][:60]
            found.append(f"{rows[index]['id']} {texts[0]!r} (like {rows[other]['id']} {texts[1]!r})")
    if found:
        raise ExciseError(
            f"{len(found)} evaluation prompts are, or nearly are, attribution prompts: {'; '.join(found[:3])}. A "
            "result on them would say nothing about unseen prompts; make both parts with excise split-prompts."
        )
