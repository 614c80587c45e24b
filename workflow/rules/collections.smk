# In:  the sources of test collections and folders of documents (local path, pinned package)
# Out: collections under the resources folder; for each experiment its parts: what calibrates, what is searched, what judges

from excise.config.encoders import calibrating
from excise.config.retrieval import CollectionSource, CollectionSplit
from excise.data.collection_formats import WITHOUT_QUERIES


localrules:
    fetch_collection,
    split_collection,


RETRIEVAL = config["retrieval"]
COLLECTIONS = RETRIEVAL["collections"]
CALIBRATING = calibrating(EXPERIMENT.retrieval)
PARTS = f"{RUN}/collections"


wildcard_constraints:
    collection=alternatives(COLLECTIONS),


def has_queries(collection):
    """Whether a collection is judged by queries, or by the likeness of embeddings alone."""
    return COLLECTIONS[collection]["format"] not in WITHOUT_QUERIES


def other_collections(wildcards):
    """Collections that only judge: what they hold is not calibrated on."""
    names = [
        name
        for name in COLLECTIONS
        if name != CALIBRATING and wildcards.collection == CALIBRATING
    ]
    return [f"{INPUTS}/collections/{name}" for name in names]


def apart_options(wildcards, input):
    """Their files."""
    return options(
        {
            "apart_from": [
                f"{folder}/{name}.jsonl"
                for folder in input.others
                for name in (
                    ("documents", "queries")
                    if has_queries(Path(folder).name)
                    else ("documents",)
                )
            ]
        }
    )


rule fetch_collection:
    input:
        lambda w: on_disk(COLLECTIONS[w.collection]["source"]),
    output:
        directory(f"{INPUTS}/collections/{{collection}}"),
    log:
        f"{INPUTS}/logs/fetch_collection/{{collection}}.log",
    conda:
        "../../envs/excise.yaml"
    params:
        source=lambda w: options(COLLECTIONS[w.collection], CollectionSource),
        queries=lambda w, output: (
            options({"queries": f"{output}/queries.jsonl"})
            if has_queries(w.collection)
            else ""
        ),
        cache=f"{INPUTS}/wheels",
        code=digest("stages.fetch_collection"),
    shell:
        "excise fetch-collection {params.source} --cache {params.cache:q} --documents {output:q}/documents.jsonl "
        "{params.queries} --log {log:q}"


rule split_collection:
    input:
        collection=f"{INPUTS}/collections/{{collection}}",
        others=other_collections,
    output:
        directory(f"{PARTS}/{{collection}}"),
    log:
        f"{RUN}/logs/split_collection/{{collection}}.log",
    conda:
        "../../envs/excise.yaml"
    params:
        split=lambda w: options(COLLECTIONS[w.collection], CollectionSplit),
        queries=lambda w, input: (
            options({"queries": f"{input.collection}/queries.jsonl"})
            if has_queries(w.collection)
            else ""
        ),
        others=apart_options,
        seed=config["seed"],
        code=digest("stages.split_collection"),
    shell:
        "excise split-collection --documents {input.collection:q}/documents.jsonl {params.queries} {params.others} "
        "{params.split} --seed {params.seed} --output {output:q} --log {log:q}"
