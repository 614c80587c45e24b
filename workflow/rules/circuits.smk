# In:  a model, and tasks whose circuits are looked for (circuits: of the configuration)
# Out: circuits/TASK/pairs (halves that find and judge), edges/METHOD (scores of all edges), nodes.json (exact effects of
#      heads and MLPs), curves/METHOD.json (faithfulness over size), circuits/METHOD-SIZE.json and judged/METHOD-SIZE.json,
#      heads.json (what removing heads left), circuits/acdc.json (what removing edges left), report.html


include: "../common/circuits.smk"


localrules:
    merge_edges,
    choose_circuit,
    report_circuit,
    strongest_heads,
    random_heads,


wildcard_constraints:
    task=alternatives(config["circuits"]),
    edges=alternatives(edge_methods.METHODS),
    size="0[.][0-9]+|[0-9]+e-[0-9]+",
    circuit="[a-z-]+[0-9.e-]*",
    part="[0-9]+",
    share="0[.][0-9]+",


rule make_pairs:
    input:
        lambda w: on_disk(circuit_of(w)["texts"]) if circuit_of(w)["texts"] else [],
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
    output:
        find=f"{TASK}/pairs/find.jsonl",
        judge=f"{TASK}/pairs/judge.jsonl",
    log:
        f"{MODEL}/logs/circuits/{{task}}/pairs.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **model_job(
            lambda w, input: costs.Cost(
                circuit_of(w)["batch_size"] * costs.PROMPT,
                lambda: 4 * circuit_of(w)["pairs"] * costs.PROMPT,
            )
        ),
    params:
        model=model_options,
        task=lambda w: options(circuit_of(w), Task),
        batch_size=lambda w: circuit_of(w)["batch_size"],
        seed=config["seed"],
        code=digest("stages.pairs"),
    shell:
        "excise pairs --model {input.model:q} {params.model} {params.task} --batch-size {params.batch_size} "
        "--seed {params.seed} --find {output.find:q} --judge {output.judge:q} --log {log:q}"


rule score_edges:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        pairs=f"{TASK}/pairs/find.jsonl",
    output:
        f"{TASK}/edges/{{edges}}-part-{{part}}.safetensors",
    log:
        f"{MODEL}/logs/circuits/{{task}}/edges/{{edges}}-part-{{part}}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **circuit_job(lambda w, input: passes_of(w) / parts_of(w)),
    params:
        model=model_options,
        running=running,
        scoring=lambda w: options(circuit_of(w), Scoring),
        parts=parts_of,
        seed=config["seed"],
        code=lambda w: digest("stages.edges", edge_methods.module_name(w.edges)),
    shell:
        "excise edges --method {wildcards.edges} --model {input.model:q} {params.model} --pairs {input.pairs:q} "
        "{params.running} {params.scoring} --shard {wildcards.part}/{params.parts} --seed {params.seed} "
        "--output {output:q} --log {log:q}"


rule merge_edges:
    input:
        lambda w: [
            f"{TASK}/edges/{{edges}}-part-{part}.safetensors"
            for part in range(parts_of(w))
        ],
    output:
        f"{TASK}/edges/{{edges}}.safetensors",
    log:
        f"{MODEL}/logs/circuits/{{task}}/edges/{{edges}}.log",
    conda:
        "../../envs/excise.yaml"
    params:
        code=digest("stages.merge"),
    shell:
        "excise merge {input:q} --output {output:q} --log {log:q}"


rule patch_nodes:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        pairs=f"{TASK}/pairs/find.jsonl",
        edges=lambda w: [edge_scores(w, method) for method in circuit_of(w)["methods"]],
    output:
        json=f"{TASK}/nodes.json",
        csv=f"{TASK}/nodes.csv",
    log:
        f"{MODEL}/logs/circuits/{{task}}/nodes.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **circuit_job(nodes_of),
    params:
        model=model_options,
        running=running,
        code=digest("stages.patch"),
    shell:
        "excise patch --model {input.model:q} {params.model} --pairs {input.pairs:q} {params.running} "
        "--edges {input.edges:q} --output {output.json:q} --csv {output.csv:q} --log {log:q}"


rule choose_circuit:
    input:
        lambda w: edge_scores(w, w.edges),
    output:
        f"{TASK}/circuits/{{edges}}-{{size}}.json",
    log:
        f"{MODEL}/logs/circuits/{{task}}/circuits/{{edges}}-{{size}}.log",
    conda:
        "../../envs/excise.yaml"
    params:
        choosing=lambda w: options(circuit_of(w), Choosing),
        code=digest("stages.circuit"),
    shell:
        "excise circuit --edges {input:q} --size {wildcards.size} {params.choosing} --output {output:q} --log {log:q}"


rule judge_curve:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        pairs=f"{TASK}/pairs/judge.jsonl",
        edges=lambda w: edge_scores(w, w.edges),
    output:
        f"{TASK}/curves/{{edges}}.json",
    log:
        f"{MODEL}/logs/circuits/{{task}}/curves/{{edges}}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **circuit_job(lambda w, input: 60),
    params:
        model=model_options,
        running=running,
        seed=config["seed"],
        code=digest("stages.faithfulness"),
    shell:
        "excise faithfulness --model {input.model:q} {params.model} --pairs {input.pairs:q} {params.running} "
        "--edges {input.edges:q} --seed {params.seed} --output {output:q} --log {log:q}"


