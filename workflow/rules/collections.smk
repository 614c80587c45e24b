# In:  the sources of test collections and folders of documents (local path, pinned package)
# Out: collections under the resources folder; for each experiment its parts: what calibrates, what is searched, what judges


include: "../common/collections.smk"


localrules:
    fetch_collection,
    split_collection,


wildcard_constraints:
    collection=alternatives(COLLECTIONS),


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
        parts=lambda w, output: parts_of_collection(w, output),
        cache=f"{INPUTS}/wheels",
        code=digest("stages.fetch_collection"),
    shell:
        "excise fetch-collection {params.source} --cache {params.cache:q} --documents {output:q}/documents.jsonl "
        "{params.parts} --log {log:q}"


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
        parts=lambda w, input: parts_of_collection(w, input.collection),
        others=apart_options,
        seed=config["seed"],
        code=digest("stages.split_collection"),
    shell:
        "excise split-collection --documents {input.collection:q}/documents.jsonl {params.parts} {params.others} "
        "{params.split} --seed {params.seed} --output {output:q} --log {log:q}"
