# In:  reference sets
# Out: statistics/UNIT/METHOD/CORPUS/seed-S.safetensors (sums that add up), scores/UNIT/METHOD/CORPUS.safetensors (their
#      means over the seeds), scores/UNIT/METHOD/contrast/RETAIN/TARGET, scores/UNIT/METHOD/repeat-K (controls);
#      scores-finding-K/... where a list is found several times

from excise.config.attribution import Measuring

# Jobs that a method's work on a reference set is cut into: a job measures its part of the set under every seed.
ATTRIBUTION_JOBS = {
    corpus: costs.attribution_jobs(
        config["attribution"],
        reference,
        config["generations"]["max_new_tokens"],
        len(config["seeds"]),
    )
    for corpus, reference in config["references"].items()
}


localrules:
    merge,
    contrast,


ruleorder: merge > attribute
ruleorder: merge > attribute_again


rule attribute:
    input:
        picked_references,
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        references=expand(
            "{path}/seed-{seed}.jsonl",
            path=f"{MODEL}/references/{{corpus}}",
            seed=config["seeds"],
        ),
    output:
        expand(
            "{path}/seed-{seed}{{part}}.safetensors",
            path=f"{MODEL}/statistics/{{unit}}/{{method}}/{{corpus}}",
            seed=config["seeds"],
        ),
    log:
        f"{MODEL}/logs/attribute/{{unit}}/{{method}}/{{corpus}}{{part}}.log",
    wildcard_constraints:
        part="(-shard-[0-9]+)?",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **model_job(
            lambda w, input: costs.attribute(
                config["attribution"],
                config["references"][w.corpus],
                config["generations"]["max_new_tokens"],
                len(config["seeds"]),
            )
        ),
    params:
        model=model_options,
        settings=options(config["attribution"], Measuring),
        seeds=lambda w: w.get("seed", config["seeds"]),
        shard=lambda w: options(
            {
                "shard": (
                    f"{w.part.rpartition('-')[2]}/{ATTRIBUTION_JOBS[w.corpus]}"
                    if w.part
                    else None
                )
            }
        ),
        code=lambda w: digest("stages.attribute", METHODS[w.method].module),
    shell:
        "excise attribute --method {wildcards.method} --unit {wildcards.unit} --model {input.model:q} {params.model} "
        "--reference {input.references:q} --corpus {wildcards.corpus:q} --seed {params.seeds} {params.settings} "
        "{params.shard} --output {output:q} --log {log:q}"


# Seeds of later findings, one by one.
use rule attribute as attribute_again with:
    input:
        picked_references,
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        references=f"{MODEL}/references/{{corpus}}/seed-{{seed}}.jsonl",
    output:
        f"{MODEL}/statistics/{{unit}}/{{method}}/{{corpus}}/seed-{{seed}}{{part}}.safetensors",
    log:
        f"{MODEL}/logs/attribute_again/{{unit}}/{{method}}/{{corpus}}/seed-{{seed}}{{part}}.log",
    wildcard_constraints:
        part="(-shard-[0-9]+)?",
        seed=alternatives(sorted({*SEEDS} - {*config["seeds"]})),


rule merge:
    input:
        lambda w: expand(
            "{path}/seed-{seed}-shard-{shard}.safetensors",
            path=f"{RUN}/{w.model}/statistics/{w.unit}/{w.method}/{w.corpus}",
            seed=w.seed,
            shard=range(ATTRIBUTION_JOBS[w.corpus]),
        ),
    output:
        f"{MODEL}/statistics/{{unit}}/{{method}}/{{corpus}}/seed-{{seed}}.safetensors",
    log:
        f"{MODEL}/logs/merge/{{unit}}/{{method}}/{{corpus}}/seed-{{seed}}.log",
    wildcard_constraints:
        corpus=alternatives(
            corpus for corpus, number in ATTRIBUTION_JOBS.items() if number > 1
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
        statistics=drawn_statistics,
    output:
        f"{MODEL}/scores{{draw}}/{{unit}}/{{method}}/{{corpus}}.safetensors",
    log:
        f"{MODEL}/logs/average{{draw}}/{{unit}}/{{method}}/{{corpus}}.log",
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
        retain=f"{MODEL}/scores{{draw}}/{{unit}}/{{method}}/{{retain}}.safetensors",
        target=f"{MODEL}/scores{{draw}}/{{unit}}/{{method}}/{{target}}.safetensors",
    output:
        f"{MODEL}/scores{{draw}}/{{unit}}/{{method}}/contrast/{{retain}}/{{target}}.safetensors",
    log:
        f"{MODEL}/logs/contrast{{draw}}/{{unit}}/{{method}}/{{retain}}/{{target}}.log",
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
