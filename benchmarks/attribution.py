"""Cost of attribution in one run, as ratios that do not depend on how fast the machine is.

``python -m benchmarks.attribution [--model DIR]`` prints the table of docs/attribution.md. Every route runs on the same
batches; the routes take turns, and each takes its fastest round, so that a busy machine disturbs all alike.

Peak memory is measured in a process of its own for each route (``--memory ROUTE``), as the growth of its
largest resident size over the size with the model loaded and a short sample measured (Linux).
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from excise.attribution import Options
from excise.attribution.backward import embed, last_hidden
from excise.attribution.batches import Batch, Sample, make_batches
from excise.attribution.lxt_patch import patched
from excise.attribution.objectives import differentiated, plain
from excise.attribution.registry import measured
from excise.models.parts import decoder_layers

Route = Callable[[list[Batch]], None]

LLAMA_3_8B = {"layers": 32, "neurons": 14_336, "hidden": 4_096}


def build(folder: Path | None, device: str, dtype: str, layers: int) -> Any:
    """A model folder, or a random Llama of 12 layers or as many as asked for."""
    if folder is not None:
        from excise.models.loading import load_model

        return load_model(folder, device=device, dtype=dtype)
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    return model.to(device).eval().requires_grad_(False)


def make_samples(count: int, length: int, vocabulary: int, *, mixed: bool) -> list[Sample]:
    """Random samples; ``mixed`` makes lengths from an eighth of ``length`` up, as prompts with answers have."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(length // 8, length + 1, (count,), generator=generator) if mixed else [length] * count
    return [
        Sample(str(i), tuple(torch.randint(vocabulary, (int(n),), generator=generator).tolist()), int(n) // 2)
        for i, n in enumerate(lengths)
    ]


def routes(model: Any) -> dict[str, Route]:
    """What is timed; each runs all batches it is given."""

    def forward(batches: list[Batch]) -> None:
        with torch.no_grad():
            for batch in batches:
                last_hidden(model, batch, embed(model, batch))

    def forward_backward(batches: list[Batch]) -> None:
        for batch in batches:
            embeddings = embed(model, batch).requires_grad_()
            hidden = last_hidden(model, batch, embeddings)
            torch.autograd.grad(differentiated(model, hidden, batch, "continuation", plain), embeddings)

    def statistics(method: str, **options: Any) -> Route:
        def run(batches: list[Batch]) -> None:
            with measured(method).measuring(model, Options(**options)) as measure:
                for batch in batches:
                    for value in measure(batch).values():
                        value.sum(0)
                        value.square().sum(0)

        return run

    def weight_gradients(batches: list[Batch]) -> None:
        """Weight x weight-gradient of every linear map of the layers, added up: weight-level relevance."""
        weights = [weight for layer in decoder_layers(model) for weight in layer.parameters() if weight.ndim == 2]
        for weight in weights:
            weight.requires_grad_()
        totals = [torch.zeros_like(weight) for weight in weights]
        with patched(model, "attnlrp") as patch:
            for batch in batches:
                hidden = last_hidden(model, batch, embed(model, batch))
                target = differentiated(model, hidden, batch, "continuation", patch.elementwise)
                for total, weight, gradient in zip(totals, weights, torch.autograd.grad(target, weights), strict=True):
                    total.addcmul_(weight.detach(), gradient)
        model.requires_grad_(False)

    return {
        "bare forward": forward,
        "bare forward + backward": forward_backward,
        "lrp": statistics("lrp"),
        "lrp, recompute": statistics("lrp", recompute=True),
        "gradient": statistics("gradient"),
        "wanda": statistics("wanda"),
        "weight gradients": weight_gradients,
    }


def timed(run: Callable[[], None], device: str) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory(arguments: argparse.Namespace, name: str) -> float:
    """Growth of the peak over the loaded model, MiB, of one route on one batch, in this process."""
    model = build(arguments.model, arguments.device, arguments.dtype, arguments.layers)
    samples = make_samples(arguments.batch_size, arguments.tokens, model.config.vocab_size, mixed=False)
    batches = [batch.to(torch.device(arguments.device)) for batch in make_batches(samples, arguments.batch_size)]
    if arguments.device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        routes(model)[name](batches)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    short = make_samples(1, 16, model.config.vocab_size, mixed=False)
    routes(model)[name](make_batches(short, 1))  # what the first use of anything allocates
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten (Linux)
    resident = status("VmRSS")
    routes(model)[name](batches)
    return status("VmHWM") - resident


def status(entry: str) -> float:
    """An entry of this process's memory account, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{entry}:"))


def memory_of(name: str, *more: str) -> float:
    """``peak_memory`` in a fresh process."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.attribution", *sys.argv[1:], *more, "--memory", name]
    # Fixed, or glibc raises it and keeps freed tensors: what the pass holds is to be measured, not what malloc hoards.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(json.loads(done.stdout.splitlines()[-1]))


