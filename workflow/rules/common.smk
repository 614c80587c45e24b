# Checks the configuration, names every path once, and holds the functions that the rules share.

import atexit
import gc
import os
import re
import shlex
import sys
from pathlib import Path
from urllib.parse import quote, unquote

import yaml

from excise.artefacts import sha256_file
from excise.attribution.registry import CONTROLS, METHODS
from excise.config import BASELINE, TUNING, WINNER, plan
from excise.checks import validated
from excise.config.options import options
from excise.config.reading import check_file
from excise.digest import digest
from excise.errors import ExciseError
from excise.evaluation.capability import check_installed
from excise.evaluation.scorers import check_own, needs_trial, own_source
from excise.evaluation.scorers import module as scorer_module
from excise.models.files import model_files
from excise.models.units import UNITS
from excise.data.sources import local_files


envvars:
    "PATH",


# Jobs find the command beside the Python that runs Snakemake, also where no environment is activated.
os.environ["PATH"] = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ["PATH"]]
)

# A last garbage collection frees nothing that the end does not; without it each Snakemake, two a Slurm job, ends sooner.
atexit.register(gc.freeze)

try:
    for path in workflow.configfiles:
        check_file(Path(path))
    EXPERIMENT = validated(config)
    LISTS, FOLDERS, CHOICES, VARIANTS = (
        plan.unit_lists(EXPERIMENT),
        plan.folders(EXPERIMENT),
        plan.choices(EXPERIMENT),
        plan.judged(EXPERIMENT),
    )
    ATTRIBUTED = plan.attributed(EXPERIMENT)
    ABOUT_MEAN = {
        name: plan.about_mean(EXPERIMENT, name)
        for name in plan.unit_variants(EXPERIMENT)
    }
    # With --sdm conda the jobs have an environment of their own, which this one does not see.
    if not workflow.deployment_settings.deployment_method:
        for scorer in {
            EXPERIMENT.generations.scorer,
            *EXPERIMENT.evaluation.scorers,
        }:
            check_own(scorer)
        if EXPERIMENT.evaluation.capability.tasks:
            check_installed()
except ExciseError as error:
    raise WorkflowError(str(error)) from None

# As it was given, for what jobs read; then with all defaults filled in.
GIVEN = config
config = EXPERIMENT.model_dump()


MEAN = "mean-activation"

INPUTS = config["inputs"]
RUN = f"{config['results']}/{config['experiment']}"
MODEL = f"{RUN}/{{model}}"
VARIANT = f"{MODEL}/variants/{{variant}}"
# No input is ancient(): below a job that runs, Snakemake 9 asks no other whether its own settings changed, and behind an
# ancient input it would then keep old results under new settings.
FACTS = f"{MODEL}/model.json"

# Data of the tasks that measure capability, and how much work they are.
TASKS = f"{INPUTS}/tasks/{config['experiment']}"

# What competes on the tuning prompts goes through the rules that judge variants, as tuning/VARIANT.
COMPETING = [
    f"{TUNING}/{name}"
    for name in ([BASELINE] if CHOICES else []) + sum(CHOICES.values(), [])
]
JUDGED = [BASELINE, *VARIANTS, *COMPETING]
# The seeds that draw each reference set, and all of them.
DRAWN = plan.seeds_of_references(EXPERIMENT)
SEEDS = sorted(
    {seed for seeds in DRAWN.values() for seed in seeds} | {*config["seeds"]}
)
# The sections of the configuration that say how text is generated.
SECTIONS = {
    "generations": config["generations"],
    "evaluation": config["evaluation"],
    TUNING: config["evaluation"] | config["tuning"],
}


def part_of(variant):
    """The prompts that a variant is judged on, and the section of the configuration that says how."""
    return TUNING if variant.startswith(f"{TUNING}/") else "evaluation"


# Folders of generations: the section of the configuration that wants them, and the prompts that they continue.
GENERATED = {
    f"generations/seed-{seed}": ("generations", "attribution") for seed in SEEDS
} | {f"variants/{variant}": (part_of(variant),) * 2 for variant in JUDGED}


def alternatives(names):
    """A wildcard constraint: one of these names and nothing else."""
    return "|".join(re.escape(str(name)) for name in names) or "(?!)"


def sharded(*sections):
    """A wildcard constraint: the folders of these sections of the configuration that are cut into shards."""
    return alternatives(
        folder
        for folder, (section, _) in GENERATED.items()
        if section in sections and SECTIONS[section]["shards"] > 1
    )


