# Names and functions of the rules in rules/compress.smk: folders of compressed variants.

from excise.compress import module_name
from excise.config.compress import Calibrating, Factoring, Pruning, Slicing


def entry_of(name):
    """The configured variant that a folder belongs to."""
    return config["variants"][FOLDERS[name].entry]


SETTINGS = {
    "compress": ("pattern", Pruning),
    "slice": ("keep", Slicing),
    "low-rank": ("keep", Factoring),
}


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
    code = digest(f"stages.{entry['edit'].replace('-', '_')}", *also)
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
