"""Pairs of prompts that differ in what decides the answer: what circuits are found and judged on.

A pair is a *clean* prompt with its answers, and a *corrupted* prompt of the same length in which what the task depends
on is changed. Rows: ``{id, clean_ids, corrupt_ids, answers, wrong, template, group}``; all ids are tokens of one
model. The answer is the token after the last one of the prompt; where several tokens are right, or wrong, all count.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from excise.artefacts import Json, read_jsonl
from excise.data.prompts import prompt_id, seeded_order
from excise.errors import ExciseError
from excise.models.loading import max_positions

Tokenise = Callable[[str], list[int]]
"""From a text to its tokens, special tokens included as the model's tokenizer adds them."""

HALVES = ("find", "judge")
"""``find``: scores come from these pairs; ``judge``: what they chose is measured on these. They share no pair."""


@dataclass(frozen=True)
class Pair:
    """One pair, in tokens.

    Attributes:
        id: depends on the tokens alone.
        clean_ids: tokens of the clean prompt.
        corrupt_ids: tokens of the corrupted prompt, as many.
        answers: tokens of which each is a right answer to the clean prompt.
        wrong: tokens of which each is a wrong one.
        template: the sentence that the prompt was made from.
        group: what divides the pairs of one template, such as the order of the names.
    """

    id: str
    clean_ids: tuple[int, ...]
    corrupt_ids: tuple[int, ...]
    answers: tuple[int, ...]
    wrong: tuple[int, ...]
    template: str
    group: str

    @property
    def first_difference(self) -> int:
        """First position at which the two prompts differ."""
        both = zip(self.clean_ids, self.corrupt_ids, strict=True)
        return next(position for position, (clean, corrupt) in enumerate(both) if clean != corrupt)


@dataclass(frozen=True)
class TextPair:
    """One pair as text. ``answers`` and ``wrong`` continue the prompt, with the space before them."""

    clean: str
    corrupted: str
    answers: tuple[str, ...]
    wrong: tuple[str, ...]
    template: str = ""
    group: str = ""


def tokenised(pair: TextPair, tokenise: Tokenise, where: str) -> Pair:
    """A pair in tokens.

    Args:
        pair: the texts.
        tokenise: the model's tokenizer.
        where: words that name the pair in messages.

    Raises:
        ExciseError: the prompts have different numbers of tokens or are equal, an answer is not one token, or only some
            begin with a space.
    """
    clean, corrupt = tokenise(pair.clean), tokenise(pair.corrupted)
    if len(clean) != len(corrupt):
        raise ExciseError(
            f"{where}: the clean prompt has {len(clean)} tokens, the corrupted one {len(corrupt)}. Positions of a pair "
            "must correspond: change words of the same number of tokens (names with the space before them)."
        )
    if len({text.startswith(" ") for text in (*pair.answers, *pair.wrong)}) > 1:
        raise ExciseError(
            f"{where}: some of the answers {[*pair.answers, *pair.wrong]} begin with a space and some do not: they are "
            "different tokens. Write all of them as they continue the prompt."
        )
    answers, wrong = (
        tuple(_one_token(pair.clean, clean, text, tokenise, where) for text in texts)
        for texts in (pair.answers, pair.wrong)
    )
    return checked(
        {
            "id": prompt_id(f"{pair.clean}\0{pair.corrupted}"),
            "clean_ids": clean,
            "corrupt_ids": corrupt,
            "answers": answers,
            "wrong": wrong,
            "template": pair.template,
            "group": pair.group,
        },
        where,
    )


def _one_token(prompt: str, ids: list[int], answer: str, tokenise: Tokenise, where: str) -> int:
    """The token that ``answer`` adds to a prompt."""
    whole = tokenise(prompt + answer)
    if len(whole) != len(ids) + 1 or whole[:-1] != ids:
        said = (
            f"{len(whole) - len(ids)} tokens" if whole[: len(ids)] == ids else "tokens that change those of the prompt"
        )
        hint = "" if answer.startswith(" ") else f" Should it be {' ' + answer!r}, with the space before it?"
        raise ExciseError(f"{where}: the answer {answer!r} is {said} after the prompt; it must be exactly one.{hint}")
    return whole[-1]


def checked(row: Json, where: str, vocabulary: int | None = None) -> Pair:
    """A row as a pair.

    Raises:
        ExciseError: an entry has the wrong type, a token is not of the vocabulary, the prompts differ in length or in
            nothing, or the answers and the wrong answers overlap or lack one.
    """
    lists = {name: row[name] for name in ("clean_ids", "corrupt_ids", "answers", "wrong")}
    for name, ids in lists.items():
        if not isinstance(ids, list | tuple) or not ids or not all(type(token) is int and token >= 0 for token in ids):
            raise ExciseError(f"{where}: {name} must be a list of token ids with at least one in it, not {ids!r}")
        if vocabulary is not None and max(ids) >= vocabulary:
            raise ExciseError(
                f"{where}: {name} has token {max(ids)}, but this model has {vocabulary}: the pairs were made for "
                "another model. Make them again with excise pairs."
            )
    clean, corrupt, answers, wrong = (tuple(ids) for ids in lists.values())
    if len(clean) != len(corrupt):
        raise ExciseError(f"{where}: {len(clean)} clean and {len(corrupt)} corrupted tokens; they must be as many")
    if clean == corrupt:
        raise ExciseError(f"{where}: the clean and the corrupted prompt are the same: there is nothing to patch")
    if both := set(answers) & set(wrong):
        raise ExciseError(f"{where}: token {min(both)} is a right and a wrong answer")
    return Pair(str(row["id"]), clean, corrupt, answers, wrong, str(row["template"]), str(row["group"]))