wildcard_constraints:
    model=alternatives(config["models"]),
    unit=alternatives(UNITS),
    method=alternatives(
        {variant.method for variant in plan.unit_variants(EXPERIMENT).values()}
        | {MEAN}
    ),
    corpus=alternatives(config["references"]),
    seed=alternatives(SEEDS),
    draw="(-finding-[0-9]+)?",
    shard="[0-9]+",
    variant=alternatives(JUDGED),
    choice=alternatives(CHOICES),


def of_kind(kind):
    """Names of the reference sets of one kind."""
    return [
        name
        for name, reference in config["references"].items()
        if reference["kind"] == kind
    ]


def picked_references(wildcards):
    """The other reference sets that are picked by score: too few answers must come out before any attribution starts."""
    return [
        f"{RUN}/{wildcards.model}/references/{corpus}/seed-{seed}.jsonl"
        for corpus in of_kind("generations")
        for seed in DRAWN[corpus]
        if corpus in ATTRIBUTED and corpus != wildcards.corpus
    ]


def on_disk(source):
    """The files of a source that lies here, to be watched; none of the hub or a wheel, or of what the stage will miss."""
    if source.startswith(("hub:", "wheel:", "sdist:")):
        return []
    found = local_files(Path(source).expanduser())
    folders = [path for path in found if path.is_dir()]
    try:
        inside = [file for path in folders for file in model_files(path)]
    except ExciseError as error:
        raise WorkflowError(str(error)) from None
    return sorted(str(file) for file in [*found, *inside] if file.is_file())


# Snakemake keeps what it has where an input that nothing makes is gone.
for name in of_kind("file"):
    if not on_disk(config["references"][name]["source"]):
        raise WorkflowError(
            f"config: references.{name}.source: there is no file {config['references'][name]['source']!r}"
        )


def model_options(wildcards):
    """How a job opens its model."""
    machine = {key: config[key] for key in ("device", "threads")}
    return options({"dtype": config["models"][wildcards.model]["dtype"]} | machine)


# What `rule all` asks for beside the reports of variants; each room of its own adds to it.
TARGETS = []


def targets():
    """What `rule all` asks for."""
    wanted = [*TARGETS]
    for model in config["models"]:
        if config["variants"]:
            wanted.append(f"{RUN}/{model}/report.html")
        if config["export"] is not None:
            wanted.append(f"{RUN}/{model}/export/{config['export']}")
    return wanted


def units_options(wildcards, input):
    """The unit list that a model is measured with, where there is one."""
    return options({"units": input.get("units") or None})


def scorer_options(scorer, **more):
    """A scorer as a command line names it, and more options."""
    return options({"scorer": scorer} | more | config["scorers"].get(scorer, {}))


def scorer_code(scorer, stage="score"):
    """Digest of the code that scores, a user's own file included."""
    own = own_source(scorer)
    return digest(f"stages.{stage}", scorer_module(scorer)) + (
        f"-{sha256_file(own)[:16]}" if own else ""
    )


def fetched_scorer(scorer):
    """What says that a scorer was fetched and tried, where that must be."""
    return (
        f"{INPUTS}/scorers/{quote(scorer, safe='')}.json" if needs_trial(scorer) else []
    )


def scores_folder(wildcards, method=None):
    """Where the scores of a method (of the variant's own) lie: of a later finding in a folder of its own."""
    variant = LISTS[wildcards.variant]
    selection = config["variants"][variant.entry]
    draw = f"-finding-{variant.finding}" if variant.finding > 1 else ""
    return f"{RUN}/{wildcards.model}/scores{draw}/{selection['unit']}/{method or selection['method']}"


def drawn_statistics(wildcards):
    """The statistics of a reference set under the seeds of one finding."""
    finding = int(wildcards.draw.removeprefix("-finding-") or 1)
    folder = "{model}/statistics/{unit}/{method}/{corpus}".format(**wildcards)
    return [
        f"{RUN}/{folder}/seed-{seed}.safetensors"
        for seed in plan.seeds(EXPERIMENT, finding)
    ]


def scores_of(wildcards):
    """The contrast or control that a variant is selected from."""
    variant = LISTS[wildcards.variant]
    selection = config["variants"][variant.entry]
    folder = scores_folder(wildcards)
    if selection["method"] in CONTROLS:
        return f"{folder}/repeat-{variant.repeat}.safetensors"
    return f"{folder}/contrast/{selection['retain']}/{selection['target']}.safetensors"


