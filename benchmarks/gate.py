"""The gate that a model family passes before LRP accepts it: families x checks on tiny random models in float64.

``python -m benchmarks.gate`` prints the table of docs/attribution.md; the tests run the same checks one by one.
Each check returns a relative error. The oracles are written from the papers and share no code with the engine.
"""

import argparse
import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from excise.architectures import ARCHITECTURES, activations, architecture, output_projections
from excise.attribution import Options, measured
from excise.attribution.backward import embed, last_hidden, relevance
from excise.attribution.batches import Batch, Sample, pad
from excise.attribution.lxt_patch import Patch, patched, survey
from excise.attribution.targets import objective, plain

TOLERANCE = 1e-8
"""Relative, in float64. (lxt's divisor carries 1e-10; the rest is rounding.)"""
TOLERANCES = {"parts": 1e-5, "eager = sdpa": 1e-5}
"""transformers computes norms and the softmax of eager attention in float32 whatever the model's dtype is."""

SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"sliding_window": 5},
    "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen3": {"head_dim": 8, "tie_word_embeddings": True},
    "gemma": {"head_dim": 8},
    "gemma2": {
        "head_dim": 8,
        "sliding_window": 5,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "gemma3_text": {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 8, "sliding_window_pattern": 2},
    "olmo2": {},
    "phi3": {"pad_token_id": 0, "sliding_window": 5},
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 12, "dropout": 0.5},
    "gpt2": {"n_inner": 24, "attn_pdrop": 0.5, "scale_attn_by_inverse_layer_idx": True},
    "gpt_neox": {"rotary_pct": 0.5, "attention_dropout": 0.5},
}
"""What a tiny model of each family has beyond ``SMALL``: what could go wrong (windows, caps, biases, dropout, ties)."""


def tiny(family: str, *, attention: str | None = None, dtype: torch.dtype = torch.float64, **changes: object) -> Any:
    """A tiny random model with nothing at rest: large weights, random biases and norm weights.

    Args:
        family: key of ``FAMILIES``.
        attention: ``eager`` or ``sdpa``; the family's default where it is None.
        dtype: of the weights.
        changes: configuration entries.
    """
    config = AutoConfig.for_model(family, **{**SMALL, **FAMILIES[family], **changes})
    if attention is not None:
        config._attn_implementation = attention
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float64)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                scale = 0.3 if parameter.ndim > 1 or name.endswith("bias") else 0.1
                noise = torch.randn(parameter.shape, dtype=torch.float64) * scale
                parameter.copy_(noise if parameter.ndim > 1 or name.endswith("bias") else 1 + noise)
    return model.to(dtype).eval().requires_grad_(False)


