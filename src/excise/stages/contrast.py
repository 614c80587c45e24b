"""Subtract the scores on the target reference from those on the retain reference: most negative, most responsible.

SparC3, eq. 7: R_general - R_toxic. For aura the two are 0.5 and the AUROC of each neuron. The standard error is that
of the difference of two independent means.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--retain", type=Path, required=True, help="scores on general text")
    parser.add_argument("--target", type=Path, required=True, help="scores on samples of the behaviour")
    parser.add_argument("--output", type=Path, required=True, help="contrast, safetensors")


def run(arguments: argparse.Namespace) -> None:
    """Read, compare, subtract, write."""
    import numpy as np

    from excise.artefacts import read_arrays, sha256_file, write_arrays
    from excise.attribution.registry import measured
    from excise.attribution.scores import refuse_not_finite
    from excise.errors import ExciseError
    from excise.provenance import provenance
    from excise.statistics import refuse_difference

    read = []
    for path in (arguments.retain, arguments.target):
        meta, arrays = read_arrays(path)
        if meta.get("stage") != "average":
            raise ExciseError(f"{path}: written by excise {meta.get('stage')}; give scores (excise average)")
        read.append((meta, arrays))
    (retain_meta, retain), (target_meta, target) = read
    try:
        refuse_difference(retain_meta, target_meta, ignored=VARYING)
    except ExciseError as error:
        raise ExciseError(f"{arguments.retain} and {arguments.target}: {error}") from error
    method = measured(retain_meta["method"])
    if not method.ranks:
        raise ExciseError(f"{arguments.retain}: {method.name} measures means to ablate to; it does not rank units")
    first, second = method.contrast(retain, target)
    arrays = {"retain": first, "target": second, "difference": first - second}
    refuse_not_finite(arrays["difference"], retain_meta["settings"]["unit"])
    if "standard_error" in retain and "standard_error" in target:
        squares = np.square(retain["standard_error"]) + np.square(target["standard_error"])
        arrays["standard_error"] = np.sqrt(squares)
    if retain["by_seed"].shape == target["by_seed"].shape and not method.rows:
        arrays |= {"retain_by_seed": retain["by_seed"], "target_by_seed": target["by_seed"]}
    meta = provenance(
        "contrast",
        retain_meta["settings"],
        packages=("numpy",),
        modules=(method.module,),
        method=method.name,
        model=retain_meta["model"],
        retain={**retain_meta["corpus"], **retain_meta["counts"], "sha256": sha256_file(arguments.retain)},
        target={**target_meta["corpus"], **target_meta["counts"], "sha256": sha256_file(arguments.target)},
        attribution=retain_meta["attribution"],
    )
    write_arrays(arguments.output, meta, arrays)


VARYING = ("corpus.id", "corpus.seeds", "counts.samples", "counts.tokens", "inputs")
"""Entries of the provenance that may differ between the two reference sets."""
