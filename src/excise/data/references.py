"""Reference sets: the samples that attribution looks at, as rows ``{id, input_ids, target_start}``.

``input_ids[target_start:]`` is the continuation, which the tokens before it are to explain.
"""

import math
import random
from collections.abc import Callable, Iterable, Sequence

from excise.artefacts import Json
from excise.data.prompts import prompt_id, seeded_order
from excise.data.texts import field_text
from excise.errors import ExciseError, unknown

Tokenise = Callable[[str], list[int]]
TokenisePlaced = Callable[[str, str], list[int]]

SPANS = ("generation", "onset")
"""What of an answer is to be explained."""


def check_counts(count: int | None, minimum: int | None) -> int:
    """The least number of samples: ``minimum``, by default ``count``; 1 where there is neither.

    Raises:
        ExciseError: a number is out of range.
    """
    if count is not None and count < 1:
        raise ExciseError(f"--count {count}: must be at least 1, or all")
    if minimum is not None and not 1 <= minimum <= (count or minimum):
        raise ExciseError(f"--minimum {minimum}: must be at least 1 and at most --count {count}")
    return minimum or count or 1


def drawn(rows: Sequence[Json], *, count: int | None, seed: int) -> list[Json]:
    """At most ``count`` rows, drawn at random without replacement where there are more; None: all; sorted by id."""
    kept = set(seeded_order((row["id"] for row in rows), seed)[:count])
    return sorted((row for row in rows if row["id"] in kept), key=lambda row: row["id"])


def matched(generations: Sequence[Json], scores: Sequence[Json]) -> list[tuple[Json, Json]]:
    """Each generation with the row of its score, matched on (id, draw).

    Raises:
        ExciseError: a pair occurs twice, has no score or no generation, or a score is not a finite number.
    """
    by_pair: dict[tuple[str, int], Json] = {}
    for row in scores:
        pair = (row["id"], row["draw"])
        if pair in by_pair:
            raise ExciseError(f"scores: prompt {pair[0]}, draw {pair[1]} is scored twice")
        if not isinstance(row["score"], int | float) or not math.isfinite(row["score"]):
            raise ExciseError(f"scores: prompt {pair[0]}, draw {pair[1]}: {row['score']!r} is not a finite number")
        by_pair[pair] = row
    result = []
    for row in generations:
        pair = (row["id"], row["draw"])
        if pair not in by_pair:
            raise ExciseError(
                f"prompt {pair[0]}, draw {pair[1]} has no score, or its generation occurs twice; score this generation "
                "file with excise score"
            )
        result.append((row, by_pair.pop(pair)))
    if by_pair:
        name, draw = next(iter(by_pair))
        raise ExciseError(
            f"{len(by_pair)} scores belong to no generation (first: prompt {name}, draw {draw}); "
            "the score file was made for another generation file"
        )
    return result


def permuted_scores(pairs: Sequence[tuple[Json, Json]], seed: int) -> list[tuple[Json, Json]]:
    """The same generations and the same scores, dealt anew."""
    scores = [scored for _, scored in pairs]
    random.Random(f"permuted {seed}").shuffle(scores)  # noqa: S311 (not for secrets)
    return [(row, scored) for (row, _), scored in zip(pairs, scores, strict=True)]


def generation_rows(
    generations: Sequence[Json],
    scores: Sequence[Json],
    *,
    at_least: float | None,
    below: float | None,
    count: int | None,
    minimum: int | None,
    seed: int,
    span: str = "generation",
    permuted: bool = False,
) -> tuple[list[Json], Json]:
    """The model's own answers that score high enough, or low enough.

    Args:
        generations: rows ``{id, draw, prompt_ids, completion, completion_ids}``.
        scores: rows ``{id, draw, score, onset?}``.
        at_least: keep answers scored at or above this; or
        below: keep answers scored below this.
        count: most samples; where more are found, so many are drawn. None takes all.
        minimum: fewer than this is an error; None asks for ``count``.
        seed: of the drawing.
        span: what is to be explained: ``generation``, all tokens of the answer; or ``onset``, the one token at which it
            begins to show the behaviour (``excise.evaluation.onset``): what follows it is cut off.
        permuted: deal the scores and their onsets anew among the generations first, as a control: as many samples, of
            which none was picked for what it shows. An onset beyond the end of its new generation is its last token.

    Returns:
        Rows ``{id, input_ids, target_start, score}`` with id ``PROMPT:DRAW``, sorted by it; and how many answers
        there were, were empty (these are dropped), passed the threshold, and were used.

    Raises:
        ExciseError: too few answers pass, scores and generations do not belong together, or an onset is not known.
    """
    minimum = check_counts(count, minimum)
    if span not in SPANS:
        raise unknown("span", span, SPANS, where="--span")
    if (at_least is None) == (below is None):
        raise ExciseError("give --at-least or --below, one of them")
    pairs = [
        (row, scored)
        for row, scored in matched(generations, scores)
        if row["completion_ids"] and row["completion"].strip()
    ]
    found = [
        _sample(row, scored, span)
        for row, scored in (permuted_scores(pairs, seed) if permuted else pairs)
        if (scored["score"] >= at_least if at_least is not None else scored["score"] < below)
    ]
    facts = {"generations": len(generations), "empty": len(generations) - len(pairs), "found": len(found)}
    if len(found) < minimum:
        values = [float(scored["score"]) for _, scored in pairs]
        raise _too_few(facts, values, at_least=at_least, below=below, minimum=minimum)
    rows = drawn(found, count=count, seed=seed)
    return rows, {**facts, "used": len(rows)}


