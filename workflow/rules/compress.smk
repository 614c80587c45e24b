# In:  the model, or a variant's folder; a calibration text
# Out: variants/VARIANT/model: an ordinary model folder, pruned or sliced, gone when all is measured; the one to export
#      stays as export/VARIANT

from excise.compress import module_name
from excise.config.compress import Calibrating, Pruning, Slicing


def entry_of(name):
    """The configured variant that a folder belongs to."""
    return config["variants"][FOLDERS[name].entry]


SETTINGS = {"compress": ("pattern", Pruning), "slice": ("keep", Slicing)}


def compress_options(name):
    """How a folder is made."""
    entry, folder = entry_of(name), FOLDERS[name]
    given, settings = SETTINGS[entry["edit"]]
    series = f"{folder.entry} {folder.given}" if ":" in folder.given else folder.entry
    calibration = entry["calibration"]
    return " ".join(
        [
            options({given: folder.given, "series": series}),
            options(entry, settings),
            options(calibration, Calibrating) if calibration else "",
        ]
    )


def made(name):
    """Settings and code of a folder, and of the one that it is made of."""
    entry = entry_of(name)
    also = [module_name(entry["method"])] if entry["edit"] == "compress" else []
    code = digest(f"stages.{entry['edit']}", *also)
    below = f" of {made(entry['base'])}" if entry["base"] else ""
    return f"{compress_options(name)} {code}{below}"


def base_of(wildcards):
    """The folder that is compressed."""
    base = entry_of(wildcards.variant)["base"]
    path = folder_of(base) if base else f"{INPUTS}/models/{{model}}"
    return path.format(model=wildcards.model)


def calibration_of(wildcards):
    """The calibration text, where the method measures anything."""
    calibration = entry_of(wildcards.variant)["calibration"]
    return f"{INPUTS}/texts/{calibration['text']}.jsonl" if calibration else []


def protected_of(wildcards):
    """The unit list whose weights are not pruned: one of this experiment, or a file."""
    name = entry_of(wildcards.variant).get("protect")
    listed = name in LISTS or name in CHOICES
    return f"{RUN}/{wildcards.model}/units/{name}.json" if listed else name or []


rule compress:
    input:
        model=base_of,
        facts=FACTS,
        calibration=calibration_of,
        protect=protected_of,
    output:
        temp(directory(f"{VARIANT}/model")),
    log:
        f"{MODEL}/logs/compress-{{variant}}.log",  # beside other steps: the report lists what each variant took
    wildcard_constraints:
        variant=alternatives(FOLDERS.keys() - {config["export"]}),
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **model_job(lambda w, input: costs.compress(entry_of(w.variant)["calibration"])),
    params:
        stage=lambda w: entry_of(w.variant)["edit"],
        model=model_options,
        files=lambda w, input: options(
            {key: input.get(key) or None for key in ("calibration", "protect")}
        ),
        settings=lambda w: compress_options(w.variant),
        made=lambda w: made(w.variant),
    shell:
        "excise {params.stage} {input.model:q} {params.model} {params.files} {params.settings} "
        "--output {output:q} --log {log:q}"


use rule compress as compress_and_keep with:
    output:
        directory(f"{MODEL}/export/{{variant}}"),
    wildcard_constraints:
        variant=alternatives(FOLDERS.keys() & {config["export"]}),