rule judge_circuit:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        pairs=f"{TASK}/pairs/judge.jsonl",
        circuit=f"{TASK}/circuits/{{circuit}}.json",
    output:
        f"{TASK}/judged/{{circuit}}.json",
    log:
        f"{MODEL}/logs/circuits/{{task}}/judged/{{circuit}}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **circuit_job(lambda w, input: 10),
    params:
        model=model_options,
        running=running,
        seed=config["seed"],
        code=digest("stages.faithfulness"),
    shell:
        "excise faithfulness --model {input.model:q} {params.model} --pairs {input.pairs:q} {params.running} "
        "--circuit {input.circuit:q} --seed {params.seed} --output {output:q} --log {log:q}"


rule remove_heads:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        pairs=f"{TASK}/pairs/find.jsonl",
        judge=f"{TASK}/pairs/judge.jsonl",
    output:
        f"{TASK}/heads.json",
    log:
        f"{MODEL}/logs/circuits/{{task}}/heads.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **circuit_job(lambda w, input: 2 * nodes_of(w, input)),
    params:
        model=model_options,
        running=running,
        removal=lambda w: options(circuit_of(w)["remove_heads"], HeadRemoval),
        code=digest("stages.remove_heads"),
    shell:
        "excise remove-heads --model {input.model:q} {params.model} --pairs {input.pairs:q} {params.running} "
        "{params.removal} --judge {input.judge:q} --output {output:q} --log {log:q}"


rule remove_edges:
    input:
        model=f"{INPUTS}/models/{{model}}",
        facts=FACTS,
        pairs=f"{TASK}/pairs/find.jsonl",
        edges=lambda w: edge_scores(w, circuit_of(w)["methods"][0]),
    output:
        f"{TASK}/circuits/acdc.json",
    log:
        f"{MODEL}/logs/circuits/{{task}}/circuits/acdc.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **circuit_job(removed_of),
    params:
        model=model_options,
        running=lambda w: options(circuit_of(w), Running, without=["objective"]),
        removal=lambda w: options(circuit_of(w)["remove_edges"], EdgeRemoval),
        code=digest("stages.remove_edges"),
    shell:
        "excise remove-edges --model {input.model:q} {params.model} --pairs {input.pairs:q} {params.running} "
        "--edges {input.edges:q} {params.removal} --output {output:q} --log {log:q}"


rule strongest_heads:
    input:
        f"{TASK}/nodes.json",
    output:
        f"{TASK}/heads/strongest-{{share}}.json",
    log:
        f"{MODEL}/logs/circuits/{{task}}/heads/strongest-{{share}}.log",
    conda:
        "../../envs/excise.yaml"
    params:
        code=digest("stages.strongest_heads"),
    shell:
        "excise strongest-heads --nodes {input:q} --share {wildcards.share} --output {output:q} --log {log:q}"


rule random_heads:
    input:
        f"{TASK}/nodes.json",
    output:
        f"{TASK}/heads/random-{{share}}-{{part}}.json",
    log:
        f"{MODEL}/logs/circuits/{{task}}/heads/random-{{share}}-{{part}}.log",
    conda:
        "../../envs/excise.yaml"
    params:
        code=digest("stages.strongest_heads"),
    shell:
        "excise strongest-heads --nodes {input:q} --share {wildcards.share} --random {wildcards.part} --output {output:q} "
        "--log {log:q}"


rule answer_pairs:
    input:
        model=model_of,
        facts=FACTS,
        units=selection_of,
        pairs=f"{TASK}/pairs/judge.jsonl",
    output:
        f"{VARIANT}/pairs/{{task}}.json",
    log:
        f"{MODEL}/logs/answer/{{variant}}-{{task}}.log",
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **circuit_job(lambda w, input: 1),
    params:
        model=model_options,
        made=made_of,
        units=units_options,
        batch_size=lambda w: circuit_of(w)["batch_size"],
        code=digest("stages.answer"),
    shell:
        "excise answer --model {input.model:q} {params.units} {params.model} --pairs {input.pairs:q} "
        "--name {wildcards.task:q} --batch-size {params.batch_size} --output {output:q} --log {log:q}"


rule report_circuit:
    input:
        settings=f"{RUN}/settings.json",
        pairs=[f"{TASK}/pairs/find.jsonl", f"{TASK}/pairs/judge.jsonl"],
        nodes=f"{TASK}/nodes.json",
        curves=lambda w: [
            f"{TASK}/curves/{method}.json" for method in circuit_of(w)["methods"]
        ],
        circuits=lambda w: [
            f"{TASK}/circuits/{name}.json" for name in first_circuits(w)
        ],
        judged=lambda w: [f"{TASK}/judged/{name}.json" for name in first_circuits(w)],
        heads=lambda w: [f"{TASK}/heads.json"] if circuit_of(w)["remove_heads"] else [],
        acdc=lambda w: (
            [f"{TASK}/{folder}/acdc.json" for folder in ("circuits", "judged")]
            if circuit_of(w)["remove_edges"]
            else []
        ),
    output:
        html=report(
            f"{TASK}/report.html", category="Circuits", caption="../report/report.rst"
        ),
        data=directory(f"{TASK}/report-data"),
    log:
        f"{MODEL}/logs/circuits/{{task}}/report.log",
    conda:
        "../../envs/excise.yaml"
    params:
        known=lambda w: options({"known_heads": circuit_of(w)["known_heads"]}),
        code=digest("stages.report_circuit"),
    shell:
        "excise report-circuit --name {wildcards.task:q} --settings {input.settings:q} --pairs {input.pairs:q} "
        "--nodes {input.nodes:q} --curves {input.curves:q} --circuits {input.circuits:q} --judged {input.judged:q} "
        "--heads {input.heads:q} --acdc {input.acdc:q} {params.known} --data {output.data:q} --output {output.html:q} --log {log:q}"
