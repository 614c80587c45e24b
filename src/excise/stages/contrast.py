"""Subtract the neuron scores of the behaviour from those of general text: most negative, most responsible.

SparC3, eq. 7: R_general - R_toxic. For aura the two are 0.5 and the AUROC of each neuron. The standard error is that
of the difference of two independent means.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this stage."""
    parser.add_argument("--retain", type=Path, required=True, help="neuron scores on general text")
    parser.add_argument("--target", type=Path, required=True, help="neuron scores on samples of the behaviour")
    parser.add_argument("--output", type=Path, required=True, help="contrast, safetensors")


def run(arguments: argparse.Namespace) -> None:
    """Read, compare, subtract, write."""
    from excise.artefacts import read_tensors, sha256_file, write_tensors
    from excise.attribution import measured, module_name
    from excise.attribution.scores import refuse_not_finite
    from excise.errors import ExciseError
    from excise.provenance import provenance
    from excise.statistics import refuse_difference

    read = []
    for path in (arguments.retain, arguments.target):
        meta, tensors = read_tensors(path)
        if meta.get("stage") != "average":
            raise ExciseError(f"{path}: written by excise {meta.get('stage')}; give neuron scores (excise average)")
        read.append((meta, tensors))
    (general_meta, general), (toxic_meta, toxic) = read
    try:
        refuse_difference(general_meta, toxic_meta, ignored=VARYING)
    except ExciseError as error:
        raise ExciseError(f"{arguments.retain} and {arguments.target}: {error}") from error
    method = general_meta["method"]
    first, second = measured(method).contrast(general, toxic)
    tensors = {"retain": first, "target": second, "difference": first - second}
    refuse_not_finite(tensors["difference"])
    if "standard_error" in general and "standard_error" in toxic:
        tensors["standard_error"] = (general["standard_error"].square() + toxic["standard_error"].square()).sqrt()
    if general["by_seed"].shape == toxic["by_seed"].shape and not measured(method).ROWS:
        tensors |= {"retain_by_seed": general["by_seed"], "target_by_seed": toxic["by_seed"]}
    meta = provenance(
        "contrast",
        general_meta["settings"],
        packages=("torch",),
        modules=(module_name(method),),
        method=method,
        model=general_meta["model"],
        retain={**general_meta["corpus"], **general_meta["counts"], "sha256": sha256_file(arguments.retain)},
        target={**toxic_meta["corpus"], **toxic_meta["counts"], "sha256": sha256_file(arguments.target)},
        attribution=general_meta["attribution"],
    )
    write_tensors(arguments.output, meta, tensors)


VARYING = ("corpus.id", "corpus.seeds", "counts.samples", "counts.tokens", "inputs")
"""Entries of the provenance that may differ between the two corpora."""