def _sample(row: Json, scored: Json, span: str) -> Json:
    """The row of a reference set that a generation makes.

    Raises:
        ExciseError: the onset is asked for and not known.
    """
    start, answer = len(row["prompt_ids"]), row["completion_ids"]
    if span == "onset":
        if "onset" not in scored:
            raise ExciseError(
                f"prompt {row['id']}, draw {row['draw']}: its score carries no onset. Score the answers with "
                "excise score --onset-at, at a threshold no higher than --at-least."
            )
        onset = min(scored["onset"], len(answer) - 1)
        start, answer = start + onset, answer[: onset + 1]
    return {
        "id": f"{row['id']}:{row['draw']}",
        "input_ids": [*row["prompt_ids"], *answer],
        "target_start": start,
        "score": float(scored["score"]),
    }


def _too_few(
    facts: Json, values: Sequence[float], *, at_least: float | None, below: float | None, minimum: int
) -> ExciseError:
    """What to say where fewer generations than ``minimum`` pass the threshold, and how to mend it."""
    high = at_least is not None
    threshold = f"at or above {at_least}" if high else f"below {below}"
    extreme = f" The {'highest' if high else 'lowest'} score is {(max if high else min)(values):.4g}." if values else ""
    return ExciseError(
        f"{facts['found']} of {facts['generations']} generations score {threshold} ({facts['empty']} empty ones left "
        f"out); at least {minimum} are needed.{extreme} Draw more generations per prompt, give more prompts, "
        f"{'lower --at-least' if high else 'raise --below'}, or lower --minimum (and know that fewer samples make "
        "the scores noisier)."
    )


def window_rows(
    documents: Sequence[Json], tokenise: Tokenise, *, windows: int, seqlen: int, seed: int
) -> tuple[list[Json], Json]:
    """Windows of a text: SparseGPT's and Wanda's protocol for C4, for any corpus.

    A document is drawn, with replacement, among those of more than ``seqlen`` tokens, and in it an offset; a window
    whose tokens were drawn already is drawn again. Documents are tokenised when they are first drawn. A corpus of one
    document is cut into a grid of windows with a random phase, and cells of the grid are drawn: its windows never
    overlap.

    Args:
        documents: rows ``{id, text}``.
        tokenise: text -> token ids, special tokens as the tokenizer sets them.
        windows: how many.
        seqlen: tokens per window.
        seed: of the drawing.

    Returns:
        Rows ``{id, input_ids, target_start}`` with id ``DOCUMENT:OFFSET`` and target_start 1, in the order drawn; and
        how many documents were used.

    Raises:
        ExciseError: the corpus is too short.
    """
    if windows < 1:
        raise ExciseError(f"--windows {windows}: must be at least 1")
    if seqlen < 2:
        raise ExciseError(f"--seqlen {seqlen}: must be at least 2, a continuation needs a token before it")
    generator = random.Random(seed)  # noqa: S311 (not for secrets)
    if len(documents) == 1:
        ids = tokenise(documents[0]["text"])
        return _grid(documents[0]["id"], ids, windows=windows, seqlen=seqlen, generator=generator), {"documents": 1}
    rows = _windows(documents, tokenise, windows=windows, seqlen=seqlen, generator=generator)
    return rows, {"documents": len({row["id"].rpartition(":")[0] for row in rows})}


