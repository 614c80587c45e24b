# In:  contrasts and controls
# Out: units/VARIANT.json (the unit lists), tuning/CHOICE (how those that compete compare),
#      units/winner.json (a copy of the list that wins), logit-lens/VARIANT.json (their tokens), export/VARIANT (one pruned model as a Hugging Face folder)

from excise.config.evaluation import Comparing

# Controls that copy the layers of another list.
MATCHED = {
    name
    for name, variant in LISTS.items()
    if config["variants"][variant.entry]["matched_to"]
}


# Lists whose scales are found, not set.
STEPPED = {
    name
    for name, variant in LISTS.items()
    if config["variants"][variant.entry]["method"] == "trust-region"
}


# The unit lists that may win the evaluation.
CANDIDATES = [name for name in plan.candidates(EXPERIMENT) if name not in FOLDERS]


localrules:
    select,
    step,
    select_matched,
    compare,
    choose,
    winner,


rule select:
    input:
        scores=scores_of,
        mean=mean_of,
    output:
        f"{MODEL}/units/{{variant}}.json",
    log:
        f"{MODEL}/logs/select/{{variant}}.log",
    wildcard_constraints:
        variant=alternatives(LISTS.keys() - MATCHED - STEPPED),
    conda:
        "../../envs/excise.yaml"
    params:
        choice=select_options,
        mean=lambda w, input: options({"mean": input.get("mean") or None}),
        code=digest("stages.select"),
    shell:
        "excise select --scores {input.scores:q} {params.choice} {params.mean} --output {output:q} --log {log:q}"


rule step:
    input:
        retain=lambda w: step_scores(w, "retain"),
        target=lambda w: step_scores(w, "target"),
    output:
        f"{MODEL}/units/{{variant}}.json",
    log:
        f"{MODEL}/logs/select/{{variant}}.log",
    wildcard_constraints:
        variant=alternatives(STEPPED),
    conda:
        "../../envs/excise.yaml"
    params:
        choice=step_options,
        code=digest("stages.step"),
    shell:
        "excise step --retain {input.retain:q} --target {input.target:q} {params.choice} "
        "--output {output:q} --log {log:q}"


rule select_matched:
    input:
        scores=scores_of,
        matched_to=matched_to_of,
        mean=mean_of,
    output:
        f"{MODEL}/units/{{variant}}.json",
    log:
        f"{MODEL}/logs/select/{{variant}}.log",
    wildcard_constraints:
        variant=alternatives(MATCHED),
    conda:
        "../../envs/excise.yaml"
    params:
        choice=match_options,
        mean=lambda w, input: options({"mean": input.get("mean") or None}),
        code=digest("stages.match"),
    shell:
        "excise match --scores {input.scores:q} --matched-to {input.matched_to:q} {params.choice} {params.mean} "
        "--output {output:q} --log {log:q}"


rule compare:
    input:
        lambda w: [
            f"{RUN}/{w.model}/variants/{TUNING}/{name}/measurements.json"
            for name in [BASELINE, *CHOICES[w.choice]]
        ],
    output:
        csv=f"{MODEL}/{TUNING}/{{choice}}.csv",
        json=f"{MODEL}/{TUNING}/{{choice}}.json",
    log:
        f"{MODEL}/logs/compare/{{choice}}.log",
    conda:
        "../../envs/excise.yaml"
    params:
        options=options(SECTIONS[TUNING], Comparing),
        goal=goal_options(),
        seed=config["seed"],
        code=digest("stages.summary"),
    shell:
        "excise summary {input:q} {params.options} {params.goal} --seed {params.seed} --csv {output.csv:q} --json {output.json:q} "
        "--log {log:q}"


rule choose:
    input:
        comparison=f"{MODEL}/{TUNING}/{{choice}}.json",
        units=competing_lists,
    output:
        f"{MODEL}/units/{{choice}}.json",
    log:
        f"{MODEL}/logs/choose/{{choice}}.log",
    conda:
        "../../envs/excise.yaml"
    params:
        code=digest("stages.choose"),
    shell:
        "excise choose --summary {input.comparison:q} --units {input.units:q} --name {wildcards.choice:q} "
        "--output {output:q} --log {log:q}"


rule winner:
    input:
        comparison=f"{MODEL}/candidates.json",
        units=expand("{path}/units/{variant}.json", path=MODEL, variant=CANDIDATES),
    output:
        f"{MODEL}/units/{WINNER}.json",
    log:
        f"{MODEL}/logs/winner.log",
    conda:
        "../../envs/excise.yaml"
    params:
        code=digest("stages.winner"),
    shell:
        "excise winner --summary {input.comparison:q} --units {input.units:q} --output {output:q} --log {log:q}"


rule logit_lens:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        units=f"{MODEL}/units/{{variant}}.json",
    output:
        f"{MODEL}/logit-lens/{{variant}}.json",
    log:
        f"{MODEL}/logs/logit-lens/{{variant}}.log",
    wildcard_constraints:
        variant=alternatives([*VARIANTS, WINNER]),
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **lens_job(),
    params:
        dtype=lambda w: config["models"][w.model]["dtype"],
        threads=config["threads"],
        code=digest("stages.logit_lens"),
    shell:
        "excise logit-lens --model {input.model:q} --device cpu --dtype {params.dtype} --threads {params.threads} --units {input.units:q} "
        "--output {output:q} --log {log:q}"


rule export:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        units=f"{MODEL}/units/{{variant}}.json",
        measurements=lambda w: expand(
            "{path}/variants/{variant}/measurements.json",
            path=f"{RUN}/{w.model}",
            variant=[BASELINE, *(CANDIDATES if w.variant == WINNER else [w.variant])],
        ),
    output:
        directory(f"{MODEL}/export/{{variant}}"),
    log:
        f"{MODEL}/logs/export/{{variant}}.log",
    wildcard_constraints:
        variant=alternatives([*LISTS, *CHOICES, WINNER]),
    conda:
        "../../envs/excise.yaml"
    resources:
        **export_job(),
    params:
        code=digest("stages.apply"),
    shell:
        "excise apply {input.units:q} {input.model:q} --measurements {input.measurements:q} "
        "--output {output:q} --log {log:q}"
