"""Masks and errors of every compression method on two layers of the demo's model, beside the peers' own code.

    python -m benchmarks.compression --model resources/models/SmolLM2-135M-Instruct --calibration c4.txt

Calibration: the first 16 windows of 512 tokens; errors on windows 0 to 3, and on windows 100 to 103, held out.
A layer is pruned on its dense inputs, the second one after the first was pruned. One hash covers the masks (weight is
not zero) of a layer's maps in the order q, k, v, o, gate, up, down. Three answers per method:

- *equal*: our masks have the peers' hashes, for layer 0 and layer 1;
- *by their rule*: the selection of the peers (``topk``, or ``<=`` a threshold) on our scores has them: the scores
  are equal, and masks differ at ties and in the surplus alone;
- *differ*: mask entries of both layers that our selection and theirs on the same scores do not share.

The peers' hashes were made on another processor, where a score may differ in the last bit.
"""

import argparse
import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from excise.compress import METHODS, calibration
from excise.compress.edit import edit, gram_of, score_of
from excise.compress.inputs import Inputs
from excise.compress.masks import pruned
from excise.compress.measure import forward, measure
from excise.compress.patterns import KeepNofM, Pattern, parse
from excise.compress.recipe import Recipe
from excise.compress.streaming import Call, Checkpoint, embed, fill, hollow
from excise.data.texts import documents
from excise.models.loading import load_tokenizer
from excise.models.parts import decoder_layers

MAPS = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)
CPU = torch.device("cpu")

PEERS = {
    ("magnitude", "matrix", "0.5"): ("3660353e02d8e445", "8e932940a3bca64d", 0.04400, 0.04561),
    ("wanda", "row", "0.5"): ("d4ee64529ff4b959", "f69430da8a503a2c", 0.02254, 0.02393),
    ("ria", "matrix", "0.5"): ("c7588be9012cc7bd", "d85ce4da6491a072", 0.02284, 0.02395),
    ("ria", "row", "0.5"): ("ffe5bb15e6fb0b3f", "1e5959dd86d53abf", 0.02374, 0.02488),
    ("clearcut", "row", "0.5"): ("35ebe71dd9e9440d", "f9c0c89a29871e55", 0.02374, 0.02488),
    ("sparsegpt", "matrix", "0.5"): ("17e1e4313b5db90c", "e1b5bb54b440de64", 0.01161, 0.01899),
    ("admm", "matrix", "0.5"): ("faec9dcc37bc7c13", "968b2c2932c5189b", 0.00766, 0.01583),
    ("alps", "matrix", "0.5"): ("18ac922d3206ebd6", "d06f043ea11b30c6", 0.00640, 0.01616),
    ("magnitude", "row", "4:8"): ("00ff00301671cd01", "cfa2fc8720f3a689", 0.06285, 0.06509),
    ("wanda", "row", "4:8"): ("4dae25a3b38945d2", "bc651fc923114f8a", 0.03387, 0.03561),
    ("ria", "row", "4:8"): ("c49b4ada75d64643", "2fd4906460e02c2e", 0.03544, 0.03694),
    ("clearcut", "row", "4:8"): ("66e04a18c6e1e12c", "99341428b8979e00", 0.03544, 0.03694),
    ("sparsegpt", "row", "4:8"): ("e59fdc53eb0c6295", "590c9db9b49ac8dc", 0.01694, 0.02827),
    ("alps", "row", "4:8"): ("c06ef6f2dbf503ad", "9ce551dec7e53b99", 0.01005, 0.02443),
    ("magnitude", "row", "2:4"): ("b67ee0186fbeac98", "9d3551a5e3437388", 0.07668, 0.07966),
    ("wanda", "row", "2:4"): ("474a0ee84fb18bbd", "b2560ddf7874ab16", 0.04433, 0.04646),
    ("ria", "row", "2:4"): ("74a25dae22441c55", "43ab45919510bf5f", 0.04640, 0.04834),
    ("clearcut", "row", "2:4"): ("44ace5b40ab75975", "04f4acdce72962fe", 0.04640, 0.04833),
    ("sparsegpt", "row", "2:4"): ("864dc908d1fe2e08", "6124c0f406c166bb", 0.02227, 0.03637),
    ("admm", "row", "2:4"): ("e6968a31611e997e", "6448cb77f036f060", 0.01561, 0.03123),
    ("alps", "row", "2:4"): ("4d2148965cc8380d", "7140c7726e7a2820", 0.01324, 0.03149),
}
"""(method, group, pattern) -> hashes of layers 0 and 1, relative output errors on calibration and held-out windows: the
peers' own code (Wanda 8e8fc87, RIA 7bc55b0, SparseGPT 147d215, ADMM 8039208, ALPS 8af9e6b; ClearCut by its formula)."""


def mask_hash(weights: dict[str, Tensor]) -> str:
    """First 16 hexadecimal digits of the SHA-256 over the packed masks of a layer's maps."""
    sha = hashlib.sha256()
    for name in MAPS:
        sha.update(np.packbits(weights[name].numpy() != 0).tobytes())
    return sha.hexdigest()[:16]


def error(before: Tensor, after: Tensor, inputs: Inputs) -> float:
    """``|X (W - W')'|^2 / |X W'|^2``."""
    gram = gram_of(inputs).float()
    change = before - after
    return float(((change @ gram) * change).sum() / ((before @ gram) * before).sum())