def report(arguments: argparse.Namespace) -> str:
    """Run everything and write the table."""
    model = build(arguments.model, arguments.device, arguments.dtype, arguments.layers)
    device = torch.device(arguments.device)
    samples = make_samples(arguments.samples, arguments.tokens, model.config.vocab_size, mixed=False)
    batches = [batch.to(device) for batch in make_batches(samples, arguments.batch_size)]
    mixed = make_samples(4 * arguments.samples, arguments.tokens // 2, model.config.vocab_size, mixed=True)
    together = [batch.to(device) for batch in make_batches(mixed, arguments.batch_size)]
    single = [batch.to(device) for batch in make_batches(mixed, 1)]
    found = routes(model)
    runs: dict[str, Callable[[], None]] = {name: functools.partial(run, batches) for name, run in found.items()}
    alone = [batch.to(device) for batch in make_batches(samples, 1)]
    # What absolute values per sample need, as the public reproduction of SparC3 takes them.
    runs["weight gradients, one by one"] = lambda: found["weight gradients"](alone)
    runs["lrp, samples of mixed length, batched"] = lambda: found["lrp"](together)
    runs["lrp, samples of mixed length, one by one"] = lambda: found["lrp"](single)
    best = dict.fromkeys(runs, float("inf"))
    for round_number in range(arguments.rounds + 1):
        for name, run in runs.items():
            seconds = timed(run, arguments.device)
            if round_number:  # the first round warms up
                best[name] = min(best[name], seconds)
    memory = {name: memory_of(name) for name in found}
    lines = ["| route | seconds | peak memory over the model, MiB |", "|---|---|---|"]
    lines += [f"| {name} | {best[name]:.2f} | {memory.get(name, float('nan')):.0f} |" for name in runs]
    ratios = [
        ("lrp / (bare forward + backward)", best["lrp"] / best["bare forward + backward"], "<= 1.1"),
        ("weight gradients / lrp", best["weight gradients"] / best["lrp"], ">= 1.4"),
        ("weight gradients, one by one / lrp", best["weight gradients, one by one"] / best["lrp"], ""),
        ("wanda / bare forward", best["wanda"] / best["bare forward"], "<= 1.1"),
        ("lrp with recomputation / lrp", best["lrp, recompute"] / best["lrp"], ""),
        (
            "one by one / batched, mixed lengths",
            best["lrp, samples of mixed length, one by one"] / best["lrp, samples of mixed length, batched"],
            "",
        ),
    ]
    lines += ["", "| ratio | measured | wanted |", "|---|---|---|"]
    lines += [f"| {name} | {value:.2f} | {wanted} |" for name, value, wanted in ratios]
    return "\n".join(lines).replace(" nan |", " |") + "\n\n" + depths() + "\n\n" + sizes()


def depths() -> str:
    """Peak memory against the number of layers, with and without recomputation (random Llamas of one width)."""
    lines = ["| layers | lrp, MiB | lrp with recomputation, MiB | layer inputs alone, MiB |", "|---|---|---|---|"]
    batch_size, tokens = 4, 512
    for layers in (4, 8, 16, 32):
        shape = ("--layers", str(layers), "--batch-size", str(batch_size), "--tokens", str(tokens))
        inputs = layers * batch_size * tokens * 512 * 4 / 2**20
        values = [memory_of(name, "--model", "", *shape) for name in ("lrp", "lrp, recompute")]
        lines.append(f"| {layers} | {values[0]:.0f} | {values[1]:.0f} | {inputs:.0f} |")
    return "\n".join(lines)


def sizes() -> str:
    """Sizes of score files of Llama-3-8B, computed from its configuration."""
    layers, neurons, hidden = (LLAMA_3_8B[name] for name in ("layers", "neurons", "hidden"))
    rows = [
        ("neuron relevance, one sum, float64", layers * neurons * 8),
        ("a statistics file: sum and sum of squares, float64", 2 * layers * neurons * 8),
        ("Wanda statistics: inputs and activations, float64", layers * (neurons + hidden) * 8),
        ("weight relevance of the MLPs, float32", layers * 3 * neurons * hidden * 4),
    ]
    lines = ["| Llama-3-8B | size |", "|---|---|"]
    lines += [f"| {name} | {size / 1e6:,.1f} MB |" for name, size in rows]
    return "\n".join(lines)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=lambda text: Path(text) if text else None, help="default: a random Llama")
    parser.add_argument("--device", default="cpu", help="default cpu")
    parser.add_argument("--dtype", default="float32", help="default float32")
    parser.add_argument("--layers", type=int, default=12, help="of the random Llama (default 12)")
    parser.add_argument("--tokens", type=int, default=256, help="tokens a sample (default 256)")
    parser.add_argument("--samples", type=int, default=8, help="default 8")
    parser.add_argument("--batch-size", type=int, default=8, help="default 8")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--threads", type=int, default=1, help="default 1")
    parser.add_argument("--memory", help="only: peak memory of this route")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps(peak_memory(arguments, arguments.memory)) if arguments.memory else report(arguments))


if __name__ == "__main__":
    main()
