"""Processor seconds of compressing one layer: excise and the peers' own code, in turns, in one process.

    python -m benchmarks.peers --model resources/models/SmolLM2-135M-Instruct --calibration c4.txt --code FOLDER

FOLDER holds clones of locuslab/wanda (8e8fc87), IST-DASLab/sparsegpt (147d215), mazumder-lab/ALPS (8af9e6b) and
biomedical-cybernetics/Relative-importance-and-activation-pruning (7bc55b0), named wanda, sparsegpt, ALPS and RIA. None
of it is part of excise.

Both sides do what a layer costs: a pass over 16 windows of 512 tokens that measures the inputs, the edit of seven maps,
and a second pass that makes the next layer's inputs. The peers' side is their loop (a hook on every map, which measures
for itself) around their classes; where a method is written into that loop, it is two lines here. Their code runs as it
is, but that ``cuda:0`` reads ``cpu``. One thread, float32.
"""

import argparse
import contextlib
import io
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.compression import CPU, MAPS, peers_rule
from excise.compress import calibration
from excise.compress.edit import edit
from excise.compress.measure import forward, measure
from excise.compress.patterns import KeepNofM, Pattern, parse
from excise.compress.recipe import Recipe
from excise.compress.streaming import Call, Checkpoint, embed, fill, hollow, run_layer
from excise.data.texts import documents
from excise.models.loading import load_tokenizer
from excise.models.parts import decoder_layers

ROWS = [
    *(("wanda", "row", pattern, 3) for pattern in ("50%", "2:4")),
    *(("ria", "matrix", "50%", 3), ("ria", "row", "2:4", 3)),
    *(("sparsegpt", group, pattern, 3) for group, pattern in (("matrix", "50%"), ("row", "2:4"))),
    *(("alps", group, pattern, 1) for group, pattern in (("matrix", "50%"), ("row", "2:4"))),
]
"""Method, group, pattern, and how many rounds."""


def module_of(path: Path, package: str | None = None) -> types.ModuleType:
    """A file of a peer, run on the CPU."""
    module = types.ModuleType(path.stem)
    module.__dict__["__package__"] = package or ""
    source = path.read_text("utf-8").replace("cuda:0", "cpu").replace("torch.cuda.synchronize()", "None")
    source = source.replace("from quant import *", "").replace("from .quant import *", "")
    exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 (code that the caller named)
    return module


def wrapper(method: str, code: Path) -> Callable[[nn.Module, str], Any]:
    """Makes what measures the inputs of one map, by the peers' class."""
    if method == "wanda":
        theirs = module_of(code / "wanda/lib/layerwrapper.py").WrappedGPT
        return lambda part, _: theirs(part)
    if method == "ria":
        theirs = module_of(code / "RIA/lib/layerwrapper.py").WrappedGPT
        return lambda part, name: theirs(argparse.Namespace(gptq=False), part, layer_name=name)
    if method == "sparsegpt":
        theirs = module_of(code / "sparsegpt/sparsegpt.py").SparseGPT
        return lambda part, _: theirs(part)
    theirs = module_of(code / "ALPS/alps.py").ALPS_prune
    return lambda part, _: theirs(part, nsamples=16, seqlen=512)


def prune(method: str, part: nn.Module, measured: Any, pattern: Pattern) -> None:
    """What the peers' loop does to one map."""
    n, m = (pattern.size - pattern.kept, pattern.size) if isinstance(pattern, KeepNofM) else (0, 0)
    if method == "sparsegpt":
        measured.fasterprune(0.5, prunen=n, prunem=m, percdamp=0.01, blocksize=128)
    elif method == "alps":
        measured.ALPS_admm(sp=0.5, nm_n=m - n, nm_m=m, rho=0.1)
    else:
        weight = part.get_parameter("weight").data
        size = weight.abs()
        if method == "ria":
            size = size / size.sum(0) + size / size.sum(1, keepdim=True)
        score = size * measured.scaler_row.reshape(1, -1).sqrt() ** (0.5 if method == "ria" else 1)
        weight[peers_rule(method, score, pattern)] = 0


def theirs(layer: nn.Module, hidden: Tensor, call: Call, method: str, pattern: Pattern, code: Path) -> None:
    """A layer by the peers' loop."""
    make, hooks = wrapper(method, code), []
    measured: dict[str, Any] = {}

    def noting(name: str) -> Any:
        return lambda _, arguments, output: measured[name].add_batch(arguments[0].data, output.data)

    for name in MAPS:
        part = layer.get_submodule(name)
        measured[name] = make(part, name)
        hooks.append(part.register_forward_hook(noting(name)))
    with torch.no_grad():
        for window in hidden:
            run_layer(layer, window[None], call)
        for hook in hooks:
            hook.remove()
        with contextlib.redirect_stdout(io.StringIO()):
            for name in MAPS:
                prune(method, layer.get_submodule(name), measured[name], pattern)
        for window in hidden:
            run_layer(layer, window[None], call)


def ours(layer: nn.Module, hidden: Tensor, call: Call, method: str, pattern: Pattern) -> None:
    """A layer by excise."""
    recipe = Recipe(method, pattern)
    maps = {name: layer.get_submodule(name) for name in MAPS}
    inputs, _ = measure(layer, maps, hidden, call, gram=recipe.needs == "gram", outputs=False)
    edited, _ = edit({name: part.get_parameter("weight").data for name, part in maps.items()}, inputs, recipe, layer=0)
    for name, weight in edited.items():
        maps[name].get_parameter("weight").data = weight
    forward(layer, hidden, call)


def main() -> None:
    """Print one row per method and pattern."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--code", type=Path, required=True)
    parser.add_argument("--methods", nargs="*", default=sorted({method for method, *_ in ROWS}))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ids = load_tokenizer(arguments.model)(" ".join(documents(arguments.calibration)), verbose=False)["input_ids"]
    checkpoint = Checkpoint(arguments.model)
    model = hollow(checkpoint, torch.float32)
    hidden, calls = embed(model, calibration.windows(ids, seqlen=512, count=16), checkpoint)
    layer, tensors = decoder_layers(model)[0], checkpoint.read(checkpoint.of_layer(0))
    print("| method | pattern | excise, s | peer, s | times as fast |")
    print("|---|---|---|---|---|")
    for method, group, pattern, rounds in ROWS:
        if method not in arguments.methods:
            continue
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(rounds):
            for side, taken in seconds.items():
                fill(layer, {name: tensor.clone() for name, tensor in tensors.items()}, torch.float32, CPU)
                start = time.process_time()
                if side == "ours":
                    ours(layer, hidden, calls[0], method, parse(pattern, group))
                else:
                    theirs(layer, hidden, calls[0], method, parse(pattern, group), arguments.code)
                taken.append(time.process_time() - start)
        mine, other = (float(np.median(taken)) for taken in seconds.values())
        print(f"| {method} | {pattern} | {mine:.2f} | {other:.2f} | {other / mine:.2f} |", flush=True)


if __name__ == "__main__":
    main()