def peers_rule(method: str, score: Tensor, pattern: Pattern) -> Tensor:
    """The mask that the peers' code makes of a score: True = pruned."""
    rows, columns = score.shape
    if isinstance(pattern, KeepNofM):
        groups = score.reshape(-1, pattern.size)
        lowest = groups.topk(pattern.size - pattern.kept, dim=1, largest=False).indices
        return torch.zeros_like(groups, dtype=torch.bool).scatter(1, lowest, True).reshape(rows, columns)
    if pattern.group == "row" or method == "wanda":
        lowest = score.sort(dim=1, stable=True).indices[:, : int(columns * pattern.share)]
        return torch.zeros_like(score, dtype=torch.bool).scatter(1, lowest, True)
    return score <= score.flatten().sort().values[int(score.numel() * pattern.share)]


@dataclass
class Found:
    """Of two layers."""

    ours: list[str] = field(default_factory=list)
    theirs: list[str] = field(default_factory=list)
    differ: int = 0
    inside: list[float] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)

    def compare(self, recipe: Recipe, weights: dict[str, Tensor], inputs: dict[str, Inputs], number: int) -> None:
        """Our masks of a layer and those by the peers' rule, from the same scores."""
        masked = {}
        for name, weight in weights.items():
            score = score_of(name, weight, inputs[name], recipe, number)
            ours, theirs = pruned(score, recipe.pattern), peers_rule(recipe.method, score, recipe.pattern)
            masked[name] = weight.masked_fill(theirs, 0)
            self.differ += int((ours ^ theirs).sum())
        self.theirs.append(mask_hash(masked))


def two_layers(
    model: torch.nn.Module, checkpoint: Checkpoint, states: list[Tensor], calls: list[Call], recipe: Recipe
) -> Found:
    """Prune layers 0 and 1. ``states``: hidden states of calibration, of its first windows, and held out."""
    found = Found()
    for number in (0, 1):
        layer = decoder_layers(model)[number]
        tensors = checkpoint.read(checkpoint.of_layer(number))
        fill(layer, tensors, torch.float32, CPU)
        maps = {name: layer.get_submodule(name) for name in MAPS}
        weights = {name: tensors[f"{name}.weight"] for name in MAPS}
        inputs, few, unseen = (measure(layer, maps, state, calls[number], gram=True)[0] for state in states)
        edited, _ = edit(weights, inputs, recipe, layer=number)
        found.ours.append(mask_hash(edited))
        if not METHODS[recipe.method].solver:
            found.compare(recipe, weights, inputs, number)
        found.inside += [error(weights[name], edited[name], few[name]) for name in MAPS]
        found.outside += [error(weights[name], edited[name], unseen[name]) for name in MAPS]
        if number == 0:
            fill(layer, tensors | {f"{name}.weight": edited[name] for name in MAPS}, torch.float32, CPU)
            states = [forward(layer, state, calls[0]) for state in states]
    return found


def masks(model: torch.nn.Module, checkpoint: Checkpoint, hidden: Tensor, call: Call) -> None:
    """Print for each method that scores whether layer 0 has the peers' masks: no Gram matrices, seconds."""
    layer = decoder_layers(model)[0]
    tensors = checkpoint.read(checkpoint.of_layer(0))
    fill(layer, tensors, torch.float32, CPU)
    weights = {name: tensors[f"{name}.weight"] for name in MAPS}
    inputs, _ = measure(layer, {name: layer.get_submodule(name) for name in MAPS}, hidden, call, gram=False)
    print("| method | group | pattern | equal | by their rule | differ |")
    print("|---|---|---|---|---|---|")
    for (method, group, pattern), (peer, *_) in PEERS.items():
        if METHODS[method].solver:
            continue
        found, recipe = Found(), Recipe(method, parse(pattern, group))
        found.compare(recipe, weights, inputs, 0)
        edited, _ = edit(weights, inputs, recipe, layer=0)
        ours, theirs = ("yes" if one == peer else "no" for one in (mask_hash(edited), found.theirs[0]))
        print(f"| {method} | {group} | {pattern} | {ours} | {theirs} | {found.differ} |", flush=True)


def main() -> None:
    """Print one row per method and pattern."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument(
        "--methods", nargs="*", default=[name for name, one in METHODS.items() if one.needs != "relevance"]
    )
    parser.add_argument("--reconstruct", default="none")
    parser.add_argument("--masks", action="store_true", help="only the masks of layer 0, in seconds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ids = load_tokenizer(arguments.model)(" ".join(documents(arguments.calibration)), verbose=False)["input_ids"]
    cut = calibration.windows(ids, seqlen=512, count=104)
    checkpoint = Checkpoint(arguments.model)
    model = hollow(checkpoint, torch.float32)
    entering, calls = embed(model, torch.cat([cut[:16], cut[100:104]]), checkpoint)
    if arguments.masks:
        masks(model, checkpoint, entering[:16], calls[0])
        return
    states = [entering[:16], entering[:4], entering[16:]]
    print("| method | group | pattern | equal | by their rule | differ | error | peer | held out | peer | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for (method, group, pattern), (first, second, inside, outside) in PEERS.items():
        if method not in arguments.methods:
            continue
        start = time.process_time()
        recipe = Recipe(method, parse(pattern, group), arguments.reconstruct)
        found = two_layers(model, checkpoint, states, calls, recipe)
        ours, theirs = (
            ", ".join("yes" if one == other else "no" for one, other in zip(hashes, (first, second), strict=False))
            for hashes in (found.ours, found.theirs)
        )
        print(
            f"| {method} | {group} | {pattern} | {ours} | {theirs} | {found.differ} | {np.mean(found.inside):.5f} | "
            f"{inside:.5f} | {np.mean(found.outside):.5f} | {outside:.5f} | {time.process_time() - start:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
