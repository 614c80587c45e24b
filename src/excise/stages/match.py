"""Select a matched control: as many units from each layer as another unit list has, those that a control ranks lowest.

The units are treated as those of the list: same ablation, same scales.
"""

import argparse
from pathlib import Path
from typing import Any

from excise.stages.options import add_treatment_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--scores", type=Path, required=True, help="control (excise control), safetensors")
    parser.add_argument("--matched-to", type=Path, required=True, help="unit list whose layers are copied, JSON")
    add_treatment_arguments(parser, scale=float, scale_help=" (default: those of --matched-to)")
    parser.add_argument("--name", help="what to call the unit list in tables (default: the method)")
    parser.add_argument("--output", type=Path, required=True, help="unit list, JSON")


def run(arguments: argparse.Namespace) -> None:
    """Read both, select layer by layer, write the unit list."""
    from collections import Counter

    from excise.artefacts import read_arrays, sha256_file, write_json
    from excise.edits.treatment import treatment
    from excise.edits.unit_list import check_fits, read_units
    from excise.errors import ExciseError
    from excise.provenance import provenance
    from excise.selection import lowest_by_layer

    other = read_units(arguments.matched_to)
    meta, arrays = read_arrays(arguments.scores)
    method, unit, shape = meta["method"], meta["settings"]["unit"], arrays["difference"].shape
    if "retain" in arrays:
        raise ExciseError(f"--matched-to belongs to controls; {method} is none")
    check_fits(other, meta["model"]["fingerprint"], where=str(arguments.matched_to))
    if (unit, *shape) != (other["unit"], other["layers"], other["units_per_layer"]):
        raise ExciseError(
            f"{arguments.matched_to}: lists units of kind {other['unit']}, {arguments.scores} scores {unit}; "
            f"make the control with --unit {other['unit']}"
        )
    inherited = arguments.scale is None
    treated = treatment(
        ablation=arguments.ablation or other["ablation"],
        scale=other["scale"] if inherited else arguments.scale,
        mean=arguments.mean,
        unit=unit,
        shape=shape,
        model=meta["model"],
    )
    counts = Counter(row["layer"] for row in other["rows"])
    chosen = lowest_by_layer(arrays["difference"], [counts[layer] for layer in range(shape[0])])
    columns: dict[str, list[Any]] = {"score": arrays["difference"].ravel()[chosen].tolist()}
    if treated.scale is None:  # both go layer by layer
        columns["scale"] = [row["scale"] for row in sorted(other["rows"], key=lambda row: row["layer"])]
    settings = {
        "scores": sha256_file(arguments.scores),
        "matched_to": sha256_file(arguments.matched_to),
        "scale": arguments.scale,
    }
    facts = {} if treated.origin is None else {"mean": treated.origin}
    write_json(
        arguments.output,
        provenance("match", settings, method=method, model=meta["model"], attribution=meta["settings"], **facts),
        {
            "name": arguments.name or method,
            "method": method,
            "control": True,
            "unit": unit,
            "ablation": treated.ablation,
            "scale": treated.scale,
            "layers": shape[0],
            "units_per_layer": shape[1],
            "stability": {},
            "rows": treated.rows(unit, [divmod(index, shape[1]) for index in chosen.tolist()], columns),
        },
    )