def matched_to_of(wildcards):
    """The unit list whose layers a control copies."""
    variant = LISTS[wildcards.variant]
    like = config["variants"][variant.entry]["matched_to"]
    name = like if variant.count is None else f"{like}-{variant.count}"
    return f"{RUN}/{wildcards.model}/units/{name}.json"


def mean_of(wildcards):
    """The mean activations that a variant's units may be scaled about, if any."""
    name = LISTS[wildcards.variant].entry
    path = f"{scores_folder(wildcards, MEAN)}/{config['variants'][name]['retain']}.safetensors"
    return path if ABOUT_MEAN[name] else []


def select_options(wildcards):
    """How a unit list is selected."""
    keys = ("contrast", "protect", "scale", "ablation")
    return listed_options(wildcards, keys, count=LISTS[wildcards.variant].count)


def step_scores(wildcards, side):
    """The scores of a variant's retain or target reference, where a step is found from both."""
    settings = config["variants"][LISTS[wildcards.variant].entry]
    return f"{scores_folder(wildcards)}/{settings[side]}.safetensors"


def step_options(wildcards):
    """How large a step is, and whether what it was found from shows anything."""
    variant = LISTS[wildcards.variant]
    settings = config["variants"][variant.entry]
    lowest, highest = settings["bounds"] or (None, None)
    return options(
        {
            "count": variant.count,
            "name": variant.entry,
            "budget": settings["budget"],
            "lowest": lowest,
            "highest": highest,
            "control": config["references"][settings["target"]].get("permuted"),
        }
    )


def match_options(wildcards):
    """How a control that copies the layers of another variant is selected."""
    return listed_options(wildcards, ("scale", "ablation"))


def listed_options(wildcards, keys, **more):
    """A name, and some settings of a variant."""
    entry = LISTS[wildcards.variant].entry
    return options(
        more | {"name": entry} | {key: config["variants"][entry][key] for key in keys}
    )


def selection_of(wildcards):
    """The unit list of a variant; none for the baseline, and for one that is a folder."""
    name = wildcards.variant.removeprefix(f"{TUNING}/")
    none = name == BASELINE or name in FOLDERS
    return [] if none else f"{RUN}/{wildcards.model}/units/{name}.json"


def folder_of(name):
    """The model folder of a variant that is one; it is kept where it is exported."""
    kept = f"{MODEL}/export/{name}"
    return kept if name == config["export"] else f"{MODEL}/variants/{name}/model"


def model_of(wildcards):
    """The model folder that is measured of a variant: one of its own, or the model's."""
    own = wildcards.variant in FOLDERS
    path = folder_of(wildcards.variant) if own else f"{INPUTS}/models/{{model}}"
    return path.format(model=wildcards.model)


def made_of(wildcards):
    """How a variant's own folder was made. Jobs that read it have this among their settings: the folder itself is gone
    once they are done, and Snakemake would not ask the rule that makes it."""
    return made(wildcards.variant) if wildcards.variant in FOLDERS else None


def competing_lists(wildcards):
    """The unit lists of which a choice takes the best."""
    folder = f"{RUN}/{wildcards.model}/units"
    return [f"{folder}/{name}.json" for name in CHOICES[wildcards.choice]]


def task_files(wildcards):
    """The user's own task files, and what lies beside them."""
    folder = config["evaluation"]["capability"]["include_path"]
    files = sorted(Path(folder).rglob("*")) if folder else []
    return [str(f) for f in files if f.is_file() and "__pycache__" not in f.parts]


def goal_options():
    """What decides which variant wins, as excise summary takes it."""
    goal = EXPERIMENT.goal
    if goal is None:
        return ""
    wanted = goal.wanted()
    budgets = [f"{name}={budget}" for name, budget in goal.budgets().items()]
    words = [options({wanted.direction: wanted.metric})]
    return " ".join(words + [options({"within": budget}) for budget in budgets])


def shard_name(section):
    """What a shard's files have in their names; nothing where one job makes all."""
    return "-shard-{shard}" if config[section]["shards"] > 1 else ""


def shard_options(section):
    """Which shard a job makes."""
    shards = config[section]["shards"]
    return lambda w: options({"shard": f"{w.shard}/{shards}" if shards > 1 else None})


def shards_of(wildcards):
    """All shards of a folder's generations, or of one of its files of scores."""
    section, _ = GENERATED[wildcards.folder]
    name = wildcards.get("scores", "generations")
    return [
        f"{RUN}/{wildcards.model}/{wildcards.folder}/{name}-shard-{shard}.jsonl"
        for shard in range(SECTIONS[section]["shards"])
    ]