def samples(count: int = 3) -> list[Sample]:
    """Random samples of 7, 9, 11, ... tokens, longer than the tiny models' windows."""
    generator = torch.Generator().manual_seed(1)
    lengths = [7 + 2 * index for index in range(count)]
    return [
        Sample(f"s{n}", tuple(torch.randint(3, 61, (n,), generator=generator).tolist()), target_start=n // 2)
        for n in lengths
    ]


# --- recording a pass ---------------------------------------------------------------------------------------------


@dataclass
class Attention:
    """One call of an attention function: tensors with their gradients, and its options."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor
    mask: torch.Tensor | None
    options: dict[str, Any]


@dataclass
class Record:
    """Everything a backward pass leaves behind.

    Attributes:
        objective: what was differentiated.
        embeddings: the token embeddings, with gradient.
        calls: module name -> (input, output), with gradients where they have one.
        positions: outputs of position embeddings, with gradients.
        attention: one entry a layer.
    """

    objective: torch.Tensor
    embeddings: torch.Tensor
    calls: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    positions: list[torch.Tensor] = field(default_factory=list)
    attention: list[Attention] = field(default_factory=list)


def share(tensor: torch.Tensor) -> torch.Tensor:
    """Relevance = activation x gradient; zero where no gradient arrives."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.detach() * tensor.grad


def record(model: Any, batch: Batch, patch: Patch, target: str = "continuation") -> Record:
    """Run a patched model forward and backward, with the gate x up rule, and keep what passes each module."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    found = Record(torch.tensor(0.0), embed(model, batch).requires_grad_())
    halves = {id(module) for module in output_projections(model)} if patch.halve else set()
    name_of_attention = model.config._attn_implementation
    inner = ALL_ATTENTION_FUNCTIONS[name_of_attention]

    def attention(module: nn.Module, query: Any, key: Any, value: Any, mask: Any = None, **options: Any) -> Any:
        # Views of their own, so that their gradients are those at the border of the attention function.
        query, key, value = (keep(tensor.view_as(tensor)) for tensor in (query, key, value))
        output, weights = inner(module, query, key, value, mask, **options)
        output = keep(output.view_as(output))
        found.attention.append(Attention(query, key, value, output, mask, {"module": module, **options}))
        return output, weights

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.requires_grad:
            tensor.retain_grad()
        return tensor

    with contextlib.ExitStack() as stack:
        AttentionInterface.register(name_of_attention, attention)
        stack.callback(AttentionInterface.register, name_of_attention, inner)
        for name, module in model.named_modules():
            if isinstance(module, nn.Embedding) and module is not model.get_input_embeddings():

                def position(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
                    found.positions.append(output.detach().requires_grad_())
                    return found.positions[-1]

                stack.callback(module.register_forward_hook(position).remove)
            elif not list(module.children()) and not isinstance(module, nn.Embedding | nn.Dropout):

                def call(_: nn.Module, inputs: Any, output: Any, name: str = name) -> Any:
                    if isinstance(output, torch.Tensor):
                        found.calls[name] = (inputs[0], keep(output))
                    return output

                def before(_: nn.Module, inputs: Any) -> Any:
                    if not isinstance(inputs[0] if inputs else None, torch.Tensor):
                        return None
                    own = keep(inputs[0].view_as(inputs[0]))
                    return (own, *inputs[1:])

                def halve(_: nn.Module, inputs: Any) -> Any:
                    return (inputs[0].detach() / 2 + inputs[0] / 2,)  # the same value, half the gradient

                if id(module) in halves:
                    stack.callback(module.register_forward_pre_hook(halve).remove)
                stack.callback(module.register_forward_pre_hook(before).remove)
                stack.callback(module.register_forward_hook(call).remove)
        hidden = last_hidden(model, batch, found.embeddings)
        found.objective = objective(model, hidden, batch, target, patch.elementwise)
        found.objective.backward()  # type: ignore[no-untyped-call]
    return found


def absorbed(model: Any, found: Record) -> float:
    """Relevance that ends in biases and position embeddings rather than in the tokens."""
    total = sum(float(share(tensor).sum()) for tensor in found.positions)
    for name, (_, output) in found.calls.items():
        bias = getattr(model.get_submodule(name), "bias", None)
        if bias is not None and output.grad is not None:
            total += float((output.grad * bias).sum())
    return total


def error(measured_value: torch.Tensor | float, expected: torch.Tensor | float) -> float:
    """Largest difference relative to the largest expected value."""
    left, right = (torch.as_tensor(value, dtype=torch.float64) for value in (measured_value, expected))
    return float((left - right).abs().max() / right.abs().max().clamp(min=1e-30))


# --- the checks ---------------------------------------------------------------------------------------------------


def check_parts(family: str) -> float:
    """Every norm, activation and attention is patched, ran through its patch, and computes what it did before."""
    model, batch = tiny(family), pad(samples())
    names = survey(model)
    norms = [name for name, module in model.named_modules() if "norm" in type(module).__name__.lower()]
    if sorted(names["norm"]) != sorted(norms) or len(names["activation"]) != len(names["attention"]) != 3:
        raise AssertionError(f"{family}: {names}")
    with torch.no_grad():
        before = last_hidden(model, batch, embed(model, batch))
    with patched(model, "attnlrp") as patch, torch.no_grad():
        after = last_hidden(model, batch, embed(model, batch))
        patch.verify_ran()
        if len(patch.ran) != sum(map(len, names.values())):
            raise AssertionError(f"{family}: {len(patch.ran)} parts ran")
    return error(after[batch.mask], before[batch.mask])


def check_conservation(family: str) -> float:
    """CP-LRP: relevance of tokens, biases and positions adds up to the target."""
    model, batch = tiny(family), pad(samples())
    with patched(model, "cp") as patch:
        found = record(model, batch, patch)
    return error(float(share(found.embeddings).sum()) + absorbed(model, found), found.objective.item())


def check_leak(family: str) -> float:
    """AttnLRP: what is missing from the target is what the softmax rule loses, layer by layer."""
    model, batch = tiny(family), pad(samples())
    with patched(model, "attnlrp") as patch:
        found = record(model, batch, patch)
    leak = sum(
        float(share(call.output).sum() - share(call.query).sum() - share(call.key).sum() - share(call.value).sum())
        for call in found.attention
    )
    total = float(share(found.embeddings).sum()) + absorbed(model, found) + leak
    return error(total, found.objective.item())


def check_rules(family: str) -> float:
    """Each module's input relevance, against the rule written from the paper, with the pass's own relevances."""
    model, batch = tiny(family), pad(samples())
    parts = survey(model)
    with patched(model, "attnlrp") as patch:
        found = record(model, batch, patch)
    worst = 0.0
    for name, (value, output) in found.calls.items():
        if value.grad is None or output.grad is None:
            continue
        module = model.get_submodule(name)
        if name in parts["activation"]:
            expected = share(output)  # identity rule
        elif name in parts["norm"]:
            expected = naive_norm(module, value.detach(), share(output))
        else:
            expected = naive_linear(module, value.detach(), share(output))
        worst = max(worst, error(share(value), expected))
    for layer, call in enumerate(found.attention):
        expected_shares = naive_attention(model, layer, call, batch)
        for tensor, expected in zip((call.query, call.key, call.value), expected_shares, strict=True):
            worst = max(worst, error(share(tensor), expected))
    if architecture(model.config).gated:
        worst = max(worst, check_product(model, found))
    if len(found.attention) != 3 or len(found.calls) < 3 * 6:
        raise AssertionError(f"{family}: {len(found.calls)} modules recorded")
    return worst


def check_product(model: Any, found: Record) -> float:
    """Uniform rule: the two factors of gate x up each get half of the product's relevance."""
    worst = 0.0
    names = {id(module): name for name, module in model.named_modules()}
    for projection, activation in zip(output_projections(model), activations(model), strict=True):
        product = share(found.calls[names[id(projection)]][0])
        worst = max(worst, error(share(found.calls[names[id(activation)]][1]), product / 2))
    return worst


def check_padding(family: str) -> float:
    """A padded batch gives each sample what it gets alone."""
    model = tiny(family)
    with patched(model, "attnlrp") as patch:
        options: dict[str, Any] = {"target": "continuation", "elementwise": patch.elementwise, "halve": patch.halve}
        together = relevance(model, pad(samples()), **options)
        alone = torch.cat([relevance(model, pad([sample]), **options) for sample in samples()])
    return error(together, alone)


def check_implementations(family: str) -> float | None:
    """Eager and sdpa attention agree; None for a family that has no sdpa (soft-capped scores)."""
    if not type(tiny(family))._supports_sdpa:
        return None
    results = []
    for attention in ("eager", "sdpa"):
        model = tiny(family, attention=attention)
        with measured("lrp").measuring(model, Options()) as measure:
            results.append(measure(pad(samples()))["relevance"])
    return error(*results)


def check_weights(family: str) -> float:
    """Neuron relevance = column sum of weight x weight gradient of the output projection."""
    model, batch = tiny(family), pad(samples())
    with measured("lrp").measuring(model, Options()) as measure:
        neurons = measure(batch)["relevance"].sum(0)
    projections = output_projections(model)
    weights = [projection.get_parameter("weight").requires_grad_() for projection in projections]
    with patched(model, "attnlrp") as patch:
        record(model, batch, patch)
    across = 1 if architecture(model.config).transposed else 0
    columns = torch.stack([(weight * weight.grad).sum(across) for weight in weights if weight.grad is not None])
    return error(neurons, columns.detach())


def check_recompute(family: str) -> float:
    """Layer-wise recomputation changes nothing."""
    results = []
    for recompute in (False, True):
        model = tiny(family)
        with measured("lrp").measuring(model, Options(recompute=recompute)) as measure:
            results.append(measure(pad(samples()))["relevance"])
    return error(*results)


def check_targets(family: str) -> float:
    """The targets, against the logits of the whole causal model, sample by sample."""
    model, worst = tiny(family), 0.0
    for sample in samples():
        batch = pad([sample])
        with torch.no_grad():
            logits = model(input_ids=batch.input_ids).logits[0]
            hidden = last_hidden(model, batch, embed(model, batch))
        total, contrast = 0.0, 0.0
        for position in range(sample.target_start, len(sample.input_ids)):
            row = logits[position - 1]
            token = sample.input_ids[position]
            total += float(row[token])
            rest = sum(float(value) for index, value in enumerate(row) if index != token)
            contrast += float(row[token]) - rest / len(row)
        length = len(sample.input_ids) - sample.target_start
        expected = {
            "last-max": float(logits[-1].max()),
            "continuation": total / length,
            "continuation-sum": total,
            "contrastive": contrast / length,
        }
        for target, value in expected.items():
            worst = max(worst, error(float(objective(model, hidden, batch, target, plain)), value))
    return worst


CHECKS: dict[str, Callable[[str], float | None]] = {
    "parts": check_parts,
    "conservation": check_conservation,
    "leak": check_leak,
    "rules": check_rules,
    "padding": check_padding,
    "eager = sdpa": check_implementations,
    "weight sum": check_weights,
    "recompute": check_recompute,
    "targets": check_targets,
}


# --- LRP, naively -------------------------------------------------------------------------------------------------


def naive_linear(module: nn.Module, value: torch.Tensor, relevance_out: torch.Tensor) -> torch.Tensor:
    """LRP-0: R_j = sum_i w_ij x_j R_i / z_i, the bias being one of the z's terms (Bach et al. 2015)."""
    parameter = module.get_parameter("weight")
    weight = parameter.T if isinstance(module, Conv1D) else parameter.detach()
    bias = getattr(module, "bias", None)
    terms = value[..., None, :] * weight  # [..., out, in]
    z = terms.sum(-1) + (0 if bias is None else bias)
    return (terms / z[..., None] * relevance_out[..., None]).sum(-2)


def naive_norm(module: Any, value: torch.Tensor, relevance_out: torch.Tensor) -> torch.Tensor:
    """Identity rule for RMSNorm (R_in = R_out); LayerNorm = a centring linear map and a bias around it."""
    if not isinstance(module, nn.LayerNorm):
        return relevance_out
    width = value.shape[-1]
    centred = value - value.mean(-1, keepdim=True)
    deviation = (centred.pow(2).mean(-1, keepdim=True) + module.eps).sqrt()
    scaled = centred / deviation * module.weight
    before_bias = relevance_out * scaled / (scaled + module.bias)
    centring = torch.eye(width, dtype=value.dtype) - 1 / width
    terms = value[..., None, :] * centring
    return (terms / centred[..., None] * before_bias[..., None]).sum(-2)


def naive_attention(
    model: Any, layer: int, call: Attention, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Relevance of queries, keys and values: AttnLRP's rules for A V, softmax and Q K, in loops over samples and heads.

    The mask is written from its definition (causal, windowed, no padding), not taken from the model.
    """
    relevance_out = share(call.output).transpose(1, 2)  # [samples, heads, tokens, width]
    query, key, value = (tensor.detach() for tensor in (call.query, call.key, call.value))
    groups = query.shape[1] // key.shape[1]
    shares = [torch.zeros_like(tensor) for tensor in (query, key, value)]
    scaling = call.options.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    cap, window = call.options.get("softcap"), window_of(model, layer)
    tokens = query.shape[2]
    for sample in range(query.shape[0]):
        for head in range(query.shape[1]):
            q, k, v = query[sample, head], key[sample, head // groups], value[sample, head // groups]
            products = q[:, None, :] * k[None, :, :] * scaling  # [queries, keys, width]
            raw = products.sum(-1)
            scores = raw if cap is None else torch.tanh(raw / cap) * cap
            i, j = torch.meshgrid(torch.arange(tokens), torch.arange(tokens), indexing="ij")
            seen = (j <= i) & batch.mask[sample][None, :]
            seen &= (i - j < window) if window is not None else True
            weights = torch.where(seen, scores, -torch.inf).softmax(-1)
            # A V: uniform rule, half of each term's relevance to either factor.
            terms = weights[:, :, None] * v[None, :, :]  # [queries, keys, width]
            z = terms.sum(1, keepdim=True)
            to_terms = terms / z * relevance_out[sample, head][:, None, :]
            to_weights, to_values = to_terms.sum(-1) / 2, to_terms.sum(0) / 2
            # Softmax: R_i = x_i (R_i^out - s_i sum R^out); capping: identity rule.
            to_scores = scores * (to_weights - weights * to_weights.sum(-1, keepdim=True))
            to_scores = torch.where(seen, to_scores, 0.0)
            to_products = products / raw[..., None] * to_scores[..., None] / 2
            shares[0][sample, head] += to_products.sum(1)
            shares[1][sample, head // groups] += to_products.sum(0)
            shares[2][sample, head // groups] += to_values
    return shares[0], shares[1], shares[2]


def window_of(model: Any, layer: int) -> int | None:
    """Tokens that a layer's attention sees at most, from the configuration."""
    config = model.config
    window: int | None = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    return window if kinds is None or kinds[layer] == "sliding_attention" else None


# --- the table ----------------------------------------------------------------------------------------------------


def rows() -> Iterator[tuple[str, list[float | None]]]:
    """(family, relative error of every check)."""
    for family in FAMILIES:
        yield family, [check(family) for check in CHECKS.values()]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    importlib.import_module("transformers").logging.set_verbosity_error()
    if FAMILIES.keys() != ARCHITECTURES.keys():
        raise SystemExit(f"families without a gate: {sorted(ARCHITECTURES.keys() ^ FAMILIES.keys())}")
    lines = ["| family | " + " | ".join(CHECKS) + " |", "|---" * (len(CHECKS) + 1) + "|"]
    failed = []
    for family, errors in rows():
        cells = ["eager only" if value is None else f"{value:.0e}" for value in errors]
        failed += [
            f"{family}: {check}"
            for check, value in zip(CHECKS, errors, strict=True)
            if value is not None and not value <= TOLERANCES.get(check, TOLERANCE)
        ]
        lines.append(f"| {family} | " + " | ".join(cells) + " |")
    table = "\n".join(lines)
    print(table)
    if arguments.output:
        arguments.output.write_text(table + "\n", encoding="utf-8")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
