"""Select the N neurons to prune, globally over all layers, and say what becomes of them.

Reads a differential (excise differential) or a control (excise control), and writes the neuron list. With scores of
several seeds it also selects from each seed alone and reports how much these selections overlap.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--scores", type=Path, required=True, help="differential or control, safetensors")
    parser.add_argument(
        "--neurons",
        type=size,
        help="how many neurons to select, over all layers; all: every one with a negative differential; with --like "
        "(where it is the default): as many as it has",
    )
    parser.add_argument("--differential", default="plain", help="plain, scaled, standardised or set (default plain)")
    parser.add_argument(
        "--guard", type=float, default=0.0, help="protect this top share of absolute general score (default 0)"
    )
    parser.add_argument(
        "--factor",
        type=factor,
        help="what a selected neuron is scaled by; expertise: each by its own, as in AurA (default 0, with --like: "
        "what it says)",
    )
    parser.add_argument(
        "--centre", help="what it is scaled about: zero, or mean (default: mean with --mean; with --like: what it says)"
    )
    parser.add_argument("--mean", type=Path, help="neuron scores of method mean-activation, where the centre is mean")
    parser.add_argument("--like", type=Path, help="controls: take as many from each layer as this neuron list does")
    parser.add_argument("--name", help="what to call the selection in tables (default: the method)")
    parser.add_argument("--output", type=Path, required=True, help="neuron list, JSON")


def size(text: str) -> int | str:
    """A number of neurons, or ``all``."""
    return text if text == "all" else int(text)


def factor(text: str) -> float | str:
    """A factor, or ``expertise``."""
    return text if text == "expertise" else float(text)


def run(arguments: argparse.Namespace) -> None:
    """Read the scores, select, write the neuron list."""
    from collections import Counter

    from excise import selection
    from excise.artefacts import read_tensors, sha256_file, write_json
    from excise.edits.ablation import CENTRES, check_fits, read_selection
    from excise.errors import ExciseError, unknown
    from excise.provenance import provenance

    like = read_selection(arguments.like) if arguments.like else None
    if arguments.neurons is None and like is None:
        raise ExciseError("--neurons is missing: how many neurons to select")
    wanted = len(like["neurons"]) if like and arguments.neurons in (None, "all") else arguments.neurons
    count = None if wanted == "all" else wanted
    factor = (like["factor"] if like else 0.0) if arguments.factor is None else arguments.factor
    centre = arguments.centre
    if centre is None:
        centre = like.get("centre", "zero") if like else "mean" if arguments.mean else "zero"
    if centre not in CENTRES:
        raise unknown("centre", centre, CENTRES, where="--centre")
    if centre == "mean" and arguments.mean is None:
        raise ExciseError("--mean is missing: the mean activations that the neurons are scaled about")
    if count is not None and count < 1:
        raise ExciseError(f"--neurons {count}: must be at least 1")
    if not 0 <= arguments.guard < 1:
        raise ExciseError(f"--guard {arguments.guard}: a share, at least 0 and below 1")
    meta, tensors = read_tensors(arguments.scores)
    method = meta["method"]
    control = "general" not in tensors
    layers, width = tensors["difference"].shape
    if control and (arguments.guard or arguments.differential != "plain"):
        raise ExciseError(f"--guard and --differential do not apply to the control {method!r}")
    if like is not None and not control:
        raise ExciseError(f"--like belongs to controls; {method} is none")
    if control and count is None:
        raise ExciseError(f"--neurons all: the control {method!r} has no differential that could be negative")
    if arguments.factor == "expertise" and method != "aura":
        raise ExciseError(f"--factor expertise: belongs to method aura; {method} does not measure expertise")
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

    columns = {"score": tensors["difference"], "general": tensors.get("general"), "toxic": tensors.get("toxic")}
    if factor == "expertise" and like is None:
        columns["factor"] = selection.dampening(tensors["toxic"])
    facts: dict[str, Any] = {}
    if not control:
        facts["references"] = {"behaviour": meta["toxic"], "general": meta["general"]}
    if centre == "mean":
        mean, means = read_tensors(arguments.mean)
        if (mean.get("stage"), mean.get("method")) != ("average", "mean-activation"):
            raise ExciseError(f"{arguments.mean}: not neuron scores (excise average) of method mean-activation")
        check_fits({"meta": mean}, meta["model"]["fingerprint"], where=str(arguments.mean))
        columns["mean"] = means["score"]
        facts["mean"] = {**mean["corpus"], **mean["counts"], "sha256": sha256_file(arguments.mean)}
    values = {
        name: [None] * len(chosen) if column is None else column.flatten()[chosen].tolist()
        for name, column in columns.items()
    }
    if factor == "expertise" and like is not None:  # both go layer by layer
        values["factor"] = [row["factor"] for row in sorted(like["neurons"], key=lambda row: row["layer"])]
    settings = {
        "scores": sha256_file(arguments.scores),
        "neurons": wanted,
        "differential": arguments.differential,
        "guard": arguments.guard,
        "like": sha256_file(arguments.like) if arguments.like else None,
    }
    write_json(
        arguments.output,
        provenance("select", settings, method=method, model=meta["model"], attribution=meta["settings"], **facts),
        {
            "name": arguments.name or method,
            "method": method,
            "control": control,
            "factor": factor,
            "centre": centre,
            "layers": layers,
            "neurons_per_layer": width,
            "stability": stability,
            "neurons": [
                {
                    "layer": index // width,
                    "neuron": index % width,
                    "rank": rank,
                    **{name: column[rank - 1] for name, column in values.items()},
                }
                for rank, index in enumerate(chosen.tolist(), 1)
            ],
        },
    )
