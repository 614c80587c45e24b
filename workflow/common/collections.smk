# Names and functions of the rules in rules/collections.smk: the parts of collections.

from excise.config.encoders import calibrating
from excise.config.retrieval import CollectionSource, CollectionSplit
from excise.data.collection_formats import WITH_PAIRS, WITHOUT_QUERIES

RETRIEVAL = config["retrieval"]
COLLECTIONS = RETRIEVAL["collections"]
CALIBRATING = calibrating(EXPERIMENT.retrieval)
PARTS = f"{RUN}/collections"


def has_queries(collection):
    """Whether a collection is judged by queries, or by the likeness of embeddings alone."""
    return COLLECTIONS[collection]["format"] not in WITHOUT_QUERIES


def has_pairs(collection):
    """Whether a collection is judged by pairs of sentences."""
    return COLLECTIONS[collection]["format"] in WITH_PAIRS


def parts_of_collection(wildcards, folder):
    """Options that name the files of a collection beside its documents."""
    found = {
        "queries": has_queries(wildcards.collection),
        "pairs": has_pairs(wildcards.collection),
    }
    return options(
        {name: f"{folder}/{name}.jsonl" for name, there in found.items() if there}
    )


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
