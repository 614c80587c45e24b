"""Tasks whose circuits are well studied, written as pairs of prompts in the tokens of the model at hand.

Every word that is filled in is one token, with the space before it, in the model's own tokenizer; words that are not
are left out. So all pairs of one template have one length.

============  ===========================================================  =====================================
task          clean prompt, answer                                         corrupted prompt
============  ===========================================================  =====================================
ioi           When A and B went to the shop, B gave a book to -> A         ``flip``: the last B is A;
              (Wang et al. 2022, arXiv:2211.00593)                         ``abc``: three other names
greater-than  The war lasted from the year 1741 to the year 17 -> > 41     the first year ends in 01 (or 0.)
              (Hanna et al. 2023, arXiv:2305.00586)
pronouns      So Mary is a really good friend, isn't -> she                a name of the other gender
              (after Mathwin et al. 2023)
induction     x A B y C D z A -> B                                         B and D have changed places
              (Olsson et al. 2022, arXiv:2209.11895)
docstring     def f(self, a, b, C, D, e), a line ``:param C: ...``,         another word in the place of D
              ``:param`` -> D (after Heimersheim and Janiak 2023)
============  ===========================================================  =====================================
"""

# ruff: noqa: SIM905 (a line of words reads better than a list of them)

import random
from collections.abc import Callable, Iterator, Sequence

from excise.data.pairs import TextPair, Tokenise
from excise.errors import ExciseError, unknown

IOI_TEMPLATES = (
    "When{first} and{second} went to the{place},{giver} gave a{thing} to",
    "After{first} and{second} met at the{place},{giver} handed a{thing} to",
    "While{first} and{second} were waiting at the{place},{giver} passed a{thing} to",
    "Then{first} and{second} had a long talk at the{place}, and{giver} showed a{thing} to",
    "Before{first} and{second} left the{place} together,{giver} offered a{thing} to",
    "Yesterday{first} and{second} were at the{place}. In the evening{giver} brought a{thing} to",
)
GREATER_TEMPLATES = (
    "The{event} lasted from the year {century}{year} to the year {century}",
    "The{event} began in the year {century}{year} and ended in the year {century}",
    "The{event} that started in {century}{year} was over by the year {century}",
    "From {century}{year} the{event} went on for years, until it ended in {century}",
)
PRONOUN_TEMPLATES = (
    "So{name} is a really good friend, isn't",
    "I asked{name} about the plan, but",
    "Everyone likes{name}, because",
    "Today{name} stayed at home because",
)
WOMEN = "Mary Sarah Emma Anna Alice Lisa Jane Susan Laura Karen Rachel Helen Amy Julia Kate Linda".split()
MEN = "John Tom James David Michael Robert Peter Paul Mark Daniel Andrew Richard Steven Kevin Brian Eric".split()
PLACES = "store park school garden library station office house restaurant hospital market museum".split()
THINGS = "book drink letter ring ball gift picture phone cup key bag map".split()
EVENTS = "war work project trip conflict program journey study battle voyage campaign expedition".split()
WORDS = (
    "tree lamp river stone paper bread cloud horse table glass music winter garden silver window dream apple bridge "
    "candle forest island mirror needle ocean pencil rabbit shadow ticket village water"
).split()

Words = Callable[[Sequence[str]], list[str]]
"""Keeps the words that are one token after a space, with that space."""


def one_token_words(tokenise: Tokenise) -> Words:
    """Which words are one token after a space, by the model's own tokenizer."""
    bare = tokenise("x")

    def keep(words: Sequence[str]) -> list[str]:
        return [f" {word}" for word in words if len(tokenise(f"x {word}")) == len(bare) + 1]

    return keep


def _ioi(words: Words, _: Tokenise, corruption: str, rng: random.Random) -> Iterator[TextPair]:
    names, places, things = (_enough(words(all_), 6) for all_ in (WOMEN + MEN, PLACES, THINGS))
    while True:
        for template in IOI_TEMPLATES:
            for order in ("ABBA", "BABA"):
                receiver, giver, *others = rng.sample(names, 5)
                place, thing = rng.choice(places), rng.choice(things)

                def sentence(
                    receiver: str,
                    giver: str,
                    last: str,
                    template: str = template,
                    order: str = order,
                    filled: tuple[str, str] = (place, thing),
                ) -> str:
                    first, second = (receiver, giver) if order == "ABBA" else (giver, receiver)
                    return template.format(first=first, second=second, giver=last, place=filled[0], thing=filled[1])

                last = (receiver, giver, receiver) if corruption == "flip" else (others[0], others[1], others[2])
                corrupted = sentence(*last)
                yield TextPair(sentence(receiver, giver, giver), corrupted, (receiver,), (giver,), template, order)


