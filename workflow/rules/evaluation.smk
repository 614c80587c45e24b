# In:  evaluation prompts, perplexity text, unit lists
# Out: variants/VARIANT/: generations and their scores, fluency, perplexity/TEXT.json, capability, and measurements.json,
#      which has all of it, a value per item; the same but for capability in variants/tuning/VARIANT/ for what competes,
#      on the tuning prompts
# A variant is the model and a unit list, applied in memory, or a model folder of its own.


include: "../common/evaluation.smk"


rule generate:
    input:
        model=model_of,
        facts=FACTS,
        units=selection_of,
        prompts=lambda w: f"{RUN}/prompts/{part_of(w.variant)}.jsonl",
    output:
        f"{VARIANT}/generations{shard_name('evaluation')}.jsonl",
    log:
        f"{MODEL}/logs/generate/{{variant}}{shard_name('evaluation')}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **model_job(
            lambda w, input: costs.generate(
                SECTIONS[part_of(w.variant)], input.prompts
            )
        ),
    params:
        model=model_options,
        made=made_of,
        units=units_options,
        sampling=lambda w: options(SECTIONS[part_of(w.variant)], Sampling),
        shard=shard_options("evaluation"),
        seed=config["seed"],
        code=digest("stages.generate"),
    shell:
        "excise generate --model {input.model:q} {params.units} {params.model} --prompts {input.prompts:q} "
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
        scorer=lambda w: scorer_options(
            config["evaluation"]["scorers"][int(w.number)], threads=config["threads"]
        ),
        shard=shard_options("evaluation"),
        code=lambda w: scorer_code(config["evaluation"]["scorers"][int(w.number)]),
    shell:
        "excise score {params.scorer} --generations {input.generations:q} {params.shard} "
        "--output {output:q} --log {log:q}"


rule perplexity:
    input:
        model=model_of,
        facts=FACTS,
        units=selection_of,
        text=f"{INPUTS}/texts/{{text}}.jsonl",
    output:
        f"{VARIANT}/perplexity/{{text}}.json",
    log:
        f"{MODEL}/logs/perplexity/{{variant}}-{{text}}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **model_job(
            lambda w, input: costs.perplexity(
                protocols(part_of(w.variant))[w.text], input.text
            )
        ),
    params:
        model=model_options,
        made=made_of,
        units=units_options,
        protocol=lambda w: options(protocols(part_of(w.variant))[w.text], Protocol),
        code=digest("stages.perplexity"),
    shell:
        "excise perplexity --model {input.model:q} {params.units} {params.model} --text {input.text:q} "
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
        **model_job(
            lambda w, input: costs.fluency(config["evaluation"], input.generations)
        ),
    params:
        model=model_options,
        number=options({"num_generations": config["evaluation"]["fluency_generations"]}),
        code=digest("stages.fluency"),
    shell:
        "excise fluency --model {input.model:q} {params.model} {params.number} --generations {input.generations:q} "
        "--output {output:q} --log {log:q}"


rule capability:
    input:
        model=model_of,
        facts=FACTS,
        units=selection_of,
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
        **model_job(
            lambda w, input: costs.capability(
                config["evaluation"]["capability"]["batch_size"], input.plan
            )
        ),
    params:
        model=model_options,
        made=made_of,
        units=units_options,
        tasks=options(config["evaluation"]["capability"], Capability),
        code=digest("stages.capability"),
    shell:
        "excise capability --model {input.model:q} {params.units} {params.model} {params.tasks} "
        "--data {input.data:q} --output {output:q} --log {log:q}"


rule cost:
    input:
        model=model_of,
        base=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        units=selection_of,
    output:
        f"{VARIANT}/cost.json",
    log:
        f"{MODEL}/logs/cost/{{variant}}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **model_job(lambda w, input: costs.cost(config["evaluation"]["cost"])),
    params:
        model=model_options,
        made=made_of,
        units=units_options,
        timing=options(config["evaluation"]["cost"] or {}),
        code=digest("stages.cost"),
    shell:
        "excise cost --model {input.model:q} --base {input.base:q} {params.units} {params.model} {params.timing} "
        "--output {output:q} --log {log:q}"


rule evaluate:
    input:
        units=selection_of,
        generations=generated_of("generations.jsonl"),
        scores=scores_files,
        fluency=generated_of("fluency.jsonl"),
        perplexity=perplexity_files,
        capability=capability_of,
        pairs=answers_of,
        cost=cost_of,
    output:
        f"{VARIANT}/measurements.json",
    log:
        f"{MODEL}/logs/evaluate/{{variant}}.log",
    conda:
        "../../envs/excise.yaml"
    resources:
        **rows_job(),
    params:
        name=lambda w: w.variant.removeprefix(f"{TUNING}/"),
        finding=finding_option,
        files=lambda w, input: options(named_files(input)),
        rule=options(config["evaluation"], only=["threshold"])
        + " "
        + options(config["behaviour"]),
        code=digest("stages.evaluate"),
    shell:
        "excise evaluate --variant {params.name:q} {params.finding} {params.files} {params.rule} --output {output:q} --log {log:q}"
