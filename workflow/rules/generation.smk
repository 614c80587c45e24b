# In:  shards of generations, where the configuration cuts a seed's responses or a variant's generations into several
# Out: generations.jsonl, the bytes that one job would have written

# Folders of generations: the section of the configuration that wants them, and the prompts that they continue.
GENERATED = {
    f"responses/seed-{seed}": ("responses", "attribution") for seed in config["seeds"]
} | {
    f"variants/{variant}": ("evaluation", "evaluation")
    for variant in [BASELINE, *VARIANTS]
}


def shard_name(section):
    """What a shard's files have in their names; nothing where one job makes all."""
    return "-shard-{shard}" if config[section]["shards"] > 1 else ""


def shard_flags(section):
    """Which shard a job makes."""
    shards = config[section]["shards"]
    return lambda w: flags(shard=f"{w.shard}/{shards}" if shards > 1 else None)


def shards_of(wildcards):
    """All shards of a folder's generations."""
    section, _ = GENERATED[wildcards.folder]
    return [
        f"{RUN}/{wildcards.model}/{wildcards.folder}/generations-shard-{shard}.jsonl"
        for shard in range(config[section]["shards"])
    ]


rule merge_generations:
    input:
        prompts=lambda w: f"{RUN}/prompts/{GENERATED[w.folder][1]}.jsonl",
        shards=shards_of,
    output:
        f"{MODEL}/{{folder}}/generations.jsonl",
    log:
        f"{MODEL}/logs/merge_generations/{{folder}}.log",
    wildcard_constraints:
        folder=alternatives(
            folder
            for folder, (section, _) in GENERATED.items()
            if config[section]["shards"] > 1
        ),
    conda:
        "../../envs/excise.yaml"
    resources:
        **rows_job(),
    params:
        code=digest("stages.generate"),
    shell:
        "excise generate --prompts {input.prompts:q} --merge {input.shards:q} --output {output:q} --log {log:q}"
