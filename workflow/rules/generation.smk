# In:  shards of generations and of their scores, where the configuration cuts a seed's or a variant's into several
# Out: generations.jsonl, scores.jsonl, scores-K.jsonl: the bytes that one job would have written


rule merge_generations:
    input:
        prompts=lambda w: f"{RUN}/prompts/{GENERATED[w.folder][1]}.jsonl",
        shards=shards_of,
    output:
        f"{MODEL}/{{folder}}/generations.jsonl",
    log:
        f"{MODEL}/logs/merge_generations/{{folder}}.log",
    wildcard_constraints:
        folder=sharded("evaluation", TUNING),
    conda:
        "../../envs/excise.yaml"
    resources:
        **rows_job(),
    params:
        code=digest("stages.generate"),
    shell:
        "excise generate --prompts {input.prompts:q} --merge {input.shards:q} --output {output:q} --log {log:q}"


# Responses and variants have rules of their own, since --until RULE stops for good where RULE comes first.
use rule merge_generations as merge_reference_generations with:
    wildcard_constraints:
        folder=sharded("generations"),


rule merge_scores:
    input:
        shards_of,
    output:
        f"{MODEL}/{{folder}}/{{scores}}.jsonl",
    log:
        f"{MODEL}/logs/merge_scores/{{folder}}/{{scores}}.log",
    wildcard_constraints:
        folder=sharded("evaluation", TUNING),
        scores="scores-[0-9]+",
    conda:
        "../../envs/excise.yaml"
    resources:
        **rows_job(),
    params:
        code=digest("stages.score"),
    shell:
        "excise score --merge {input:q} --output {output:q} --log {log:q}"


use rule merge_scores as merge_reference_scores with:
    wildcard_constraints:
        folder=sharded("generations"),
        scores="scores",
