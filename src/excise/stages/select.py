"""Select the N neurons to prune, globally over all layers.

Reads a differential (excise differential) or a control (excise control), and writes the neuron list. With scores of
several seeds it also selects from each seed alone and reports how much these selections overlap.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--scores", type=Path, required=True, help="differential or control, safetensors")
    parser.add_argument(
        "--neurons",
        type=int,
        help="how many neurons to select, over all layers (default, with --like: as many as it has)",
    )
    parser.add_argument("--differential", default="plain", help="plain, scaled, standardised or set (default plain)")
    parser.add_argument(
        "--guard", type=float, default=0.0, help="protect this top share of absolute general score (default 0)"
    )
    parser.add_argument(
        "--factor", type=float, help="what a selected neuron is scaled by (default 0, with --like: what it says)"
    )
    parser.add_argument("--like", type=Path, help="controls: take as many from each layer as this neuron list does")
    parser.add_argument("--name", help="what to call the selection in tables (default: the method)")
    parser.add_argument("--output", type=Path, required=True, help="neuron list, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read the scores, select, write the neuron list."""
    from collections import Counter

    from excise import selection
    from excise.artefacts import read_tensors, sha256_file, write_json
    from excise.errors import ExciseError
    from excise.provenance import provenance
    from excise.pruning import read_selection

    like = read_selection(arguments.like) if arguments.like else None
    if arguments.neurons is None and like is None:
        raise ExciseError("--neurons is missing: how many neurons to select")
    count = len(like["neurons"]) if arguments.neurons is None and like else arguments.neurons
    factor = (like["factor"] if like else 0.0) if arguments.factor is None else arguments.factor
    if count < 1:
        raise ExciseError(f"--neurons {count}: must be at least 1")
    if not 0 <= arguments.guard < 1:
        raise ExciseError(f"--guard {arguments.guard}: a share, at least 0 and below 1")
    meta, tensors = read_tensors(arguments.scores)
    method = meta["method"]
    control = "general" not in tensors
    layers, width = tensors["difference"].shape
    if control and (arguments.guard or arguments.differential != "plain"):
        raise ExciseError(f"--guard and --differential do not apply to the control {method!r}")

    if arguments.guard and tensors["general"].min() == tensors["general"].max():
        raise ExciseError(f"--guard {arguments.guard}: {method} has one general score for all neurons; use --guard 0")

    def choose(general: "torch.Tensor", behaviour: "torch.Tensor", error: "torch.Tensor | None") -> "torch.Tensor":
        score = selection.differential(general, behaviour, kind=arguments.differential, standard_error=error)
        protected = selection.guarded(general, arguments.guard)
        return selection.lowest(score, count, protected=protected, negative_only=True)

    stability: dict[str, object] = {}
    if control and like is not None:
        counts = Counter(row["layer"] for row in like["neurons"])
        profile = [counts[layer] for layer in range(layers)]
        if sum(profile) != count:
            raise ExciseError(f"{arguments.like}: lists {sum(profile)} neurons, --neurons asks for {count}")
        chosen = selection.lowest_by_layer(tensors["difference"], profile)
    elif control:
        chosen = selection.lowest(tensors["difference"], count)
    else:
        chosen = choose(tensors["general"], tensors["toxic"], tensors.get("standard_error"))
        if "general_by_seed" in tensors and arguments.differential != "standardised":
            seeds = zip(tensors["general_by_seed"].double(), tensors["toxic_by_seed"].double(), strict=True)
            by_seed = [set(choose(general, toxic, None).tolist()) for general, toxic in seeds]
            stability = {
                "seeds": len(by_seed),
                "jaccard_between_seeds": selection.pairwise_jaccard(by_seed),
                "jaccard_with_mean": [selection.jaccard(one, set(chosen.tolist())) for one in by_seed],
            }

    def value(name: str, index: int) -> float | None:
        return float(tensors[name].flatten()[index]) if name in tensors else None

    settings = {
        "scores": sha256_file(arguments.scores),
        "neurons": count,
        "differential": arguments.differential,
        "guard": arguments.guard,
        "like": sha256_file(arguments.like) if arguments.like else None,
    }
    write_json(
        arguments.output,
        provenance("select", settings, method=method, model=meta["model"], attribution=meta["settings"]),
        {
            "name": arguments.name or method,
            "method": method,
            "control": control,
            "factor": factor,
            "layers": layers,
            "neurons_per_layer": width,
            "stability": stability,
            "neurons": [
                {
                    "layer": index // width,
                    "neuron": index % width,
                    "rank": rank,
                    "score": value("difference", index),
                    "general": value("general", index),
                    "toxic": value("toxic", index),
                }
                for rank, index in enumerate(chosen.tolist(), 1)
            ],
        },
    )
