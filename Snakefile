# excise: find the neurons that carry a behaviour, prune them, and measure what that did.
#
#   snakemake --profile local -n                                     what would run
#   snakemake --profile local                                        run config.yaml (the demo)
#   snakemake --profile slurm                                        the same on a cluster (docs/slurm.md)
#   snakemake --profile local --configfile experiments/mine.yaml     run your own experiment

from snakemake.utils import min_version

min_version("9.19")

# An experiment file is complete in itself: it replaces the demo's, it does not patch it.
if not workflow.overwrite_configfiles:

    configfile: workflow.source_path("config.yaml")


include: "workflow/rules/common.smk"
include: "workflow/rules/jobs.smk"
include: "workflow/rules/inputs.smk"
include: "workflow/rules/generation.smk"
include: "workflow/rules/references.smk"
include: "workflow/rules/attribution.smk"
include: "workflow/rules/selection.smk"


if FOLDERS:

    include: "workflow/rules/compress.smk"


include: "workflow/rules/evaluation.smk"
include: "workflow/rules/report.smk"


if config["circuits"]:

    include: "workflow/rules/circuits.smk"


if config["retrieval"]:

    include: "workflow/rules/collections.smk"
    include: "workflow/rules/retrieve.smk"


rule all:
    default_target: True
    input:
        targets(),
