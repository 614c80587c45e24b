# In:  the model, or a variant's folder; a calibration text
# Out: variants/VARIANT/model: an ordinary model folder with pruned weights, gone when all is measured; the one to export
#      stays as export/VARIANT

from excise.compress import module_name
from excise.config.compress import Calibrating, Pruning


def entry_of(name):
    """The configured variant that a folder belongs to."""
    return config["variants"][FOLDERS[name].entry]


def compress_options(name):
    """How a folder is made."""
    entry, folder = entry_of(name), FOLDERS[name]
    series = f"{folder.entry} {folder.given}" if ":" in folder.given else folder.entry
    calibration = entry["calibration"]
    return " ".join(
        [
            options({"pattern": folder.given, "series": series}),
            options(entry, Pruning),
            options(calibration, Calibrating) if calibration else "",
        ]
    )


def made(name):
    """Settings and code of a folder, and of the one that it is made of."""
    base = entry_of(name)["base"]
    code = digest("stages.compress", module_name(entry_of(name)["method"]))
    return f"{compress_options(name)} {code}" + (f" of {made(base)}" if base else "")


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
    name = entry_of(wildcards.variant)["protect"]
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
        model=model_options,
        files=lambda w, input: options(
            {key: input.get(key) or None for key in ("calibration", "protect")}
        ),
        settings=lambda w: compress_options(w.variant),
        made=lambda w: made(w.variant),
    shell:
        "excise compress {input.model:q} {params.model} {params.files} {params.settings} "
        "--output {output:q} --log {log:q}"


use rule compress as compress_and_keep with:
    output:
        directory(f"{MODEL}/export/{{variant}}"),
    wildcard_constraints:
        variant=alternatives(FOLDERS.keys() & {config["export"]}),
