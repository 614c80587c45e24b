"""What scores of all edges cost, in forward and backward passes of the same pairs, and how much memory.

    python -m benchmarks.circuits --model resources/models/SmolLM2-135M-Instruct --pairs find.jsonl --method eap-ig

Processor seconds of one thread. The measure: one forward and backward pass of the model as it is, over the clean
prompts, all logits made, gradients with respect to the embeddings. Memory: the largest resident set of the process,
which holds the model and runs this one method; weights are said beside it.
"""

import argparse
import resource
import time
from pathlib import Path

import torch

from excise.circuits import methods
from excise.circuits.batches import make_batches
from excise.circuits.gradients import scoring
from excise.circuits.run import prepare
from excise.circuits.stream import Stream
from excise.data.pairs import read_pairs
from excise.models.loading import load_config, load_model


def peak_mb() -> float:
    """Largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure, print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--method", choices=methods.MEASURED, required=True)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    _, pairs = read_pairs(arguments.pairs, load_config(arguments.model))
    model = load_model(arguments.model, device="cpu")
    batches = make_batches(pairs, arguments.batch_size)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) / 2**20
    model(input_ids=batches[0].clean)  # what is made once
    start = time.process_time()
    for batch in batches:
        embeddings = model.get_input_embeddings()(batch.clean).detach().requires_grad_()
        torch.autograd.grad(model(inputs_embeds=embeddings).logits[:, -1].sum(), embeddings)
    passes, before = time.process_time() - start, peak_mb()
    stream, method = Stream(model), methods.measured(arguments.method)
    points = method.points(arguments.steps)
    start = time.process_time()
    with scoring(stream, objective="logit-difference", points=points, rule=method.RULE) as scores_of:
        for batch in batches:
            scores_of(prepare(stream, batch))
    taken = time.process_time() - start
    edges = int(stream.graph.edges.sum())
    ratio = f"{taken / passes:.1f} x forward + backward ({passes:.1f} s)"
    print(
        f"{arguments.method}: {edges:,} edges, {len(pairs)} pairs: {taken:.1f} s, {ratio}; peak "
        f"{peak_mb():,.0f} MB ({before:,.0f} before; weights {weights:,.0f})"
    )


if __name__ == "__main__":
    main()