def _greater(words: Words, tokenise: Tokenise, _: str, rng: random.Random) -> Iterator[TextPair]:
    events = _enough(words(EVENTS), 3)
    digits = _digits_per_token(tokenise)
    while True:
        for template in GREATER_TEMPLATES:
            century, year = rng.randint(11, 17), rng.randint(12, 88)
            event = rng.choice(events)
            clean, corrupted = (
                template.format(event=event, century=century, year=f"{given:02}") for given in (year, year % 10 or 1)
            )
            if digits == 2:
                answers = tuple(f"{n:02}" for n in range(year + 1, 100))
                wrong = tuple(f"{n:02}" for n in range(2, year + 1))
                corrupted = template.format(event=event, century=century, year="01")
            else:  # the next token is the tens digit; the same digit decides nothing
                answers = tuple(str(n) for n in range(year // 10 + 1, 10))
                wrong = tuple(str(n) for n in range(year // 10))
            yield TextPair(clean, corrupted, answers, wrong, template, f"{century}")


def _digits_per_token(tokenise: Tokenise) -> int:
    """1 or 2: how many digits the token after a century of a year has."""
    century, year = tokenise("the year 17"), tokenise("the year 1745")
    for digits in (2, 1):
        if year[: len(century)] == century and len(year) - len(century) == 2 // digits:
            return digits
    raise ExciseError(
        "greater-than: this tokenizer writes the year 1745 neither as 17|45 nor digit by digit, so that the answer is "
        "not one token. Use another task, or pairs of your own (--texts)."
    )


def _pronouns(words: Words, _: Tokenise, __: str, rng: random.Random) -> Iterator[TextPair]:
    genders = {" she": _enough(words(WOMEN), 4), " he": _enough(words(MEN), 4)}
    while True:
        for template in PRONOUN_TEMPLATES:
            for right, wrong in ((" she", " he"), (" he", " she")):
                clean, corrupted = (template.format(name=rng.choice(genders[pronoun])) for pronoun in (right, wrong))
                yield TextPair(clean, corrupted, (right,), (wrong,), template, right.strip())


def _induction(words: Words, _: Tokenise, __: str, rng: random.Random) -> Iterator[TextPair]:
    known = _enough(words(WORDS), 12)
    while True:
        for between in (1, 2, 3, 4):
            first, answer, other, wrong, *filler = rng.sample(known, 4 + 3 * between)
            parts = [filler[place::3] for place in range(3)]
            both = (
                "".join([*parts[0], first, b, *parts[1], other, d, *parts[2], first]).strip()
                for b, d in ((answer, wrong), (wrong, answer))
            )
            yield TextPair(next(both), next(both), (answer,), (wrong,), f"{between} words between", "")


def _docstring(words: Words, _: Tokenise, __: str, rng: random.Random) -> Iterator[TextPair]:
    known = _enough(words(WORDS), 18)
    while True:
        for documented in (1, 2):
            for described in (1, 2):
                wrong, name, *filled = rng.sample(known, 9 + documented + documented * described)
                (*arguments, answer, last), rest = filled[: 4 + documented], filled[4 + documented :]
                title, descriptions = "".join(rest[:3]), rest[3:]
                lines = [
                    f"    :param{argument}:{''.join(descriptions[described * place : described * (place + 1)])}\n"
                    for place, argument in enumerate(arguments[2:])
                ]
                body = f':\n    """{title}\n\n{"".join(lines)}    :param'
                clean, corrupted = (
                    f"def{name}(self,{','.join([*arguments, given, last])}){body}" for given in (answer, wrong)
                )
                template = f"{documented} documented in {described} words"
                yield TextPair(clean, corrupted, (answer,), (wrong,), template, "")


TASKS: dict[str, Callable[[Words, Tokenise, str, random.Random], Iterator[TextPair]]] = {
    "ioi": _ioi,
    "greater-than": _greater,
    "pronouns": _pronouns,
    "induction": _induction,
    "docstring": _docstring,
}
"""Each yields pairs without end, template after template."""

CORRUPTIONS = {"ioi": ("flip", "abc")}
"""By task, the default first; the other tasks have one."""

_TRIES = 10
"""Candidates drawn per pair asked for; where words are few, many come twice."""


def _enough(words: list[str], least: int) -> list[str]:
    if len(words) < least:
        raise ExciseError(
            f"only {len(words)} of the words of this task are one token in this model's tokenizer; at least {least} "
            "are needed. Use pairs of your own (--texts)."
        )
    return words


def candidates(task: str, corruption: str | None, tokenise: Tokenise, *, count: int, seed: int) -> list[TextPair]:
    """Distinct pairs of a task, many more than are asked for.

    Args:
        task: one of ``TASKS``.
        corruption: one of the task's ``CORRUPTIONS``; None for the default.
        tokenise: the model's tokenizer.
        count: pairs that will be drawn from these, in all.
        seed: seed of the draw.

    Raises:
        ExciseError: there is no such task or corruption, or the tokenizer splits the task's words.
    """
    if task not in TASKS:
        raise unknown("task", task, TASKS, where="--task")
    allowed = CORRUPTIONS.get(task, ())
    if corruption is not None and corruption not in allowed:
        raise unknown("corruption", corruption, allowed or ["none: this task has one"], where="--corruption")
    made = TASKS[task](one_token_words(tokenise), tokenise, corruption or next(iter(allowed), ""), random.Random(seed))  # noqa: S311
    found = {(pair.clean, pair.corrupted): pair for pair, _ in zip(made, range(_TRIES * count), strict=False)}
    return list(found.values())
