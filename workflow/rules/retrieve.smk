# In:  encoders (folders of sentence-transformers), the parts of collections
# Out: retrieval/shrunk/NAME, distilled/NAME and static/NAME (smaller encoders), what they keep of the dense one on every
#      collection, what they cost on this machine, one summary and one report per model
# One collection calibrates: its calibration documents and tuning queries score units, repair and train. All judge.


include: "../common/retrieve.smk"


localrules:
    retention,
    retrieval_summary,


wildcard_constraints:
    encoder=alternatives(ENCODERS),
    smaller=alternatives(SMALLER),
    scored="[a-z]+-[0-9]+",


rule score_encoder:
    input:
        model=f"{INPUTS}/models/{{model}}",
        parts=calibration_parts,
    output:
        f"{ROOM}/importance/{{scored}}.safetensors",
    log:
        f"{MODEL}/logs/score_encoder/{{scored}}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **encoder_job(passes=3),
    params:
        how=lambda w: options(
            dict(zip(("method", "seed"), w.scored.rsplit("-", 1)))
            | {"dtype": config["models"][w.model]["dtype"]}
        ),
        texts=calibration_options("texts", "queries"),
        machine=machine,
        code=digest("stages.importance"),
    shell:
        "excise importance --model {input.model:q} {params.how} {params.texts} {params.machine} --output {output:q} "
        "--log {log:q}"


# Only where a variant has a budget of time.
rule encoder_latency:
    input:
        model=f"{INPUTS}/models/{{model}}",
    output:
        f"{ROOM}/latency.json",
    log:
        f"{MODEL}/logs/encoder_latency.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **encoder_job(passes=1, models=2),
    params:
        timing=options(RETRIEVAL, Timing),
        machine=machine,
        code=digest("stages.encoder_latency"),
    shell:
        "excise encoder-latency --model {input.model:q} {params.timing} {params.machine} --output {output:q} --log {log:q}"


rule shrink_encoder:
    input:
        model=f"{INPUTS}/models/{{model}}",
        parts=calibration_parts,
        scores=scores_of_units,
        latency=times_of_layers,
    output:
        directory(f"{ROOM}/shrunk/{{smaller}}"),
    log:
        f"{MODEL}/logs/shrink_encoder/{{smaller}}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **encoder_job(passes=4),
    params:
        what=shrink_options,
        scores=lambda w, input: options(
            {"scores": input.scores or None, "latency": input.latency or None}
        ),
        texts=calibration_options("texts", "queries"),
        threads=config["threads"],
        code=digest("stages.shrink"),
    shell:
        "excise shrink --model {input.model:q} {params.scores} {params.what} {params.texts} --threads {params.threads} "
        "--output {output:q} --log {log:q}"


rule static_encoder:
    input:
        model=f"{INPUTS}/models/{{model}}",
    output:
        directory(f"{ROOM}/static/{{smaller}}"),
    log:
        f"{MODEL}/logs/static_encoder/{{smaller}}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **encoder_job(passes=1),
    params:
        machine=machine,
        code=digest("stages.static_encoder"),
    shell:
        "excise static-encoder --model {input.model:q} --name {wildcards.smaller:q} {params.machine} --output {output:q} "
        "--log {log:q}"


# What a student learns to give; also the ids of what it reads, so that teacher and texts cannot be mixed up.
rule embed_calibration:
    input:
        model=f"{INPUTS}/models/{{model}}",
        parts=calibration_parts,
    output:
        f"{ROOM}/teacher.safetensors",
    log:
        f"{MODEL}/logs/embed_calibration.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **encoder_job(passes=1),
    params:
        texts=calibration_options("documents", "queries"),
        machine=machine,
        code=digest("stages.embed"),
    shell:
        "excise embed --model {input.model:q} {params.texts} {params.machine} --output {output:q} --log {log:q}"


rule distil_encoder:
    input:
        model=f"{ROOM}/shrunk/{{smaller}}",
        parts=calibration_parts,
        teacher=f"{ROOM}/teacher.safetensors",
    output:
        directory(f"{ROOM}/distilled/{{smaller}}"),
    log:
        f"{MODEL}/logs/distil_encoder/{{smaller}}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **encoder_job(passes=30),
    params:
        how=lambda w: options(
            {"name": SMALLER[w.smaller].entry, "seed": config["seed"]}
            | {key: recipe(w.smaller)["distil"][key] for key in Training.model_fields}
        ),
        texts=calibration_options("texts", "queries"),
        machine=machine,
        code=digest("stages.distil"),
    shell:
        "excise distil --model {input.model:q} --teacher {input.teacher:q} {params.texts} {params.how} {params.machine} "
        "--output {output:q} --log {log:q}"


rule embed_dense:
    input:
        model=f"{INPUTS}/models/{{model}}",
        parts=f"{PARTS}/{{collection}}",
    output:
        f"{ROOM}/dense/{{collection}}.safetensors",
    log:
        f"{MODEL}/logs/embed_dense/{{collection}}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **encoder_job(passes=1),
    params:
        texts=judged_options,
        machine=encoder_machine,
        code=digest("stages.embed"),
    shell:
        "excise embed --model {input.model:q} {params.texts} {params.machine} --output {output:q} --log {log:q}"


