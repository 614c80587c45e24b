# In:  attribution prompts, texts, ready-made files
# Out: references/CORPUS/seed-S.jsonl: token ids of each sample and where its continuation starts

from excise.config.generations import Sampling


localrules:
    reference_generations,
    reference_windows,
    reference_file,


rule generate_references:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        prompts=f"{RUN}/prompts/attribution.jsonl",
    output:
        f"{MODEL}/generations/seed-{{seed}}/generations{shard_name('generations')}.jsonl",
    log:
        f"{MODEL}/logs/generate_references/seed-{{seed}}{shard_name('generations')}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **model_job(
            lambda w, input: costs.generate(config["generations"], input.prompts)
        ),
    params:
        model=model_options,
        sampling=options(config["generations"], Sampling),
        shard=shard_options("generations"),
        code=digest("stages.generate"),
    shell:
        "excise generate --model {input.model:q} {params.model} --prompts {input.prompts:q} {params.sampling} "
        "--seed {wildcards.seed} {params.shard} --output {output:q} --log {log:q}"


# Which token turned an answer is asked only where some reference set starts from it.
ONSET = any(
    config["references"][name]["span"] == "onset" for name in of_kind("generations")
)


rule score_references:
    input:
        generations=f"{MODEL}/generations/seed-{{seed}}/generations.jsonl",
        model=f"{INPUTS}/models/{{model}}" if ONSET else [],
        facts=FACTS if ONSET else [],
        scorer=fetched_scorer(config["generations"]["scorer"]),
    output:
        f"{MODEL}/generations/seed-{{seed}}/scores{shard_name('generations')}.jsonl",
    log:
        f"{MODEL}/logs/score_generations/seed-{{seed}}{shard_name('generations')}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **scoring_job("generations"),
    params:
        scorer=scorer_options(
            config["generations"]["scorer"], threads=config["threads"]
        ),
        onset=lambda w, input: options(
            {
                "onset_at": config["evaluation"]["threshold"] if ONSET else None,
                "model": input.get("model") or None,
            }
        ),
        shard=shard_options("generations"),
        code=scorer_code(config["generations"]["scorer"]),
    shell:
        "excise score {params.scorer} {params.onset} --generations {input.generations:q} {params.shard} "
        "--output {output:q} --log {log:q}"


rule reference_generations:
    input:
        generations=f"{MODEL}/generations/seed-{{seed}}/generations.jsonl",
        scores=f"{MODEL}/generations/seed-{{seed}}/scores.jsonl",
    output:
        f"{MODEL}/references/{{corpus}}/seed-{{seed}}.jsonl",
    log:
        f"{MODEL}/logs/reference/{{corpus}}/seed-{{seed}}.log",
    wildcard_constraints:
        corpus=alternatives(of_kind("generations")),
    conda:
        "../../envs/excise.yaml"
    params:
        choice=lambda w: options(config["references"][w.corpus], without=["kind"]),
        code=digest("stages.reference"),
    shell:
        "excise reference --kind generations --generations {input.generations:q} --scores {input.scores:q} "
        "{params.choice} --seed {wildcards.seed} --output {output:q} --log {log:q}"


rule reference_windows:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        text=lambda w: f"{INPUTS}/texts/{config['references'][w.corpus]['text']}.jsonl",
    output:
        f"{MODEL}/references/{{corpus}}/seed-{{seed}}.jsonl",
    log:
        f"{MODEL}/logs/reference/{{corpus}}/seed-{{seed}}.log",
    wildcard_constraints:
        corpus=alternatives(of_kind("windows")),
    conda:
        "../../envs/excise.yaml"
    params:
        choice=lambda w: options(
            config["references"][w.corpus], without=["kind", "text"]
        ),
        code=digest("stages.reference"),
    shell:
        "excise reference --kind windows --text {input.text:q} --model {input.model:q} {params.choice} "
        "--seed {wildcards.seed} --output {output:q} --log {log:q}"


rule reference_file:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        source=lambda w: on_disk(config["references"][w.corpus]["source"]),
    output:
        f"{MODEL}/references/{{corpus}}/seed-{{seed}}.jsonl",
    log:
        f"{MODEL}/logs/reference/{{corpus}}/seed-{{seed}}.log",
    wildcard_constraints:
        corpus=alternatives(of_kind("file")),
    conda:
        "../../envs/excise.yaml"
    params:
        choice=lambda w: options(config["references"][w.corpus], without=["kind"]),
        code=digest("stages.reference"),
    shell:
        "excise reference --kind file --model {input.model:q} {params.choice} "
        "--seed {wildcards.seed} --output {output:q} --log {log:q}"
