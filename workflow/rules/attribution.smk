# In:  reference sets
# Out: statistics/UNIT/METHOD/CORPUS/seed-S.safetensors (sums that add up), scores/UNIT/METHOD/CORPUS.safetensors (their
#      means over the seeds), scores/UNIT/METHOD/contrast/RETAIN/TARGET, scores/UNIT/METHOD/repeat-K (controls)

from excise.config.attribution import Measuring


localrules:
    merge,
    contrast,


rule attribute:
    input:
        picked_references,
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        reference=f"{MODEL}/references/{{corpus}}/seed-{{seed}}.jsonl",
    output:
        f"{MODEL}/statistics/{{unit}}/{{method}}/{{corpus}}/seed-{{seed}}{shard_name('attribution')}.safetensors",
    log:
        f"{MODEL}/logs/attribute/{{unit}}/{{method}}/{{corpus}}/seed-{{seed}}{shard_name('attribution')}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **model_job(
            lambda w, input: costs.attribute(
                config["attribution"],
                config["references"][w.corpus],
                config["generations"]["max_new_tokens"],
            )
        ),
    params:
        model=model_options,
        settings=options(config["attribution"], Measuring),
        shard=shard_options("attribution"),
        code=lambda w: digest("stages.attribute", METHODS[w.method].module),
    shell:
        "excise attribute --method {wildcards.method} --unit {wildcards.unit} --model {input.model:q} {params.model} "
        "--reference {input.reference:q} --corpus {wildcards.corpus:q} --seed {wildcards.seed} {params.settings} "
        "{params.shard} --output {output:q} --log {log:q}"


rule merge:
    input:
        expand(
            "{path}-shard-{shard}.safetensors",
            path=f"{MODEL}/statistics/{{unit}}/{{method}}/{{corpus}}/seed-{{seed}}",
            shard=range(config["attribution"]["shards"]),
        ),
    output:
        f"{MODEL}/statistics/{{unit}}/{{method}}/{{corpus}}/seed-{{seed}}.safetensors",
    log:
        f"{MODEL}/logs/merge/{{unit}}/{{method}}/{{corpus}}/seed-{{seed}}.log",
    wildcard_constraints:
        seed=alternatives(
            config["seeds"] if config["attribution"]["shards"] > 1 else []
        ),
    conda:
        "../../envs/excise.yaml"
    params:
        code=digest("stages.merge"),
    shell:
        "excise merge {input:q} --output {output:q} --log {log:q}"


rule average:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        statistics=expand(
            "{path}/seed-{seed}.safetensors",
            path=f"{MODEL}/statistics/{{unit}}/{{method}}/{{corpus}}",
            seed=config["seeds"],
        ),
    output:
        f"{MODEL}/scores/{{unit}}/{{method}}/{{corpus}}.safetensors",
    log:
        f"{MODEL}/logs/average/{{unit}}/{{method}}/{{corpus}}.log",
    conda:
        "../../envs/excise.yaml"
    resources:
        **cpu_job(mem_mb=2000),
    params:
        code=lambda w: digest("stages.average", METHODS[w.method].module),
    shell:
        "excise average --statistics {input.statistics:q} --model {input.model:q} --output {output:q} --log {log:q}"


rule contrast:
    input:
        retain=f"{MODEL}/scores/{{unit}}/{{method}}/{{retain}}.safetensors",
        target=f"{MODEL}/scores/{{unit}}/{{method}}/{{target}}.safetensors",
    output:
        f"{MODEL}/scores/{{unit}}/{{method}}/contrast/{{retain}}/{{target}}.safetensors",
    log:
        f"{MODEL}/logs/contrast/{{unit}}/{{method}}/{{retain}}/{{target}}.log",
    wildcard_constraints:
        retain=alternatives(config["references"]),
        target=alternatives(config["references"]),
    conda:
        "../../envs/excise.yaml"
    params:
        code=lambda w: digest("stages.contrast", METHODS[w.method].module),
    shell:
        "excise contrast --retain {input.retain:q} --target {input.target:q} --output {output:q} --log {log:q}"


rule control:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
    output:
        f"{MODEL}/scores/{{unit}}/{{method}}/repeat-{{repeat}}.safetensors",
    log:
        f"{MODEL}/logs/control/{{unit}}/{{method}}/repeat-{{repeat}}.log",
    wildcard_constraints:
        method=alternatives(CONTROLS),
        repeat="[0-9]+",
    conda:
        "../../envs/excise.yaml"
    resources:
        **cpu_job(mem_mb=2000),
    params:
        seed=lambda w: config["seed"] + int(w.repeat),
        code=lambda w: digest("stages.control", METHODS[w.method].module),
    shell:
        "excise control --method {wildcards.method} --unit {wildcards.unit} --model {input.model:q} --seed {params.seed} "
        "--output {output:q} --log {log:q}"
