"""Select the N units with the lowest scores, over all layers together, and say what becomes of them.

Reads a contrast (excise contrast) or a control (excise control), and writes the unit list. Of a contrast only units
with a negative one are taken. With scores of several seeds it also selects from each seed alone and reports how much
these selections overlap.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excise.stages.options import add_treatment_arguments

if TYPE_CHECKING:
    from excise.artefacts import Array, Json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--scores", type=Path, required=True, help="contrast or control, safetensors")
    parser.add_argument(
        "--count",
        type=size,
        required=True,
        help="how many units to select, over all layers; all: every one with a negative contrast",
    )
    parser.add_argument("--contrast", default="plain", help="plain, scaled, standardised or set (default plain)")
    parser.add_argument(
        "--protect", type=float, default=0.0, help="protect this top share of absolute retain score (default 0)"
    )
    add_treatment_arguments(parser, scale=scale, scale_help="; expertise: each by its own, as in AurA (default 0)")
    parser.add_argument("--name", help="what to call the unit list in tables (default: the method)")
    parser.add_argument("--output", type=Path, required=True, help="unit list, JSON")


def size(text: str) -> int | str:
    """A number of units, or ``all``."""
    return text if text == "all" else int(text)


def scale(text: str) -> float | str:
    """A scale, or ``expertise``."""
    return text if text == "expertise" else float(text)


def run(arguments: argparse.Namespace) -> None:
    """Read the scores, select, write the unit list."""
    from excise import selection
    from excise.artefacts import read_arrays, sha256_file, write_json
    from excise.edits.treatment import treatment
    from excise.provenance import provenance

    scale = 0.0 if arguments.scale is None else arguments.scale
    meta, arrays = read_arrays(arguments.scores)
    check(arguments, meta, arrays)
    method, unit, shape = meta["method"], meta["settings"]["unit"], arrays["difference"].shape
    treated = treatment(
        ablation=arguments.ablation,
        scale=None if scale == "expertise" else scale,
        mean=arguments.mean,
        unit=unit,
        shape=shape,
        model=meta["model"],
    )
    count = None if arguments.count == "all" else arguments.count
    stability: dict[str, object] = {}
    columns = {name: arrays.get(name) for name in ("retain", "target")}
    facts: dict[str, Any] = {}
    if "retain" in arrays:
        chosen, stability = selected(arrays, count, arguments.contrast, arguments.protect)
        facts["references"] = {"target": meta["target"], "retain": meta["retain"]}
    else:
        chosen = selection.lowest(arrays["difference"], count)
    columns = {"score": arrays["difference"], **columns}
    if scale == "expertise":
        columns["scale"] = selection.dampening(arrays["target"])
    if treated.origin is not None:
        facts["mean"] = treated.origin
    settings = {
        "scores": sha256_file(arguments.scores),
        "count": arguments.count,
        "contrast": arguments.contrast,
        "protect": arguments.protect,
        "scale": scale,
    }
    values = {
        name: [None] * len(chosen) if column is None else column.ravel()[chosen].tolist()
        for name, column in columns.items()
    }
    write_json(
        arguments.output,
        provenance("select", settings, method=method, model=meta["model"], attribution=meta["settings"], **facts),
        {
            "name": arguments.name or method,
            "method": method,
            "control": "retain" not in arrays,
            "unit": unit,
            "ablation": treated.ablation,
            "scale": treated.scale,
            "layers": shape[0],
            "units_per_layer": shape[1],
            "stability": stability,
            "rows": treated.rows(unit, [divmod(index, shape[1]) for index in chosen.tolist()], values),
        },
    )


def check(arguments: argparse.Namespace, meta: "Json", arrays: "dict[str, Array]") -> None:
    """Refuse options that have no meaning for these scores.

    Raises:
        ExciseError: there is one.
    """
    from excise.errors import ExciseError

    method = meta["method"]
    if arguments.count != "all" and arguments.count < 1:
        raise ExciseError(f"--count {arguments.count}: must be at least 1")
    if not 0 <= arguments.protect < 1:
        raise ExciseError(f"--protect {arguments.protect}: a share, at least 0 and below 1")
    if arguments.scale == "expertise" and method != "aura":
        raise ExciseError(f"--scale expertise: belongs to method aura; {method} does not measure expertise")
    if "retain" not in arrays:
        if arguments.protect or arguments.contrast != "plain":
            raise ExciseError(f"--protect and --contrast do not apply to the control {method!r}")
        if arguments.count == "all":
            raise ExciseError(f"--count all: the control {method!r} has no contrast that could be negative")
    elif arguments.protect and arrays["retain"].min() == arrays["retain"].max():
        raise ExciseError(
            f"--protect {arguments.protect}: {method} has one retain score for all units; use --protect 0"
        )


def selected(
    arrays: "dict[str, Array]", count: int | None, contrast: str, protect: float
) -> "tuple[Array, dict[str, object]]":
    """The units with the lowest negative contrast, and how much the selections of single seeds overlap."""
    from excise import selection

    def choose(retain: "Array", target: "Array", error: "Array | None") -> "Array":
        score = selection.contrast(retain, target, kind=contrast, standard_error=error)
        protected = selection.most_relevant(retain, protect)
        return selection.lowest(score, count, protected=protected, negative_only=True)

    chosen = choose(arrays["retain"], arrays["target"], arrays.get("standard_error"))
    if "retain_by_seed" not in arrays or contrast == "standardised":
        return chosen, {}
    seeds = zip(arrays["retain_by_seed"], arrays["target_by_seed"], strict=True)
    by_seed = [set(choose(retain, target, None).tolist()) for retain, target in seeds]
    return chosen, {
        "seeds": len(by_seed),
        "jaccard_between_seeds": selection.pairwise_jaccard(by_seed),
        "jaccard_with_mean": [selection.jaccard(one, set(chosen.tolist())) for one in by_seed],
    }
