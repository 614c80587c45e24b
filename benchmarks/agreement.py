"""Ours against lxt's own documented usage, sample by sample: its patch, its backward, its activation x gradient.

``python -m benchmarks.agreement --model DIR [--reference FILE] [--samples 16]``. lxt patches classes for the whole
process and has no undo, so ours runs first.

lxt 2.1 does not import under transformers 5 as it is: two submodules are stood in for, and its attention entry is
replaced by one that does the same to the modeling module's own table. All else is lxt's: maps, rules, patch.
"""

import argparse
import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from excise.attribution import Options
from excise.attribution.batches import Sample, make_batches, read_reference
from excise.attribution.registry import measured
from excise.models.parts import output_projections

MAPS = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3", "gpt2": "gpt2"}
"""Families that lxt has a map for: model type -> its name in lxt."""

METHODS = {"lrp": "attnLRP", "lrp-cp": "cp_LRP"}


def lxt_patch(model: Any, method: str) -> None:
    """Patch the process by lxt's ``monkey_patch`` with lxt's map of the model's family."""
    from excise.attribution.lxt_patch import _lxt

    _lxt()
    core = importlib.import_module("lxt.efficient.core")
    patches = importlib.import_module("lxt.efficient.patches")
    family = importlib.import_module(f"lxt.efficient.models.{MAPS[model.config.model_type]}")
    modeling = sys.modules[type(model).__module__]
    wrap = patches.wrap_attention_forward if method == "lrp" else patches.cp_wrap_attention_forward

    def attention(module: Any) -> bool:
        module.eager_attention_forward = wrap(module.eager_attention_forward)
        table = type(module.ALL_ATTENTION_FUNCTIONS)()
        for name, function in module.ALL_ATTENTION_FUNCTIONS.items():
            table[name] = wrap(function)
        module.ALL_ATTENTION_FUNCTIONS = table
        return True

    patch_map = {**getattr(family, METHODS[method]), modeling: attention}
    patch_map = {key: value if key is modeling else partial(_strict, value) for key, value in patch_map.items()}
    core.monkey_patch(modeling, patch_map)


def _strict(patch: Any, target: Any) -> bool:
    if not patch(target):
        raise SystemExit(f"lxt did not patch {target}")
    return True


def lxt_relevance(model: Any, sample: Sample) -> torch.Tensor:
    """The quickstart of lxt, read off at the MLP neurons: activation x gradient, backward from the largest logit."""
    kept: list[torch.Tensor] = []

    def keep(_: Any, inputs: tuple[torch.Tensor]) -> None:
        inputs[0].retain_grad()
        kept.append(inputs[0])

    handles = [projection.register_forward_pre_hook(keep) for projection in output_projections(model)]
    embeddings = model.get_input_embeddings()(torch.tensor([sample.input_ids])).detach()
    logits = model(inputs_embeds=embeddings.requires_grad_(), use_cache=False).logits
    logits[0, -1, :].max().backward()
    for handle in handles:
        handle.remove()
    tokens = len(sample.input_ids)
    return torch.stack([(h.double() * h.grad.double()).view(tokens, -1).sum(0) for h in kept])  # type: ignore[union-attr]


def compare(model: Any, samples: list[Sample], method: str, batch_size: int = 8) -> list[float]:
    """Largest difference of a neuron's relevance, relative to the largest relevance, of every sample."""
    ours: dict[str, torch.Tensor] = {}
    with measured(method).measuring(model, Options(objective="last-max")) as measure:
        for batch in make_batches(samples, batch_size):
            ours |= dict(zip(batch.ids, measure(batch)["relevance"], strict=True))
    lxt_patch(model, method)
    errors = []
    for sample in samples:
        theirs = lxt_relevance(model, sample)
        errors.append(float((ours[sample.id] - theirs).abs().max() / theirs.abs().max()))
    return errors


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder")
    parser.add_argument("--reference", type=Path, help="reference set (default: random tokens)")
    parser.add_argument("--family", choices=sorted(MAPS), help="instead of --model: a tiny random model")
    parser.add_argument("--method", choices=sorted(METHODS), default="lrp", help="default lrp")
    parser.add_argument("--samples", type=int, default=16, help="how many samples (default 16)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.family:
        from benchmarks.families import samples as random_samples
        from benchmarks.families import tiny

        model, samples = tiny(arguments.family, dtype=torch.float32), random_samples(4)
    else:
        from excise.models.loading import load_model

        model = load_model(arguments.model, device="cpu")
        if arguments.reference:
            samples = read_reference(arguments.reference, model.config)[1][: arguments.samples]
        else:
            draw = torch.Generator().manual_seed(0)
            vocabulary = model.config.vocab_size
            samples = [
                Sample(str(i), tuple(torch.randint(vocabulary, (32 + i,), generator=draw).tolist()), 1)
                for i in range(arguments.samples)
            ]
    errors = compare(model, samples, arguments.method)
    print(f"{arguments.method}: {len(errors)} samples, relative error at most {max(errors):.1e}")
    if not max(errors) < 1e-4:
        raise SystemExit("ours and lxt's differ by more than float32 rounding")


if __name__ == "__main__":
    main()
