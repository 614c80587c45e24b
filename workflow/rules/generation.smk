# In:  shards of generations and of their scores, where the configuration cuts a seed's or a variant's into several
# Out: generations.jsonl, scores.jsonl, scores-K.jsonl: the bytes that one job would have written

SHARDED = alternatives(
    folder
    for folder, (section, _) in GENERATED.items()
    if SECTIONS[section]["shards"] > 1
)


rule merge_generations:
    input:
        prompts=lambda w: f"{RUN}/prompts/{GENERATED[w.folder][1]}.jsonl",
        shards=shards_of,
    output:
        f"{MODEL}/{{folder}}/generations.jsonl",
    log:
        f"{MODEL}/logs/merge_generations/{{folder}}.log",
    wildcard_constraints:
        folder=SHARDED,
    conda:
        "../../envs/excise.yaml"
    resources:
        **rows_job(),
    params:
        code=digest("stages.generate"),
    shell:
        "excise generate --prompts {input.prompts:q} --merge {input.shards:q} --output {output:q} --log {log:q}"


rule merge_scores:
    input:
        shards_of,
    output:
        f"{MODEL}/{{folder}}/{{scores}}.jsonl",
    log:
        f"{MODEL}/logs/merge_scores/{{folder}}/{{scores}}.log",
    wildcard_constraints:
        folder=SHARDED,
        scores="scores(-[0-9]+)?",
    conda:
        "../../envs/excise.yaml"
    resources:
        **rows_job(),
    params:
        code=digest("stages.score"),
    shell:
        "excise score --merge {input:q} --output {output:q} --log {log:q}"