def read_texts(path: str | Path) -> list[TextPair]:
    """A user's pairs: rows ``{clean, corrupted, answers, wrong}`` of text, and ``template`` and ``group`` if they like.

    ``answers`` and ``wrong`` are a text or a list of texts.

    Raises:
        ExciseError: an entry is missing or no text.
    """
    _, rows = read_jsonl(path, required=("clean", "corrupted", "answers", "wrong"))
    if not rows:
        raise ExciseError(f"{path}: no pairs in it")
    pairs = []
    for number, row in enumerate(rows, 1):
        lists = {name: [row[name]] if isinstance(row[name], str) else row[name] for name in ("answers", "wrong")}
        texts = [row["clean"], row["corrupted"], row.get("template", ""), row.get("group", "")]
        if not all(isinstance(given, list) for given in lists.values()) or not all(
            isinstance(text, str) for text in (*texts, *lists["answers"], *lists["wrong"])
        ):
            raise ExciseError(
                f"{path}: pair {number}: clean and corrupted must be text, answers and wrong a text or a list of texts"
            )
        pairs.append(TextPair(texts[0], texts[1], tuple(lists["answers"]), tuple(lists["wrong"]), texts[2], texts[3]))
    return pairs


def split(pairs: Sequence[Pair], *, count: int, seed: int, by_template: bool) -> dict[str, list[Pair]]:
    """Two halves of ``count`` pairs each that share no pair, no prompt, and, if asked, no template.

    Both halves hold as many pairs of each template as the other templates allow (drawn in turn, template by template).

    Args:
        pairs: what to draw from.
        count: pairs per half.
        seed: seed of the draw.
        by_template: no template is in both halves.

    Raises:
        ExciseError: there are not enough pairs, or fewer than two templates to divide.
    """
    by_id = {pair.id: pair for pair in pairs}
    queues: dict[str, list[Pair]] = {}
    for name in seeded_order(by_id, seed):
        queues.setdefault(by_id[name].template, []).append(by_id[name])
    templates = sorted(queues)
    if by_template and len(templates) < 2:
        raise ExciseError("--disjoint templates: there is one template; two halves need at least two")
    shares = {half: templates[place::2] if by_template else templates for place, half in enumerate(HALVES)}
    halves: dict[str, list[Pair]] = {}
    prompts: set[tuple[int, ...]] = set()
    for half, names in shares.items():
        halves[half] = _in_turn(queues, names, count, prompts)
        if len(halves[half]) < count:
            raise ExciseError(
                f"{len(halves[half])} pairs for the {half} half, fewer than {count}: "
                f"{len(by_id)} distinct pairs of {len(templates)} templates are not enough. Ask for fewer."
            )
        prompts |= {ids for pair in halves[half] for ids in (pair.clean_ids, pair.corrupt_ids)}
    return halves


def _in_turn(
    queues: dict[str, list[Pair]], names: Iterable[str], count: int, refused: set[tuple[int, ...]]
) -> list[Pair]:
    """Take one pair of each template in turn; a pair with a refused prompt is dropped."""
    found: list[Pair] = []
    names = list(names)
    while len(found) < count and any(queues[name] for name in names):
        for name in names:
            while len(found) < count and queues[name]:
                pair = queues[name].pop(0)
                if pair.clean_ids not in refused and pair.corrupt_ids not in refused:
                    found.append(pair)
                    break
    return sorted(found, key=lambda pair: pair.id)


def rows(pairs: Iterable[Pair]) -> list[Json]:
    """Pairs as rows of a JSONL file."""
    return [asdict(pair) for pair in pairs]


def read_pairs(path: str | Path, config: Any) -> tuple[Json, list[Pair]]:
    """Read pairs and check them against a model.

    Args:
        path: JSONL, as ``excise pairs`` writes it.
        config: the model's configuration.

    Raises:
        ExciseError: there are none, an id occurs twice, or a pair does not fit the model; names the pair.
    """
    meta, found = read_jsonl(path, required=tuple(Pair.__dataclass_fields__))
    if not found:
        raise ExciseError(f"{path}: no pairs in it")
    limit = max_positions(config)
    pairs, seen = [], set()
    for row in found:
        where = f"{path}: pair {row['id']!r}"
        pair = checked(row, where, config.vocab_size)
        if pair.id in seen:
            raise ExciseError(f"{where} occurs twice; ids must be unique")
        if limit is not None and len(pair.clean_ids) > limit:
            raise ExciseError(f"{where} has {len(pair.clean_ids)} tokens; this model has positions for {limit}")
        seen.add(pair.id)
        pairs.append(pair)
    return meta, pairs
