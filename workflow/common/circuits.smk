# Names and functions of the rules in rules/circuits.smk: circuits.

from excise.circuits import methods as edge_methods
from excise.config.circuit_options import (
    Choosing,
    EdgeRemoval,
    HeadRemoval,
    Running,
    Scoring,
    Task,
)

TASK = f"{MODEL}/circuits/{{task}}"
TARGETS += [
    f"{RUN}/{model}/circuits/{task}/{wanted}"
    for model in config["models"]
    for task, circuit in config["circuits"].items()
    for wanted in (["report.html"] if circuit["methods"] else [])
    + [f"heads/strongest-{share}.json" for share in circuit["strongest"]]
    + [
        f"heads/random-{share}-{repeat}.json"
        for share in circuit["strongest"]
        for repeat in range(circuit["repeats"])
    ]
]


def circuit_of(wildcards):
    """The section of a task."""
    return config["circuits"][wildcards.task]


def parts_of(wildcards):
    """Jobs that score a method's edges; a control sees no pair, and needs one."""
    return (
        1 if wildcards.edges in edge_methods.DRAWN else circuit_of(wildcards)["shards"]
    )


def edge_scores(wildcards, method):
    """The scores of a method: of its one part, or of all of them merged."""
    folder = f"{RUN}/{wildcards.model}/circuits/{wildcards.task}/edges"
    one = method in edge_methods.DRAWN or circuit_of(wildcards)["shards"] == 1
    return f"{folder}/{method}{'-part-0' if one else ''}.safetensors"


def running(wildcards):
    """What is measured on a pair."""
    return options(circuit_of(wildcards), Running)


def passes_of(wildcards):
    """Forward passes that a method's scores cost, of which a backward pass counts two."""
    if wildcards.edges in edge_methods.DRAWN:
        return 1
    points = edge_methods.measured(wildcards.edges).points(
        circuit_of(wildcards)["steps"]
    )
    return 2 + 3 * len(points)


def nodes_of(wildcards, input):
    """Forward passes that exact patching costs: half of one per head and MLP, of which a layer has 40 at most."""
    return 20 * model_info(input.facts, os.stat(input.facts).st_mtime_ns)["layers"]


def removed_of(wildcards, input):
    """Forward passes that removing edges costs: two for each candidate, of which a larger batch tries several."""
    candidates = circuit_of(wildcards)["remove_edges"]["candidates"]
    heads = nodes_of(wildcards, input) / 2  # 10 in a layer: few, as small models have
    return 2 * (candidates if candidates >= 1 else candidates * 1.5 * heads**2)


def circuit_job(passes):
    """Resources of a job that runs circuits, where passes(wildcards, input) are forward passes over all pairs."""
    return model_job(
        lambda w, input: costs.circuits(
            circuit_of(w)["batch_size"], input.pairs, passes(w, input)
        )
    )


def first_circuits(wildcards):
    """The circuits that are chosen: of the first method, at all sizes."""
    circuit = circuit_of(wildcards)
    return [f"{circuit['methods'][0]}-{size}" for size in circuit["sizes"]]
