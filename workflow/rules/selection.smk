# In:  differentials and controls
# Out: selections/VARIANT.json (the neuron lists), logit-lens/VARIANT.json (their tokens), export/VARIANT (one pruned model as a Hugging Face folder)


localrules:
    select,


rule select:
    input:
        scores=scores_of,
        like=likeness_of,
    output:
        f"{MODEL}/selections/{{variant}}.json",
    log:
        f"{MODEL}/logs/select/{{variant}}.log",
    conda:
        "../../envs/excise.yaml"
    params:
        choice=selection_flags,
        like=lambda wildcards, input: flags(like=input.get("like") or None),
        code=digest("stages.select"),
    shell:
        "excise select --scores {input.scores:q} {params.choice} {params.like} --output {output:q} --log {log:q}"


rule logit_lens:
    input:
        model=f"{RESOURCES}/models/{{model}}",
        facts=FACTS,
        neurons=f"{MODEL}/selections/{{variant}}.json",
    output:
        f"{MODEL}/logit-lens/{{variant}}.json",
    log:
        f"{MODEL}/logs/logit-lens/{{variant}}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **weights_job(),
    params:
        dtype=lambda w: flags(
            dtype=config["models"][w.model]["dtype"], threads=config["threads"]
        ),
        code=digest("stages.logit_lens"),
    shell:
        "excise logit-lens --model {input.model:q} --device cpu {params.dtype} --selection {input.neurons:q} "
        "--output {output:q} --log {log:q}"


rule export:
    input:
        model=f"{RESOURCES}/models/{{model}}",
        facts=FACTS,
        neurons=f"{MODEL}/selections/{{variant}}.json",
        evaluations=[
            f"{MODEL}/variants/{BASELINE}/evaluation.json",
            f"{VARIANT}/evaluation.json",
        ],
    output:
        directory(f"{MODEL}/export/{{variant}}"),
    log:
        f"{MODEL}/logs/export/{{variant}}.log",
    conda:
        "../../envs/excise.yaml"
    resources:
        **weights_job(),
    params:
        code=digest("stages.apply"),
    shell:
        "excise apply {input.neurons:q} {input.model:q} --evaluations {input.evaluations:q} "
        "--output {output:q} --log {log:q}"
