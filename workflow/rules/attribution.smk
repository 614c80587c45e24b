# In:  reference sets
# Out: statistics/METHOD/CORPUS/seed-S.safetensors (sums that add up), scores/METHOD/CORPUS.safetensors (their means over
#      the seeds), scores/METHOD/differential/GENERAL/BEHAVIOUR, scores/METHOD/draw-K (controls)


localrules:
    merge,
    differential,


rule attribute:
    input:
        picked_references,
        model=f"{RESOURCES}/models/{{model}}",
        facts=FACTS,
        reference=f"{MODEL}/references/{{corpus}}/seed-{{seed}}.jsonl",
    output:
        f"{MODEL}/statistics/{{method}}/{{corpus}}/seed-{{seed}}{shard_name('attribution')}.safetensors",
    log:
        f"{MODEL}/logs/attribute/{{method}}/{{corpus}}/seed-{{seed}}{shard_name('attribution')}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **model_job(batch_tokens, shard_tokens, numbers=8, passes=3),
    params:
        model=model_flags,
        settings=flags(
            target=config["attribution"]["target"],
            batch_size=config["attribution"]["batch_size"],
        )
        + (" --recompute" if config["attribution"]["recompute"] else ""),
        shard=shard_flags("attribution"),
        code=lambda w: digest("stages.attribute", method_module(w.method)),
    shell:
        "excise attribute --method {wildcards.method} --model {input.model:q} {params.model} "
        "--reference {input.reference:q} --corpus {wildcards.corpus:q} --seed {wildcards.seed} {params.settings} "
        "{params.shard} --output {output:q} --log {log:q}"


rule merge:
    input:
        expand(
            "{path}-shard-{shard}.safetensors",
            path=f"{MODEL}/statistics/{{method}}/{{corpus}}/seed-{{seed}}",
            shard=range(config["attribution"]["shards"]),
        ),
    output:
        f"{MODEL}/statistics/{{method}}/{{corpus}}/seed-{{seed}}.safetensors",
    log:
        f"{MODEL}/logs/merge/{{method}}/{{corpus}}/seed-{{seed}}.log",
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
        model=f"{RESOURCES}/models/{{model}}",
        facts=FACTS,
        statistics=expand(
            "{path}/seed-{seed}.safetensors",
            path=f"{MODEL}/statistics/{{method}}/{{corpus}}",
            seed=config["seeds"],
        ),
    output:
        f"{MODEL}/scores/{{method}}/{{corpus}}.safetensors",
    log:
        f"{MODEL}/logs/average/{{method}}/{{corpus}}.log",
    conda:
        "../../envs/excise.yaml"
    resources:
        **cpu_job(mem_mb=2000),
    params:
        code=lambda w: digest("stages.average", method_module(w.method)),
    shell:
        "excise average --statistics {input.statistics:q} --model {input.model:q} --output {output:q} --log {log:q}"


rule differential:
    input:
        general=f"{MODEL}/scores/{{method}}/{{general}}.safetensors",
        behaviour=f"{MODEL}/scores/{{method}}/{{behaviour}}.safetensors",
    output:
        f"{MODEL}/scores/{{method}}/differential/{{general}}/{{behaviour}}.safetensors",
    log:
        f"{MODEL}/logs/differential/{{method}}/{{general}}/{{behaviour}}.log",
    wildcard_constraints:
        general=alternatives(config["references"]),
        behaviour=alternatives(config["references"]),
    conda:
        "../../envs/excise.yaml"
    params:
        code=lambda w: digest("stages.differential", method_module(w.method)),
    shell:
        "excise differential --general {input.general:q} --toxic {input.behaviour:q} --output {output:q} --log {log:q}"


rule control:
    input:
        model=f"{RESOURCES}/models/{{model}}",
        facts=FACTS,
    output:
        f"{MODEL}/scores/{{method}}/draw-{{draw}}.safetensors",
    log:
        f"{MODEL}/logs/control/{{method}}/draw-{{draw}}.log",
    wildcard_constraints:
        method=alternatives(CONTROLS),
        draw="[0-9]+",
    conda:
        "../../envs/excise.yaml"
    resources:
        **cpu_job(mem_mb=2000),
    params:
        seed=lambda w: config["seed"] + int(w.draw),
        code=lambda w: digest("stages.control", method_module(w.method)),
    shell:
        "excise control --method {wildcards.method} --model {input.model:q} --seed {params.seed} "
        "--output {output:q} --log {log:q}"
