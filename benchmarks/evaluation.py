"""What evaluation costs, as ratios taken in one run: ``python -m benchmarks.evaluation --model DIR [--threads 1]``.

- perplexity over windows / a bare forward pass over the same tokens (at most 1.05)
- generation one prompt at a time / at batch 32, for the same number of tokens (at least 5)
- sorting the whole vocabulary / growing top-k, for the same sampled tokens

Each figure is the best of several alternating repetitions, so that both sides meet the same machine.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from excise.config.generations import SeededSampling
from excise.evaluation import perplexity
from excise.evaluation.generation import batches, generate
from excise.evaluation.sampling import sample, stream
from excise.models.loading import load_model, load_tokenizer


def best(repeats: int, *sides: Callable[[], object]) -> list[float]:
    """Least seconds of each side, taken in turn."""
    times = [[0.0] * repeats for _ in sides]
    for side in sides:
        side()
    for repeat in range(repeats):
        for number, side in enumerate(sides):
            start = time.perf_counter()
            side()
            times[number][repeat] = time.perf_counter() - start
    return [min(seconds) for seconds in times]


def perplexity_overhead(model: Any, *, seqlen: int, windows: int, batch_size: int, repeats: int) -> float:
    """Time of our loss / time of a forward pass that computes all logits and throws them away."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (seqlen * windows,), generator=generator)
    planned = perplexity.plan(len(ids), "windows", seqlen=seqlen, stride=seqlen, windows=windows)
    parts = torch.split(ids.view(windows, seqlen).to(model.device), batch_size)

    def bare() -> None:
        with torch.inference_mode():
            for part in parts:
                model(input_ids=part, use_cache=False)

    ours, forward = best(repeats, lambda: perplexity.loss(model, ids, planned, batch_size=batch_size), bare)
    return ours / forward


def generation_speedup(model: Any, *, prompts: int, batch_size: int, tokens: int, repeats: int) -> float:
    """Time one prompt at a time / time in batches, for prompts of 8 to 24 tokens."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(8, 25, (prompts,), generator=generator).tolist()
    texts = [(n, torch.randint(10, 1000, (size,), generator=generator).tolist()) for n, size in enumerate(lengths)]
    sampling = SeededSampling(num_generations=1, max_new_tokens=tokens)
    model.generation_config.eos_token_id = None  # all continuations of equal length

    def run(size: int) -> None:
        for batch in batches(lengths, 1, size):
            generate(model, texts, batch, sampling)

    one, many = best(repeats, lambda: run(1), lambda: run(batch_size))
    return one / many


def sampling_speedup(model: Any, tokenizer: Any, *, rows: int, repeats: int) -> float:
    """Time with the whole vocabulary sorted / with growing top-k, on the model's logits on prose (our docstring)."""
    ids = torch.tensor(tokenizer(str(__doc__) * 2)["input_ids"][:rows], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
    words = stream(0, "prose", 0, len(logits))

    def whole() -> torch.Tensor:
        return sample(logits, words, temperature=1.0, top_p=0.9, first_k=logits.shape[-1])

    def grown() -> torch.Tensor:
        return sample(logits, words, temperature=1.0, top_p=0.9)

    if not torch.equal(whole(), grown()):
        raise SystemExit("growing top-k gives other tokens than sorting")
    slow, fast = best(repeats, whole, grown)
    return slow / fast


def main() -> None:
    """Print the table of docs/architecture.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load_model(arguments.model, device=arguments.device)
    repeats = arguments.repeats
    overhead = perplexity_overhead(model, seqlen=512, windows=4, batch_size=2, repeats=repeats)
    sampled = sampling_speedup(model, load_tokenizer(arguments.model), rows=64, repeats=repeats)
    generated = generation_speedup(model, prompts=32, batch_size=32, tokens=20, repeats=repeats)
    print("| ratio | measured | wanted |\n|---|---|---|")
    print(f"| perplexity / bare forward, 4 windows of 512 | {overhead:.2f} | <= 1.05 |")
    print(f"| generation, 20 new tokens: one prompt at a time / 32 at once | {generated:.1f} | >= 5 |")
    print(f"| sampling 64 rows: sorting the whole vocabulary / growing top-k | {sampled:.1f} | |")


if __name__ == "__main__":
    main()
