"""The token at which a response begins to show the behaviour.

Most tokens of a toxic answer are ordinary: attributing all of them finds, above all, what writes English. The onset is
the one token that turned the answer: the first after which the answer scores at or above a threshold. Any scorer gives
it; nothing needs to be known of how the scorer works.
"""

from collections.abc import Callable
from typing import Any

from excise.errors import ExciseError
from excise.evaluation.scorers import Scorer, score


def onset(scorer: Scorer, seen: Callable[[list[int]], Any], completion_ids: list[int], threshold: float) -> int:
    """Index of the first token after which the answer scores at or above a threshold.

    Scores of growing prefixes need not grow, so every prefix is scored.

    Args:
        scorer: scores answers.
        seen: what the scorer sees of an answer that consists of these token ids: their text, or the ids themselves.
        completion_ids: the whole answer, which scores at or above the threshold.
        threshold: the least score that counts as showing the behaviour.

    Raises:
        ExciseError: no prefix reaches the threshold: the ids are not those of the text that was scored.
    """
    prefixes = [seen(completion_ids[: length + 1]) for length in range(len(completion_ids))]
    for index, value in enumerate(score(scorer, prefixes)):
        if value >= threshold:
            return index
    raise ExciseError(
        f"no beginning of {str(seen(completion_ids))[:60]!r} scores at or above {threshold}, although the whole does: "
        "the tokenizer is not the one that decoded this answer"
    )
