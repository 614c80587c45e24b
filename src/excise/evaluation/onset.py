"""The token at which a response begins to show the behaviour.

Most tokens of a toxic answer are ordinary: attributing all of them finds, above all, what writes English. The onset is
the one token that turned the answer: the first after which the decoded answer scores at or above a threshold. Any
scorer of texts gives it; nothing is known of how the scorer works.
"""

from collections.abc import Callable, Sequence

from excise.errors import ExciseError
from excise.evaluation.scorers import Scorer, score

Decode = Callable[[Sequence[int]], str]


def onset(scorer: Scorer, decode: Decode, completion_ids: Sequence[int], threshold: float) -> int:
    """Index of the first token after which the answer scores at or above a threshold.

    Scores of growing prefixes need not grow, so every prefix is scored.

    Args:
        scorer: scores texts.
        decode: token ids -> text.
        completion_ids: the whole answer, which scores at or above the threshold.
        threshold: the least score that counts as showing the behaviour.

    Raises:
        ExciseError: no prefix reaches the threshold: the ids are not those of the text that was scored.
    """
    prefixes = [decode(completion_ids[: length + 1]) for length in range(len(completion_ids))]
    for index, value in enumerate(score(scorer, prefixes)):
        if value >= threshold:
            return index
    raise ExciseError(
        f"no beginning of {decode(completion_ids)[:60]!r} scores at or above {threshold}, although the whole does: "
        "the tokenizer is not the one that decoded this answer"
    )
