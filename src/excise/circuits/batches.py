"""Batches of pairs, and the runs that share what comes before the first token in which the prompts differ."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from excise.circuits.stream import Stream, Taps, logits_of
from excise.data.pairs import Pair
from excise.errors import ExciseError
from excise.models.parts import decoder_layers


@dataclass(frozen=True)
class PairBatch:
    """Pairs of one length: nothing is padded.

    Attributes:
        index: place of the batch in its set.
        ids: of the pairs.
        templates: of the pairs.
        clean: tokens ``[pairs, tokens]``.
        corrupt: tokens ``[pairs, tokens]``.
        answers: right answers of each pair, ``[pairs, most]``, filled up with -1.
        wrong: the same for the wrong ones.
        first: first position at which some pair differs.
    """

    index: int
    ids: tuple[str, ...]
    templates: tuple[str, ...]
    clean: torch.Tensor
    corrupt: torch.Tensor
    answers: torch.Tensor
    wrong: torch.Tensor
    first: int

    def to(self, device: torch.device) -> "PairBatch":
        """The same batch on another device."""
        tensors = {name: getattr(self, name).to(device) for name in ("clean", "corrupt", "answers", "wrong")}
        return PairBatch(self.index, self.ids, self.templates, **tensors, first=self.first)


def make_batches(pairs: Sequence[Pair], batch_size: int) -> list[PairBatch]:
    """Sort pairs by (length, first difference, id) and cut them into batches of one length.

    Raises:
        ExciseError: the batch size is below 1.
    """
    if batch_size < 1:
        raise ExciseError(f"--batch-size {batch_size}: must be at least 1")
    ordered = sorted(pairs, key=lambda pair: (len(pair.clean_ids), pair.first_difference, pair.id))
    groups: list[list[Pair]] = []
    for pair in ordered:
        fits = groups and len(groups[-1]) < batch_size and len(groups[-1][0].clean_ids) == len(pair.clean_ids)
        groups[-1].append(pair) if fits else groups.append([pair])
    return [_batch(index, group) for index, group in enumerate(groups)]


def _batch(index: int, pairs: Sequence[Pair]) -> PairBatch:
    def filled(lists: list[tuple[int, ...]]) -> torch.Tensor:
        most = max(map(len, lists))
        return torch.tensor([[*ids, *[-1] * (most - len(ids))] for ids in lists])

    return PairBatch(
        index=index,
        ids=tuple(pair.id for pair in pairs),
        templates=tuple(pair.template for pair in pairs),
        clean=torch.tensor([pair.clean_ids for pair in pairs]),
        corrupt=torch.tensor([pair.corrupt_ids for pair in pairs]),
        answers=filled([pair.answers for pair in pairs]),
        wrong=filled([pair.wrong for pair in pairs]),
        first=min(pair.first_difference for pair in pairs),
    )


class Prefix:
    """Keys and values of the tokens before ``start``, of every layer and query head: the same in every run.

    No token sees a later one, so what comes before the first difference of two prompts is computed once. Exact.

    Args:
        stream: the model.
        tokens: ``[pairs, tokens]``; those before ``start`` are run.
        start: first token that is not in the prefix.
    """

    def __init__(self, stream: Stream, tokens: torch.Tensor, start: int) -> None:
        from transformers import DynamicCache

        self.stream, self.start, self.pairs = stream, start, len(tokens)
        self.states: list[tuple[torch.Tensor, torch.Tensor]] = []
        if start:
            cache = DynamicCache()
            with torch.no_grad(), stream.tapped(Taps(), len(tokens)):
                stream.model.base_model(
                    input_ids=tokens[:, :start],
                    position_ids=torch.arange(start, device=tokens.device)[None],
                    past_key_values=cache,
                    use_cache=True,
                )
            self.states = [(layer.keys, layer.values) for layer in cache.layers]

    def _cache(self, repeats: int) -> Any:
        """A cache to run on with, which may grow: the prefix of every pair, ``repeats`` times over all pairs."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self.states):
            cache.update(keys.repeat(repeats, 1, 1, 1), values.repeat(repeats, 1, 1, 1), layer)
        return cache

    def run(self, embeddings: torch.Tensor, taps: Taps | None = None) -> torch.Tensor:
        """Logits of the answer, ``[rows, vocabulary]``, from embeddings of the tokens from ``start`` on.

        Args:
            embeddings: ``[rows, tokens from start, hidden]``; rows are all pairs, or all pairs several times over.
            taps: what to look at and to change.
        """
        rows, tokens, _ = embeddings.shape
        positions = torch.arange(self.start, self.start + tokens, device=embeddings.device)
        with self.stream.tapped(taps or Taps(), rows):
            output = self.stream.model.base_model(
                inputs_embeds=embeddings,
                position_ids=positions[None].expand(rows, -1),
                past_key_values=self._cache(rows // self.pairs) if self.start else None,
                use_cache=bool(self.start),
            )
        return logits_of(self.stream.model, output.last_hidden_state[:, -1])

    def resumed(self, layer: int, residual: torch.Tensor, taps: Taps | None = None) -> torch.Tensor:
        """Logits of the answer from the residual stream that enters a layer.

        Args:
            layer: the layer to begin with; the number of layers for what comes after the last one.
            residual: ``[rows, tokens from start, hidden]``.
            taps: what to look at and to change.
        """
        model, graph = self.stream.model, self.stream.graph
        if layer == graph.layers:  # only the last token is read
            residual = residual[:, -1:]
        width = model.get_input_embeddings().weight.shape[1]
        layers = decoder_layers(model)
        with contextlib.ExitStack() as undo:
            undo.enter_context(_skipping(layers[:layer], lambda _: residual))
            if layer == 0:  # there is none before it whose output could be replaced
                hook = layers[0].register_forward_pre_hook(lambda _, inputs: (residual, *inputs[1:]))
                undo.callback(hook.remove)
            return self.run(residual.new_zeros(*residual.shape[:2], width), taps)

    def through(self, layer: int, residual: torch.Tensor, taps: Taps) -> None:
        """Run one layer alone, from the residual stream that enters it; ``taps.final`` sees what leaves it."""
        with _skipping(decoder_layers(self.stream.model)[layer + 1 :], lambda value: value):
            self.resumed(layer, residual, taps)


@contextlib.contextmanager
def _skipping(skipped: Sequence[Any], instead: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Leave out layers: each only passes on what ``instead`` makes of what enters it."""
    with contextlib.ExitStack() as undo:
        for module in skipped:
            module.forward = lambda value, *_, **__: instead(value)
            undo.callback(delattr, module, "forward")
        yield


def embed(stream: Stream, tokens: torch.Tensor) -> torch.Tensor:
    """Token embeddings ``[pairs, tokens, hidden]``, scaled as the family scales them."""
    with torch.no_grad():
        embeddings: torch.Tensor = stream.model.get_input_embeddings()(tokens)
    return embeddings
