# In:  evaluation prompts, perplexity text, unit lists
# Out: variants/VARIANT/: generations and their scores, perplexity, fluency, capability, and evaluation.json, which sums
#      them up; the same but for capability in variants/tuning/VARIANT/ for what competes, on the tuning prompts
# A variant is the model and a unit list, applied in memory; no copy of the model is written.


localrules:
    evaluate,


rule generate:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        selection=selection_of,
        prompts=lambda w: f"{RUN}/prompts/{part_of(w.variant)}.jsonl",
    output:
        f"{VARIANT}/generations{shard_name('evaluation')}.jsonl",
    log:
        f"{MODEL}/logs/generate/{{variant}}{shard_name('evaluation')}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **model_job(**generated("evaluation")),
    params:
        model=model_flags,
        selection=lambda wildcards, input: flags(
            selection=input.get("selection") or None
        ),
        sampling=lambda w: sampling_flags(part_of(w.variant)),
        shard=shard_flags("evaluation"),
        seed=config["seed"],
        code=digest("stages.generate"),
    shell:
        "excise generate --model {input.model:q} {params.selection} {params.model} --prompts {input.prompts:q} "
        "{params.sampling} --seed {params.seed} {params.shard} --output {output:q} --log {log:q}"


rule score:
    input:
        generations=f"{VARIANT}/generations.jsonl",
        scorer=lambda w: fetched_scorer(config["evaluation"]["scorers"][int(w.number)]),
    output:
        f"{VARIANT}/scores-{{number}}{shard_name('evaluation')}.jsonl",
    log:
        f"{MODEL}/logs/score/{{variant}}-{{number}}{shard_name('evaluation')}.log",
    wildcard_constraints:
        number="[0-9]+",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **scoring_job("evaluation"),
    params:
        scorer=lambda w: scorer_flags(config["evaluation"]["scorers"][int(w.number)]),
        shard=shard_flags("evaluation"),
        code=lambda w: scorer_code(config["evaluation"]["scorers"][int(w.number)]),
    shell:
        "excise score {params.scorer} --generations {input.generations:q} {params.shard} "
        "--output {output:q} --log {log:q}"


rule perplexity:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        selection=selection_of,
        text=lambda w: f"{INPUTS}/texts/{SECTIONS[part_of(w.variant)]['perplexity']['text']}.jsonl",
    output:
        f"{VARIANT}/perplexity.json",
    log:
        f"{MODEL}/logs/perplexity/{{variant}}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **model_job(window_tokens, perplexity_tokens, numbers=2),
    params:
        model=model_flags,
        selection=lambda wildcards, input: flags(
            selection=input.get("selection") or None
        ),
        protocol=lambda w: flags(
            **{
                k: v
                for k, v in SECTIONS[part_of(w.variant)]["perplexity"].items()
                if k != "text"
            }
        ),
        code=digest("stages.perplexity"),
    shell:
        "excise perplexity --model {input.model:q} {params.selection} {params.model} --text {input.text:q} "
        "{params.protocol} --output {output:q} --log {log:q}"


rule fluency:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        generations=f"{VARIANT}/generations.jsonl",
    output:
        f"{VARIANT}/fluency.jsonl",
    log:
        f"{MODEL}/logs/fluency/{{variant}}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **model_job(**generated("evaluation")),
    params:
        model=model_flags,
        number=flags(num_generations=config["evaluation"]["fluency_generations"]),
        code=digest("stages.fluency"),
    shell:
        "excise fluency --model {input.model:q} {params.model} {params.number} --generations {input.generations:q} "
        "--output {output:q} --log {log:q}"


rule capability:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        selection=selection_of,
        plan=f"{TASKS}/plan.json",
        data=f"{TASKS}/data",
    output:
        f"{VARIANT}/capability.json",
    log:
        f"{MODEL}/logs/capability/{{variant}}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **model_job(request_tokens, task_tokens, numbers=4),
    params:
        model=model_flags,
        selection=lambda wildcards, input: flags(
            selection=input.get("selection") or None
        ),
        tasks=task_flags(),
        batch_size=config["evaluation"]["capability"]["batch_size"],
        code=digest("stages.capability"),
    shell:
        "excise capability --model {input.model:q} {params.selection} {params.model} {params.tasks} "
        "--data {input.data:q} --batch-size {params.batch_size} --output {output:q} --log {log:q}"


rule evaluate:
    input:
        generations=f"{VARIANT}/generations.jsonl",
        scores=scores_files,
        perplexity=f"{VARIANT}/perplexity.json",
        fluency=f"{VARIANT}/fluency.jsonl",
        capability=capability_of,
    output:
        f"{VARIANT}/evaluation.json",
    log:
        f"{MODEL}/logs/evaluate/{{variant}}.log",
    conda:
        "../../envs/excise.yaml"
    params:
        name=lambda w: w.variant.removeprefix(f"{TUNING}/"),
        capability=lambda wildcards, input: flags(
            capability=input.get("capability") or None
        ),
        rule=flags(threshold=config["evaluation"]["threshold"], **config["behaviour"]),
        code=digest("stages.evaluate"),
    shell:
        "excise evaluate --variant {params.name:q} --generations {input.generations:q} "
        "--scores {input.scores:q} --perplexity {input.perplexity:q} --fluency {input.fluency:q} "
        "{params.capability} {params.rule} --output {output:q} --log {log:q}"
