"""Pairs of documents that differ in one term of a query, and which parts of an encoder carry the difference.

A relevant document and its copy without the term are a clean and a perturbed input; the score of the query falls. Each
head and MLP gets what it has in the perturbed document while the rest stays clean: activation patching, as MechIR does
for retrievers (Parry et al. 2025, arXiv 2501.10165) with the term-frequency axiom TFC1 (Fang et al. 2004).
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from excise.artefacts import Json
from excise.data.prompts import seeded_order
from excise.models.encoder import Encoder, batches, embed, forward, padded, tokenised
from excise.models.parts import decoder_layers
from excise.models.pooling import pool
from excise.retrieval.moments import projections, recording, sizes
from excise.retrieval.patching import Hold, held
from excise.retrieval.states import State, first_inputs

WORD = re.compile(r"[^\W\d_]{3,}")
TRIES = 200
"""Substitutes that are tried for a term."""


@dataclass(frozen=True)
class TermPair:
    """A query and a relevant document, with and without one term of the query.

    Attributes:
        query: its id.
        document: its id.
        term: the word of the query that is replaced.
        substitute: by what, everywhere in the document.
        asked: text of the query.
        clean: token ids of the document.
        perturbed: token ids without the term, as many.
    """

    query: str
    document: str
    term: str
    substitute: str
    asked: str
    clean: list[int]
    perturbed: list[int]


def term_pairs(encoder: Encoder, queries: Sequence[Json], documents: Sequence[Json], *, seed: int) -> list[TermPair]:
    """One pair per query whose rarest word stands in a relevant document; no document serves twice.

    The substitute is a word of the collection that neither text has, about as frequent as the term (within a factor of
    four), with which the document has as many tokens as before. Documents that the encoder would cut are left out.

    Args:
        encoder: a dense encoder.
        queries: rows ``{id, text, relevant}``.
        documents: rows ``{id, text}``.
        seed: of the order of queries and of substitutes.
    """
    texts = {row["id"]: row["text"] for row in documents}
    counts = Counter(word for text in texts.values() for word in _words(text))
    by_id = {row["id"]: row for row in queries}
    found: list[TermPair] = []
    used: set[str] = set()
    for name in seeded_order(by_id, seed):
        asked = by_id[name]["text"]
        for document in sorted(by_id[name]["relevant"].keys() & texts.keys() - used):
            pair = _pair(encoder, name, asked, document, texts[document], counts, seed)
            if pair is not None:
                found.append(pair)
                used.add(document)
                break
    return found


def _words(text: str) -> set[str]:
    return {word.casefold() for word in WORD.findall(text)}


def _pair(
    encoder: Encoder, query: str, asked: str, document: str, text: str, counts: Counter[str], seed: int
) -> TermPair | None:
    there, wanted = _words(text), _words(asked)
    shared = sorted(there & wanted, key=lambda word: (counts[word], word))
    [clean], cut = tokenised(encoder, [text], "document")
    if not shared or cut:
        return None
    term = shared[0]
    here, few, many = there | wanted, counts[term] / 4, 4 * counts[term]
    near = {word for word, count in counts.items() if few <= count <= many} - here
    for substitute in seeded_order(near, f"{seed} {query}")[:TRIES]:
        [perturbed], _ = tokenised(encoder, [replaced(text, term, substitute)], "document")
        if len(perturbed) == len(clean) and perturbed != clean:
            return TermPair(query, document, term, substitute, asked, clean, perturbed)
    return None


def replaced(text: str, term: str, substitute: str) -> str:
    """The text with a word replaced wherever it stands, in upper or lower case as the word was."""

    def one(match: re.Match[str]) -> str:
        if match[0].isupper():
            return substitute.upper()
        return substitute.capitalize() if match[0][0].isupper() else substitute

    return re.sub(rf"(?<![^\W\d_]){re.escape(term)}(?![^\W\d_])", one, text, flags=re.IGNORECASE)


@dataclass(frozen=True)
class Effects:
    """What the score of each pair loses, float64.

    Attributes:
        whole: with the perturbed document, ``[pairs]``.
        heads: with one head's output of the perturbed document, ``[pairs, layers, heads]``.
        mlps: with one MLP's, ``[pairs, layers]``.
    """

    whole: Tensor
    heads: Tensor
    mlps: Tensor


def effects(encoder: Encoder, pairs: Sequence[TermPair]) -> Effects:
    """Patch each head and MLP alone; the layers before it are run once."""
    size, found = sizes(encoder)["heads"], projections(encoder)
    layers, count = len(found["heads"]), found["heads"][0].get_parameter("weight").shape[1] // size
    heads = torch.zeros(len(pairs), layers, count, dtype=torch.float64)
    mlps, whole = torch.zeros(len(pairs), layers, dtype=torch.float64), torch.zeros(len(pairs), dtype=torch.float64)
    for batch in _batches(encoder, pairs):
        whole[batch.places] = batch.loss(batch.perturbed)
        for layer in range(layers):
            for head in range(count):
                channels = slice(head * size, (head + 1) * size)
                heads[batch.places, layer, head] = batch.patched(encoder, [("heads", layer, channels)])
            mlps[batch.places, layer] = batch.patched(encoder, [("neurons", layer, slice(None))])
    return Effects(whole, heads, mlps)


def falls(encoder: Encoder, pairs: Sequence[TermPair]) -> Tensor:
    """What the score of each pair loses with the perturbed document, ``[pairs]``, float64."""
    whole = torch.zeros(len(pairs), dtype=torch.float64)
    for batch in _batches(encoder, pairs):
        whole[batch.places] = batch.loss(batch.perturbed)
    return whole


def together(encoder: Encoder, pairs: Sequence[TermPair], sets: Sequence[Sequence[tuple[int, int]]]) -> Tensor:
    """What the score of each pair loses when heads (layer, head) are patched at once: by set, ``[sets, pairs]``."""
    size = sizes(encoder)["heads"]
    lost = torch.zeros(len(sets), len(pairs), dtype=torch.float64)
    for batch in _batches(encoder, pairs):
        for number, heads in enumerate(sets):
            parts = [("heads", layer, slice(head * size, (head + 1) * size)) for layer, head in heads]
            lost[number, batch.places] = batch.patched(encoder, parts)
    return lost


@dataclass(frozen=True)
class _Batch:
    """Some pairs on their way through the encoder.

    Attributes:
        places: of the pairs.
        asked: embeddings of the queries, float64.
        clean: embeddings of the clean documents.
        perturbed: of the perturbed ones.
        state: what the layers are called with.
        inputs: of every layer, clean.
        recorded: what entered the projections, perturbed, by kind and layer.
    """

    places: list[int]
    asked: Tensor
    clean: Tensor
    perturbed: Tensor
    state: State
    inputs: list[Tensor]
    recorded: dict[str, list[Tensor]]

    def loss(self, embeddings: Tensor) -> Tensor:
        """By how much these embeddings of the documents score less than the clean ones, ``[pairs]``."""
        clean, other = (
            torch.nn.functional.cosine_similarity(self.asked, one.cpu().double()) for one in (self.clean, embeddings)
        )
        return clean - other

    def patched(self, encoder: Encoder, parts: Sequence[tuple[str, int, slice]]) -> Tensor:
        """The loss with some channels (kind, layer, channels) as the perturbed run has them."""
        found = projections(encoder)
        holds: list[Hold] = [
            (found[kind][layer], channels, self.recorded[kind][layer][..., channels]) for kind, layer, channels in parts
        ]
        first = min(layer for _, layer, _ in parts)
        return self.loss(held(encoder, self.state, self.inputs[first], first, holds))


def _batches(encoder: Encoder, pairs: Sequence[TermPair]) -> Iterator[_Batch]:
    asked = embed(encoder, [pair.asked for pair in pairs], "query").vectors.double()
    for places in batches([len(pair.clean) for pair in pairs]):
        with recording(encoder) as seen:
            perturbed = forward(encoder, *padded(encoder, [pairs[place].perturbed for place in places]))
            recorded = {kind: list(values) for kind, values in seen.items()}
        state = first_inputs(encoder, (places, *padded(encoder, [pairs[place].clean for place in places])))
        inputs = [state.dense]
        for module in decoder_layers(encoder.model):
            inputs.append(module(inputs[-1], **state.keywords))
        clean = pool(inputs[-1], state.mask, encoder.pooling)
        yield _Batch(places, asked[places], clean, perturbed, state, inputs, recorded)
