# In:  attribution prompts, texts, ready-made files
# Out: references/CORPUS/seed-S.jsonl: token ids of each sample and where its continuation starts


localrules:
    reference_responses,
    reference_windows,
    reference_file,


rule respond:
    input:
        model=f"{RESOURCES}/models/{{model}}",
        facts=FACTS,
        prompts=f"{RUN}/prompts/attribution.jsonl",
    output:
        f"{MODEL}/responses/seed-{{seed}}/generations{shard_name('responses')}.jsonl",
    log:
        f"{MODEL}/logs/respond/seed-{{seed}}{shard_name('responses')}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **model_job(**generated("responses")),
    params:
        model=model_flags,
        sampling=sampling_flags("responses"),
        shard=shard_flags("responses"),
        code=digest("stages.generate"),
    shell:
        "excise generate --model {input.model:q} {params.model} --prompts {input.prompts:q} {params.sampling} "
        "--seed {wildcards.seed} {params.shard} --output {output:q} --log {log:q}"


# Which token turned an answer is asked only where some reference set starts from it.
ONSET = any(
    config["references"][name]["span"] == "onset" for name in of_kind("responses")
)


rule score_responses:
    input:
        generations=f"{MODEL}/responses/seed-{{seed}}/generations.jsonl",
        model=f"{RESOURCES}/models/{{model}}" if ONSET else [],
        facts=FACTS if ONSET else [],
        scorer=fetched_scorer(config["responses"]["scorer"]),
    output:
        f"{MODEL}/responses/seed-{{seed}}/scores{shard_name('responses')}.jsonl",
    log:
        f"{MODEL}/logs/score_responses/seed-{{seed}}{shard_name('responses')}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **scoring_job("responses"),
    params:
        scorer=scorer_flags(config["responses"]["scorer"]),
        onset=lambda w, input: flags(
            onset_at=config["evaluation"]["threshold"] if ONSET else None,
            model=input.get("model") or None,
        ),
        shard=shard_flags("responses"),
        code=scorer_code(config["responses"]["scorer"]),
    shell:
        "excise score {params.scorer} {params.onset} --generations {input.generations:q} {params.shard} "
        "--output {output:q} --log {log:q}"


rule reference_responses:
    input:
        generations=f"{MODEL}/responses/seed-{{seed}}/generations.jsonl",
        scores=f"{MODEL}/responses/seed-{{seed}}/scores.jsonl",
    output:
        f"{MODEL}/references/{{corpus}}/seed-{{seed}}.jsonl",
    log:
        f"{MODEL}/logs/reference/{{corpus}}/seed-{{seed}}.log",
    wildcard_constraints:
        corpus=alternatives(of_kind("responses")),
    conda:
        "../../envs/excise.yaml"
    params:
        choice=lambda w: flags(
            **{
                key: config["references"][w.corpus][key]
                for key in ("at_least", "below", "span", "count", "minimum")
            }
        ),
        code=digest("stages.reference"),
    shell:
        "excise reference --kind responses --generations {input.generations:q} --scores {input.scores:q} "
        "{params.choice} --seed {wildcards.seed} --output {output:q} --log {log:q}"


rule reference_windows:
    input:
        model=f"{RESOURCES}/models/{{model}}",
        facts=FACTS,
        text=lambda w: f"{RESOURCES}/texts/{config['references'][w.corpus]['text']}.jsonl",
    output:
        f"{MODEL}/references/{{corpus}}/seed-{{seed}}.jsonl",
    log:
        f"{MODEL}/logs/reference/{{corpus}}/seed-{{seed}}.log",
    wildcard_constraints:
        corpus=alternatives(of_kind("windows")),
    conda:
        "../../envs/excise.yaml"
    params:
        choice=lambda w: flags(
            **{
                key: config["references"][w.corpus][key]
                for key in ("windows", "seqlen")
            }
        ),
        code=digest("stages.reference"),
    shell:
        "excise reference --kind windows --text {input.text:q} --model {input.model:q} {params.choice} "
        "--seed {wildcards.seed} --output {output:q} --log {log:q}"


rule reference_file:
    input:
        model=f"{RESOURCES}/models/{{model}}",
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
        choice=lambda w: flags(
            **{
                key: config["references"][w.corpus][key]
                for key in ("source", "count", "minimum")
            }
        ),
        code=digest("stages.reference"),
    shell:
        "excise reference --kind file --model {input.model:q} {params.choice} "
        "--seed {wildcards.seed} --output {output:q} --log {log:q}"
