"""Tiny random models of every family with pairs of prompts, for the tests of circuits."""

import itertools
import json
from functools import cache

import torch

from benchmarks.families import FAMILIES, tiny
from excise.circuits.batches import make_batches
from excise.circuits.gradients import scoring
from excise.circuits.objectives import value
from excise.circuits.run import mean_writes, prepare, run_circuit
from excise.circuits.stream import Stream
from excise.data.pairs import Pair
from excise.models.loading import load_model, load_tokenizer

WRITTEN = [family for family in FAMILIES if family != "olmo2"]
LD = "logit-difference"
# Eager attention of Gemma 2 has its softmax in float32, in whatever dtype the model is.
CLOSE = {"gemma2": 1e-6}


def pairs(count=3, tokens=9, first=5):
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(count):
        clean = torch.randint(3, 61, (tokens,), generator=generator).tolist()
        corrupt = [*clean[:first], (clean[first] + 7) % 58 + 3, *clean[first + 1 :]]
        found.append(
            Pair(f"p{index}", tuple(clean), tuple(corrupt), (3 + index,), (20 + index, 30), f"t{index % 2}", "")
        )
    return found


@cache
def stream(family):
    return Stream(tiny(family))


@cache
def prepared(family, ablation="resample"):
    here = stream(family)
    (batch,) = make_batches(pairs(), 8)
    means = mean_writes(here, [batch]) if ablation == "mean" else None
    return prepare(here, batch, ablation, means)


def logits(family, tokens):
    with torch.no_grad():
        return tiny(family)(input_ids=tokens).logits[:, -1]


def error(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


def edge_scores(family, rule=None, points=(1.0,), objective=LD):
    with scoring(stream(family), objective=objective, points=points, rule=rule) as scores_of:
        return scores_of(prepared(family))


def without(here, given, *nodes):
    kept = here.graph.edges.clone()
    kept[list(nodes)] = False
    return value(LD, run_circuit(here, given, kept), given.batch, given.clean_logits)


WORDS = ("cat", "rain", "at", "and", "a")
"""One token each in the tiny tokenizer, with the space before them."""


def write_texts(tiny_model, path):
    """Pairs of a user's own, on each of which the random model's answer depends on what is changed."""
    model, tokenizer = load_model(tiny_model, device="cpu"), load_tokenizer(tiny_model)

    def difference(text, answer, wrong):
        logits = model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1]
        right, other = (tokenizer(f" {word}")["input_ids"][-1] for word in (answer, wrong))
        return float(logits[right] - logits[other])

    rows = []
    for a, b, c in itertools.permutations(WORDS, 3):
        clean, corrupted = f"the {a} {b} {c} the", f"the {a} {a} {c} the"
        gap = difference(clean, a, b) - difference(corrupted, a, b)
        answer, wrong = (a, b) if gap > 0 else (b, a)
        if abs(gap) > 1:
            texts = {"clean": clean, "corrupted": corrupted, "answers": f" {answer}", "wrong": [f" {wrong}"]}
            rows.append({**texts, "template": "cat" if c == "cat" else "other"})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path
