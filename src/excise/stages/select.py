"""Select the N neurons to prune, globally over all layers, and say what becomes of them.

Reads a contrast (excise contrast) or a control (excise control), and writes the neuron list. With scores of
several seeds it also selects from each seed alone and reports how much these selections overlap.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--scores", type=Path, required=True, help="contrast or control, safetensors")
    parser.add_argument(
        "--neurons",
        type=size,
        help="how many neurons to select, over all layers; all: every one with a negative contrast; with --matched-to "
        "(where it is the default): as many as it has",
    )
    parser.add_argument("--contrast", default="plain", help="plain, scaled, standardised or set (default plain)")
    parser.add_argument(
        "--protect", type=float, default=0.0, help="protect this top share of absolute general score (default 0)"
    )
    parser.add_argument(
        "--scale",
        type=scale,
        help="what a selected neuron is scaled by; expertise: each by its own, as in AurA (default 0, or that of "
        "--matched-to)",
    )
    parser.add_argument(
        "--ablation",
        help="what it is scaled about: zero, or mean (default: mean with --mean, or that of --matched-to)",
    )
    parser.add_argument("--mean", type=Path, help="neuron scores of method mean-activation, where the ablation is mean")
    parser.add_argument("--matched-to", type=Path, help="controls: as many from each layer as this neuron list has")
    parser.add_argument("--name", help="what to call the selection in tables (default: the method)")
    parser.add_argument("--output", type=Path, required=True, help="neuron list, JSON")


def size(text: str) -> int | str:
    """A number of neurons, or ``all``."""
    return text if text == "all" else int(text)


def scale(text: str) -> float | str:
    """A scale, or ``expertise``."""
    return text if text == "expertise" else float(text)


def run(arguments: argparse.Namespace) -> None:
    """Read the scores, select, write the neuron list."""
    from collections import Counter

    from excise import selection
    from excise.artefacts import read_tensors, sha256_file, write_json
    from excise.edits.ablation import ABLATIONS, check_fits, read_selection
    from excise.errors import ExciseError, unknown
    from excise.provenance import provenance

    like = read_selection(arguments.matched_to) if arguments.matched_to else None
    if arguments.neurons is None and like is None:
        raise ExciseError("--neurons is missing: how many neurons to select")
    wanted = len(like["neurons"]) if like and arguments.neurons in (None, "all") else arguments.neurons
    count = None if wanted == "all" else wanted
    scale = (like["scale"] if like else 0.0) if arguments.scale is None else arguments.scale
    ablation = arguments.ablation
    if ablation is None:
        ablation = like.get("ablation", "zero") if like else "mean" if arguments.mean else "zero"
    if ablation not in ABLATIONS:
        raise unknown("ablation", ablation, ABLATIONS, where="--ablation")
    if ablation == "mean" and arguments.mean is None:
        raise ExciseError("--mean is missing: the mean activations that the neurons are scaled about")
    if count is not None and count < 1:
        raise ExciseError(f"--neurons {count}: must be at least 1")
    if not 0 <= arguments.protect < 1:
        raise ExciseError(f"--protect {arguments.protect}: a share, at least 0 and below 1")
    meta, tensors = read_tensors(arguments.scores)
    method = meta["method"]
    control = "retain" not in tensors
    layers, width = tensors["difference"].shape
    if control and (arguments.protect or arguments.contrast != "plain"):
        raise ExciseError(f"--protect and --contrast do not apply to the control {method!r}")
    if like is not None and not control:
        raise ExciseError(f"--matched-to belongs to controls; {method} is none")
    if control and count is None:
        raise ExciseError(f"--neurons all: the control {method!r} has no contrast that could be negative")
    if arguments.scale == "expertise" and method != "aura":
        raise ExciseError(f"--scale expertise: belongs to method aura; {method} does not measure expertise")
    if arguments.protect and tensors["retain"].min() == tensors["retain"].max():
        raise ExciseError(
            f"--protect {arguments.protect}: {method} has one general score for all neurons; use --protect 0"
        )

    def choose(general: "torch.Tensor", behaviour: "torch.Tensor", error: "torch.Tensor | None") -> "torch.Tensor":
        score = selection.contrast(general, behaviour, kind=arguments.contrast, standard_error=error)
        protected = selection.most_relevant(general, arguments.protect)
        return selection.lowest(score, count, protected=protected, negative_only=True)

    stability: dict[str, object] = {}
    if control and like is not None:
        counts = Counter(row["layer"] for row in like["neurons"])
        profile = [counts[layer] for layer in range(layers)]
        if sum(profile) != count:
            raise ExciseError(f"{arguments.matched_to}: lists {sum(profile)} neurons, --neurons asks for {count}")
        chosen = selection.lowest_by_layer(tensors["difference"], profile)
    elif control:
        chosen = selection.lowest(tensors["difference"], count)
    else:
        chosen = choose(tensors["retain"], tensors["target"], tensors.get("standard_error"))
        if "retain_by_seed" in tensors and arguments.contrast != "standardised":
            seeds = zip(tensors["retain_by_seed"].double(), tensors["target_by_seed"].double(), strict=True)
            by_seed = [set(choose(general, toxic, None).tolist()) for general, toxic in seeds]
            stability = {
                "seeds": len(by_seed),
                "jaccard_between_seeds": selection.pairwise_jaccard(by_seed),
                "jaccard_with_mean": [selection.jaccard(one, set(chosen.tolist())) for one in by_seed],
            }

    columns = {"score": tensors["difference"], "retain": tensors.get("retain"), "target": tensors.get("target")}
    if scale == "expertise" and like is None:
        columns["scale"] = selection.dampening(tensors["target"])
    facts: dict[str, Any] = {}
    if not control:
        facts["references"] = {"target": meta["target"], "retain": meta["retain"]}
    if ablation == "mean":
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
    if scale == "expertise" and like is not None:  # both go layer by layer
        values["scale"] = [row["scale"] for row in sorted(like["neurons"], key=lambda row: row["layer"])]
    settings = {
        "scores": sha256_file(arguments.scores),
        "neurons": wanted,
        "contrast": arguments.contrast,
        "protect": arguments.protect,
        "matched_to": sha256_file(arguments.matched_to) if arguments.matched_to else None,
    }
    write_json(
        arguments.output,
        provenance("select", settings, method=method, model=meta["model"], attribution=meta["settings"], **facts),
        {
            "name": arguments.name or method,
            "method": method,
            "control": control,
            "scale": scale,
            "ablation": ablation,
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
