"""Continue prompts: batched sampling in which a batch is never anything but a matter of speed.

Prompts are padded on the left and read once; their keys and values are copied to all draws. Only the logits of the
last position are computed. A continuation ends at an end-of-sequence token (which is not part of it) or at the
length asked for.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from excise.config.generations import SeededSampling
from excise.errors import ExciseError
from excise.evaluation.likelihood import NOT_FINITE_HINT, head, last_hidden
from excise.evaluation.sampling import Words, sample, stream
from excise.models.loading import input_device
from excise.models.unpatched import assert_unpatched


class Prefix(NamedTuple):
    """Prompts that the model has read.

    Attributes:
        logits: of the token after each prompt, ``[prompts, vocabulary]``.
        cache: keys and values.
        mask: 1 where there is a token, 0 in the padding on the left, ``[prompts, positions]``.
    """

    logits: Tensor
    cache: Any
    mask: Tensor

    def expanded(self, rows: Tensor) -> "Prefix":
        """The prefix with row ``i`` a copy of prompt ``rows[i]``, on the CPU; the old cache must not be used again.

        The layers of a model that is spread lie on several devices, and an index on the CPU fits each.
        """
        self.cache.batch_select_indices(rows)
        return Prefix(self.logits[rows], self.cache, self.mask[rows])


def batches(lengths: Sequence[int], num_generations: int, batch_size: int) -> list[list[tuple[int, int]]]:
    """Cut all (prompt, draw) pairs into batches of prompts of similar length.

    Args:
        lengths: tokens of each prompt.
        num_generations: continuations per prompt.
        batch_size: continuations per batch.

    Returns:
        Batches of pairs (index of the prompt, draw), short prompts first.
    """
    if batch_size < 1:
        raise ExciseError(f"--batch-size {batch_size}: must be at least 1")
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    pairs = [(index, draw) for index in order for draw in range(num_generations)]
    return [pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size)]


def prefill(model: Any, prompts: Sequence[Sequence[int]]) -> Prefix:
    """Read a batch of prompts (token ids), padded on the left."""
    from transformers import DynamicCache

    device = input_device(model)
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor(
        [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=input_device(model)
    )
    cache = DynamicCache(config=model.config)
    hidden = last_hidden(
        model,
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
    )
    return Prefix(head(model, hidden[:, -1]), cache, mask)


def end_tokens(model: Any) -> frozenset[int]:
    """Token ids that end a text, from the model's generation configuration."""
    found = model.generation_config.eos_token_id
    return frozenset([] if found is None else [found] if isinstance(found, int) else found)


def generate(
    model: Any,
    prompts: Sequence[tuple[str | int, Sequence[int]]],
    batch: Sequence[tuple[int, int]],
    sampling: SeededSampling,
) -> list[list[int]]:
    """The continuations of one batch.

    Args:
        model: a causal language model in eval mode.
        prompts: id and token ids of every prompt.
        batch: pairs (index into ``prompts``, draw).
        sampling: how to draw.

    Returns:
        Token ids of each continuation, in the order of ``batch``, without the end-of-sequence token.
    """
    assert_unpatched(model)
    ends = end_tokens(model)
    words = np.stack([stream(sampling.seed, prompts[i][0], draw, sampling.max_new_tokens) for i, draw in batch])
    needed = list(dict.fromkeys(index for index, _ in batch))
    place = {index: row for row, index in enumerate(needed)}
    continuations: list[list[int]] = [[] for _ in batch]
    with torch.inference_mode():
        prefix = prefill(model, [prompts[index][1] for index in needed])
        logits, cache, mask = prefix.expanded(torch.tensor([place[i] for i, _ in batch]))
        rows = list(range(len(batch)))  # which continuation each row of the cache belongs to
        running = set(rows)
        for step in range(sampling.max_new_tokens):
            tokens = _next(logits, words[rows, step], sampling)
            for row, token in zip(rows, tokens.tolist(), strict=True):
                if token in ends:
                    running.discard(row)
                elif row in running:
                    continuations[row].append(token)
            if not running or step + 1 == sampling.max_new_tokens:
                break
            if 4 * len(running) <= 3 * len(rows):  # copying the cache costs about as much as a step
                kept = torch.tensor([i for i, row in enumerate(rows) if row in running])
                cache.batch_select_indices(kept)
                mask, tokens = mask[kept], tokens[kept]
                rows = [row for row in rows if row in running]
            position = mask.sum(-1, keepdim=True)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], -1)
            hidden = last_hidden(
                model,
                input_ids=tokens[:, None].to(input_device(model)),
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
            )
            logits = head(model, hidden[:, -1])
    return continuations


def _next(logits: Tensor, words: Words, sampling: SeededSampling) -> Tensor:
    if sampling.greedy:
        tokens = logits.argmax(-1, keepdim=True)  # what is not a number counts as the largest
        if not torch.isfinite(logits.gather(-1, tokens)).all():
            raise ExciseError(f"the model gives logits that are not finite numbers. {NOT_FINITE_HINT}")
        return tokens[:, 0].cpu()
    return sample(logits, words, temperature=sampling.temperature, top_p=sampling.top_p)