rule retrieve:
    input:
        model=lambda w: [] if w.encoder == DENSE else folder(w.model, w.encoder),
        parts=f"{PARTS}/{{collection}}",
        dense=f"{ROOM}/dense/{{collection}}.safetensors",
    output:
        f"{ROOM}/variants/{{encoder}}/{{collection}}.json",
    log:
        f"{MODEL}/logs/retrieve/{{encoder}}-{{collection}}.log",
    wildcard_constraints:
        collection=alternatives(n for n in COLLECTIONS if not has_pairs(n)),
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **encoder_job(passes=1),
    params:
        judged=judged_options,
        encoder=encoder_options,
        code=digest("stages.retrieve"),
    shell:
        "excise retrieve {params.judged} {params.encoder} --dense {input.dense:q} --variant {wildcards.encoder:q} "
        "--name {wildcards.collection:q} --output {output:q} --log {log:q}"


rule judge_similarity:
    input:
        model=lambda w: [] if w.encoder == DENSE else folder(w.model, w.encoder),
        parts=f"{PARTS}/{{collection}}",
        dense=f"{ROOM}/dense/{{collection}}.safetensors",
    output:
        f"{ROOM}/variants/{{encoder}}/{{collection}}.json",
    log:
        f"{MODEL}/logs/judge_similarity/{{encoder}}-{{collection}}.log",
    wildcard_constraints:
        collection=alternatives(n for n in COLLECTIONS if has_pairs(n)),
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **encoder_job(passes=1),
    params:
        judged=judged_options,
        encoder=encoder_options,
        code=digest("stages.similarity"),
    shell:
        "excise similarity {params.judged} --pairs {input.parts:q}/pairs.jsonl {params.encoder} --dense {input.dense:q} "
        "--variant {wildcards.encoder:q} --name {wildcards.collection:q} --output {output:q} --log {log:q}"


# All encoders in one job, in turns: times of two jobs are not comparable. One more encoder times all of them again.
rule encoder_cost:
    input:
        dense=f"{INPUTS}/models/{{model}}",
        model=lambda w: [folder(w.model, name) for name in SMALLER],
    output:
        costs=f"{ROOM}/costs.json",
        measurements=expand("{room}/cost/{encoder}.json", room=ROOM, encoder=ENCODERS),
    log:
        f"{MODEL}/logs/encoder_cost.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **encoder_job(passes=1, models=len(ENCODERS)),
    params:
        models=lambda w, input: shlex.join(
            f"{name}={place}"
            for name, place in zip(ENCODERS, [input.dense, *input.model])
        ),
        folder=lambda w, output: str(Path(output.measurements[0]).parent),
        timing=options(RETRIEVAL, Timing),
        machine=machine,
        code=digest("stages.encoder_cost"),
    shell:
        "excise encoder-cost {params.models} {params.timing} {params.machine} --measurements {params.folder:q} "
        "--output {output.costs:q} --log {log:q}"


rule retention:
    input:
        measured,
    output:
        f"{ROOM}/retention.json",
    log:
        f"{MODEL}/logs/retention.log",
    conda:
        "../../envs/excise.yaml"
    params:
        keeping=options(RETRIEVAL, Keeping),
        seed=config["seed"],
        code=digest("stages.retention"),
    shell:
        "excise retention {input:q} {params.keeping} --seed {params.seed} --output {output:q} --log {log:q}"


rule retrieval_summary:
    input:
        measured,
    output:
        csv=f"{ROOM}/summary.csv",
        json=f"{ROOM}/summary.json",
    log:
        f"{MODEL}/logs/retrieval_summary.log",
    conda:
        "../../envs/excise.yaml"
    params:
        goal=goal_of_encoders(),
        resamples=options(config["evaluation"], only=["resamples"]),
        seed=config["seed"],
        code=digest("stages.summary"),
    shell:
        "excise summary {input:q} {params.goal} {params.resamples} --seed {params.seed} --csv {output.csv:q} "
        "--json {output.json:q} --log {log:q}"


rule retrieval_report:
    input:
        summary=f"{ROOM}/summary.json",
        settings=f"{RUN}/settings.json",
        measurements=measured,
    output:
        html=report(
            f"{ROOM}/report.html",
            category="Results",
            caption="../report/report.rst",
        ),
        data=directory(f"{ROOM}/report-data"),
    log:
        f"{MODEL}/logs/retrieval_report.log",
    conda:
        "../../envs/excise.yaml"
    params:
        timings=f"{MODEL}/logs",
        seed=config["seed"],
        code=digest("stages.report_encoders"),
    shell:
        "excise report-encoders --summary {input.summary:q} --settings {input.settings:q} --measurements {input.measurements:q} "
        "--timings {params.timings:q} --seed {params.seed} --data {output.data:q} --output {output.html:q} --log {log:q}"