def _windows(
    documents: Sequence[Json], tokenise: Tokenise, *, windows: int, seqlen: int, generator: random.Random
) -> list[Json]:
    """Different windows: a document is drawn, then an offset in it.

    Raises:
        ExciseError: there are too few.
    """
    open_documents = list(range(len(documents)))
    tokens: dict[int, list[int]] = {}
    used: dict[int, set[int]] = {}
    rows: list[Json] = []
    drawn_already: set[tuple[int, ...]] = set()
    short = 0
    while len(rows) < windows:
        if not open_documents:
            raise ExciseError(
                f"the text has {len(documents)} documents, of which {len(documents) - short} have more than {seqlen} "
                f"tokens; they give {len(rows)} different windows, {windows} are needed. The longest has "
                f"{max(map(len, tokens.values()), default=0)} tokens. Use fewer or shorter windows (--windows, "
                "--seqlen) or more text."
            )
        place = generator.randrange(len(open_documents))
        document = open_documents[place]
        if document not in tokens:
            tokens[document] = tokenise(documents[document]["text"])
            used[document] = set()
        ids, offsets = tokens[document], used[document]
        choices = len(ids) - seqlen  # as in Wanda, where the very last window is never drawn
        if len(offsets) >= choices:
            short += choices <= 0
            open_documents[place] = open_documents[-1]
            open_documents.pop()
            continue
        offset = generator.randrange(choices)
        if offset in offsets:
            continue
        offsets.add(offset)
        window = _window(documents[document]["id"], ids, offset, seqlen)
        if tuple(window["input_ids"]) not in drawn_already:
            drawn_already.add(tuple(window["input_ids"]))
            rows.append(window)
    return rows


def _grid(name: str, ids: list[int], *, windows: int, seqlen: int, generator: random.Random) -> list[Json]:
    needed = windows * seqlen
    if len(ids) < needed:
        raise ExciseError(
            f"the text has {len(ids)} tokens; {windows} windows of {seqlen} need {needed}. Use fewer or shorter "
            "windows (--windows, --seqlen) or more text."
        )
    phase = generator.randrange(min(seqlen, len(ids) - needed + 1))
    cells = (len(ids) - phase) // seqlen
    distinct: dict[tuple[int, ...], Json] = {}
    for cell in generator.sample(range(cells), cells):
        window = _window(name, ids, phase + cell * seqlen, seqlen)
        distinct.setdefault(tuple(window["input_ids"]), window)
        if len(distinct) == windows:
            return list(distinct.values())
    raise ExciseError(
        f"the text repeats itself: it has {len(distinct)} different windows of {seqlen} tokens on a grid, "
        f"{windows} are needed. Use fewer or longer windows (--windows, --seqlen) or more text."
    )


def _window(name: str, ids: list[int], offset: int, seqlen: int) -> Json:
    return {"id": f"{name}:{offset}", "input_ids": ids[offset : offset + seqlen], "target_start": 1}


def file_rows(
    records: Iterable[tuple[str, Json]],
    tokenise: TokenisePlaced,
    continue_with: TokenisePlaced,
    *,
    count: int | None,
    minimum: int | None,
    seed: int,
) -> tuple[list[Json], Json]:
    """Ready-made samples: records with a prompt and its continuation, tokenised one after the other.

    Args:
        records: (place in the file, record with ``prompt`` and ``continuation``: strings, or objects with ``text``).
        tokenise: (prompt, place in the file) -> token ids, special tokens as the tokenizer sets them.
        continue_with: the same of a continuation, without special tokens.
        count: most samples; where more are found, so many are drawn. None takes all.
        minimum: fewer than this is an error; None asks for ``count``.
        seed: of the drawing.

    Returns:
        Rows ``{id, input_ids, target_start}``, sorted by id; and counts.

    Raises:
        ExciseError: a record lacks one of the two or is a repetition, or there are too few.
    """
    minimum = check_counts(count, minimum)
    places: dict[str, str] = {}
    rows: list[Json] = []
    for where, record in records:
        prompt, continuation = field_text(where, record, "prompt"), field_text(where, record, "continuation")
        before, after = tokenise(prompt, where), continue_with(continuation, where)
        if not before or not after:
            raise ExciseError(f"{where}: the {'continuation' if before else 'prompt'} is empty")
        name = prompt_id(f"{prompt}\0{continuation}")
        if name in places:
            raise ExciseError(f"{where}: the same prompt and continuation as {places[name]}; remove one of them")
        places[name] = where
        rows.append({"id": name, "input_ids": [*before, *after], "target_start": len(before)})
    if len(rows) < minimum:
        raise ExciseError(f"{len(rows)} samples in the file, at least {minimum} are needed: lower --count or --minimum")
    used = drawn(rows, count=count, seed=seed)
    return used, {"found": len(rows), "used": len(used)}
