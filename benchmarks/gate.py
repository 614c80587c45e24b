"""The gate that a model family passes before LRP accepts it: families x checks on tiny random models in float64.

``python -m benchmarks.gate`` prints the table of docs/attribution.md; the tests run the same checks one by one.
Each check returns a relative error. The oracles are written from the papers and share no code with the engine.
"""

import argparse
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.families import FAMILIES, samples, tiny
from benchmarks.naive import naive_attention, naive_linear, naive_norm
from benchmarks.recording import Record, absorbed, record, share
from excise.attribution import Options
from excise.attribution.backward import embed, last_hidden, relevance
from excise.attribution.batches import pad
from excise.attribution.lxt_patch import patched, survey
from excise.attribution.objectives import differentiated, plain
from excise.attribution.registry import measured
from excise.models.families import ARCHITECTURES, architecture
from excise.models.parts import activations, output_projections

TOLERANCE = 1e-8
"""Relative, in float64. (lxt's divisor carries 1e-10; the rest is rounding.)"""
TOLERANCES = {"parts": 1e-5, "eager = sdpa": 1e-5}
"""transformers computes norms and the softmax of eager attention in float32 whatever the model's dtype is."""


def error(measured_value: torch.Tensor | float, expected: torch.Tensor | float) -> float:
    """Largest difference relative to the largest expected value."""
    left, right = (torch.as_tensor(value, dtype=torch.float64) for value in (measured_value, expected))
    return float((left - right).abs().max() / right.abs().max().clamp(min=1e-30))


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
        options: dict[str, Any] = {"objective": "continuation", "elementwise": patch.elementwise, "halve": patch.halve}
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
            worst = max(worst, error(float(differentiated(model, hidden, batch, target, plain)), value))
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
