# Names and functions of the rules in rules/retrieve.smk: smaller encoders.

from excise.config.encoders import DENSE, smaller
from excise.config.retrieval import Keeping, Timing, Training

SMALLER = smaller(EXPERIMENT.retrieval)
ENCODERS = [DENSE, *SMALLER]
ROOM = f"{MODEL}/retrieval"
TARGETS += expand(
    f"{ROOM}/{{file}}", model=config["models"], file=["report.html", "retention.json"]
)


def recipe(name):
    """How a smaller encoder is made, as configured."""
    return RETRIEVAL["variants"][SMALLER[name].entry]


def folder(model, encoder):
    """Folder of an encoder."""
    if encoder == DENSE:
        return f"{INPUTS}/models/{model}"
    settings = recipe(encoder)
    kind = "distilled" if settings.get("distil") else "shrunk"
    kind = "static" if settings["kind"] == "static" else kind
    return f"{RUN}/{model}/retrieval/{kind}/{encoder}"


def scores_of_units(wildcards):
    """The scores that units are removed by; none where layers are dropped."""
    method = recipe(wildcards.smaller).get("method")
    if method is None:
        return []
    seed = config["seed"] + SMALLER[wildcards.smaller].seed
    return f"{RUN}/{wildcards.model}/retrieval/importance/{method}-{seed}.safetensors"


def shrink_options(wildcards):
    """What is removed, and how what is left is repaired."""
    settings, one = recipe(wildcards.smaller), SMALLER[wildcards.smaller]
    if settings["kind"] == "layers":
        return options({"name": one.entry, "keep_layers": one.size})
    if settings["time"]:
        kept = {"time": round(1 - one.size / 100, 8), "repair": settings["repair"]}
        return options({"name": one.entry} | kept)
    kinds = (
        ("neurons", "heads") if settings["units"] == "both" else (settings["units"],)
    )
    shares = {kind: one.size / 100 for kind in kinds}
    kept = {key: settings[key] for key in ("scope", "repair")}
    return options({"name": one.entry} | shares | kept)


def times_of_layers(wildcards):
    """The table of times that a budget of time is spent by."""
    budgeted = recipe(wildcards.smaller).get("time")
    return f"{RUN}/{wildcards.model}/retrieval/latency.json" if budgeted else []


def calibration_parts(wildcards):
    """The folder that holds calibration texts; none where no collection calibrates."""
    return f"{PARTS}/{CALIBRATING}" if CALIBRATING else []


def calibration_options(documents, queries):
    """Calibration documents and, where there are any, tuning queries, under the names that a stage gives them."""
    if CALIBRATING is None:
        return ""
    folder, found = f"{PARTS}/{CALIBRATING}", {}
    found[documents] = f"{folder}/calibration.jsonl"
    if COLLECTIONS[CALIBRATING]["tuning_fraction"]:
        found[queries] = f"{folder}/tuning-queries.jsonl"
    return options(found)


def judged_options(wildcards, input):
    """Documents, and queries where there are any, of one collection; or sentences, of which pairs judge."""
    if has_pairs(wildcards.collection):
        return options({"sentences": f"{input.parts}/documents.jsonl"})
    found = {"documents": f"{input.parts}/documents.jsonl"}
    if has_queries(wildcards.collection):
        found["queries"] = f"{input.parts}/test-queries.jsonl"
    return options(found)


def measured(wildcards):
    """All measurements of all encoders."""
    room = f"{RUN}/{wildcards.model}/retrieval"
    return [
        f"{room}/variants/{encoder}/{collection}.json"
        for encoder in ENCODERS
        for collection in COLLECTIONS
    ] + [f"{room}/cost/{encoder}.json" for encoder in ENCODERS]


def encoder_options(wildcards, input):
    """What embeds the texts; the dense model has done so already."""
    if not input.model:
        return options({"vectors": input.dense})
    return f"{options({'model': input.model})} {encoder_machine(wildcards)}"


def goal_of_encoders():
    """The fastest encoder that surely keeps enough on the first collection wins."""
    first = next(iter(COLLECTIONS))
    judged = "ndcg@10" if has_queries(first) else "spearman"
    kept = (
        f"{first}.{judged}"
        if has_queries(first) or has_pairs(first)
        else f"{first}-fidelity.cosine"
    )
    lost = round(100 * (1 - RETRIEVAL["at_least"]), 6)
    return options(
        {"lower": "cost.documents_ms", "within": f"{kept}=-{lost:g}% surely"}
    )


def encoder_job(passes, models=1):
    """Resources of a job that runs an encoder over the texts of its collection."""

    def mem_mb(wildcards, input, attempt):
        dense = f"{INPUTS}/models/{wildcards.model}"
        return attempt * int(BASE + costs.encoder_mb(dense, models))

    def runtime(wildcards, input, attempt, threads):
        speed = costs.GPU_SPEED if ON_GPU else costs.CPU_SPEED * threads
        texts = [str(part) for part in [input.get("parts", [])] if part]
        dense = f"{INPUTS}/models/{wildcards.model}"
        return attempt * costs.encoder_minutes(dense, texts, passes, speed)

    return on_device({"mem_mb": mem_mb, "runtime": runtime}, lambda wildcards, input: 1)


machine = options({key: config[key] for key in ("device", "threads")})


def encoder_machine(wildcards):
    """What an encoder runs on, and in which numbers."""
    return f"{options({'dtype': config['models'][wildcards.model]['dtype']})} {machine}"
