"""A Llama with grouped queries whose circuit is known, for its weights are set by hand.

Two layers, two query heads on one key-value head, vocabulary of 16 symbols. It completes ``A B ... A`` with ``B``:

- a0.h0 attends to the token before: constant query and key, the key turned by one step of the rotary positions. It
  copies that token into a second set of dimensions;
- a1.h0 is the induction head: its query is the token here, its key the token before as a0.h0 wrote it, its value the
  token there; it writes that into a third set, which the logits read;
- a0.h1, a1.h1 and m0 write where nobody reads; m1 writes nothing.

A constant of 1,000 in the residual stream makes the norms the identity (weight 1,000 / sqrt(hidden)).

The circuit: ``input->a0.h0<v>``, ``a0.h0->a1.h0<k>``, ``input->a1.h0<q>``, ``input->a1.h0<v>``, ``a1.h0->logits``.
"""

import math

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from excise.data.pairs import Pair

SYMBOLS = 16
CIRCUIT = ("input->a0.h0<v>", "a0.h0->a1.h0<k>", "input->a1.h0<q>", "input->a1.h0<v>", "a1.h0->logits")
HEAD = 64
FAST = 6
"""Rotary frequencies that positions turn noticeably; symbols sit on the slow ones."""
CONSTANT = 1000.0
HIDDEN = 4 * SYMBOLS + 2
HERE, BEFORE, ANSWER, IDLE = (slice(place * SYMBOLS, (place + 1) * SYMBOLS) for place in range(4))


def known_circuit():
    """The model, in float64."""
    config = LlamaConfig(
        vocab_size=SYMBOLS,
        hidden_size=HIDDEN,
        intermediate_size=SYMBOLS,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=HEAD,
        rope_parameters={"rope_type": "default", "rope_theta": 1e12},
        rms_norm_eps=1e-12,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config).double().eval().requires_grad_(False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(CONSTANT / math.sqrt(HIDDEN) if name.endswith("norm.weight") else 0.0)
        symbols = torch.eye(SYMBOLS, dtype=torch.float64)
        embedding = model.model.embed_tokens.weight
        embedding[:, HERE], embedding[:, -1] = symbols, CONSTANT  # the last but one dimension makes hidden even
        _previous_token(model.model.layers[0])
        _induction(model.model.layers[1])
        model.model.layers[0].mlp.gate_proj.weight[:, HERE] = symbols
        model.model.layers[0].mlp.up_proj.weight[:, HERE] = symbols
        model.model.layers[0].mlp.down_proj.weight[IDLE] = 0.1 * symbols
        model.lm_head.weight[:, ANSWER] = 10 * symbols
    return model


def _slow(attention, head):
    """Rows of a head's slow frequencies, one per symbol."""
    half = HEAD // 2
    return slice(head * HEAD + half - SYMBOLS, head * HEAD + half)


def _previous_token(layer):
    attention, half = layer.self_attn, HEAD // 2
    frequencies = 1e12 ** (-torch.arange(half, dtype=torch.float64) / half)[:FAST]
    strength = 20.0 / CONSTANT
    query, key = attention.q_proj.weight, attention.k_proj.weight
    query[:FAST, -1] = strength * HEAD**0.5 / 2
    key[:FAST, -1] = strength * 50 * torch.cos(frequencies)  # turned by one position more than the query
    key[half : half + FAST, -1] = strength * 50 * torch.sin(frequencies)
    _value(attention, 0, HERE, BEFORE)


def _induction(layer):
    attention, symbols = layer.self_attn, torch.eye(SYMBOLS, dtype=torch.float64)
    attention.q_proj.weight[_slow(attention, 0), HERE] = 12 * HEAD**0.5 * symbols
    attention.k_proj.weight[_slow(attention, 0), BEFORE] = symbols
    _value(attention, 0, HERE, ANSWER)


def _value(attention, head, read, written):
    symbols = torch.eye(SYMBOLS, dtype=torch.float64)
    attention.v_proj.weight[:SYMBOLS, read] = symbols
    attention.o_proj.weight[written, head * HEAD : head * HEAD + SYMBOLS] = symbols
    other = (1 - head) * HEAD  # the group's other head copies to where nobody reads
    attention.o_proj.weight[IDLE, other : other + SYMBOLS] = 0.5 * symbols


def pairs(corruption, count=16, length=9):
    """``A B`` somewhere, ``A`` at the end; all other symbols occur once.

    ``value``: another symbol after the first A. ``first``: another symbol in the place of the first A. ``query``:
    another symbol, that occurs before, at the end.
    """
    generator, found = torch.Generator().manual_seed(0), []
    for index in range(count):
        symbols = torch.randperm(SYMBOLS, generator=generator).tolist()
        clean = symbols[: length - 1]
        place = int(torch.randint(1, length - 4, (1,), generator=generator))
        clean.append(clean[place])
        corrupt, wrong = list(clean), symbols[length]
        if corruption == "value":
            corrupt[place + 1] = wrong
        elif corruption == "first":
            corrupt[place] = wrong
        else:
            other = place + 2 if place + 3 < length - 1 else place - 1
            corrupt[-1], wrong = clean[other], clean[other + 1]
        found.append(Pair(f"{index}", tuple(clean), tuple(corrupt), (clean[place + 1],), (wrong,), "", ""))
    return found
