# In:  shards of generations, where the configuration cuts a seed's responses or a variant's generations into several
# Out: generations.jsonl, the bytes that one job would have written


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
            if SECTIONS[section]["shards"] > 1
        ),
    conda:
        "../../envs/excise.yaml"
    resources:
        **rows_job(),
    params:
        code=digest("stages.generate"),
    shell:
        "excise generate --prompts {input.prompts:q} --merge {input.shards:q} --output {output:q} --log {log:q}"
