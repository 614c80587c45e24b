# In:  measurements and unit lists of all variants
# Out: summary.csv, summary.json (a row per variant) and report.html, which needs nothing beside itself

from excise.config.evaluation import Comparing


localrules:
    summary,
    compare_candidates,
    report,
    settings,


rule settings:
    output:
        f"{RUN}/settings.json",
    log:
        f"{RUN}/logs/settings.log",
    params:
        settings=config,
    run:
        import json

        with open(output[0], "w", encoding="utf-8") as file:
            json.dump(params.settings, file, indent=1, ensure_ascii=False)


rule summary:
    input:
        expand(
            "{path}/variants/{variant}/measurements.json",
            path=MODEL,
            variant=[BASELINE, *VARIANTS],
        ),
    output:
        csv=f"{MODEL}/summary.csv",
        json=f"{MODEL}/summary.json",
    log:
        f"{MODEL}/logs/summary.log",
    conda:
        "../../envs/excise.yaml"
    params:
        options=options(config["evaluation"], Comparing),
        goal=goal_options(),
        seed=config["seed"],
        code=digest("stages.summary"),
    shell:
        "excise summary {input:q} {params.options} {params.goal} --seed {params.seed} --csv {output.csv:q} --json {output.json:q} "
        "--log {log:q}"


# Of what may win: who does is known before the controls that are matched to it are judged.
use rule summary as compare_candidates with:
    input:
        expand(
            "{path}/variants/{variant}/measurements.json",
            path=MODEL,
            variant=[BASELINE, *CANDIDATES],
        ),
    output:
        csv=f"{MODEL}/candidates.csv",
        json=f"{MODEL}/candidates.json",
    log:
        f"{MODEL}/logs/compare_candidates.log",


rule report:
    input:
        summary=f"{MODEL}/summary.json",
        settings=f"{RUN}/settings.json",
        facts=FACTS,
        measurements=expand(
            "{path}/variants/{variant}/measurements.json",
            path=MODEL,
            variant=[BASELINE, *VARIANTS],
        ),
        units=expand(
            "{path}/units/{variant}.json",
            path=MODEL,
            variant=[name for name in VARIANTS if name not in FOLDERS],
        ),
        generations=expand(
            "{path}/variants/{variant}/generations.jsonl",
            path=MODEL,
            variant=[BASELINE, *VARIANTS] if config["prompts"] else [],
        ),
        scores=expand(
            "{path}/variants/{variant}/scores-0.jsonl",
            path=MODEL,
            variant=[BASELINE, *VARIANTS] if config["prompts"] else [],
        ),
        lenses=expand(
            "{path}/logit-lens/{variant}.json",
            path=MODEL,
            variant=plan.lenses(EXPERIMENT),
        ),
        tunings=expand(
            "{path}/{part}/{choice}.json", path=MODEL, part=TUNING, choice=CHOICES
        ),
    output:
        html=report(
            f"{MODEL}/report.html", category="Results", caption="../report/report.rst"
        ),
        data=directory(f"{MODEL}/report-data"),
        picture=f"{MODEL}/trade-off.svg",
    log:
        f"{MODEL}/logs/report.log",
    conda:
        "../../envs/excise.yaml"
    params:
        timings=f"{MODEL}/logs",
        code=digest("stages.report"),
    shell:
        "excise report --summary {input.summary:q} --settings {input.settings:q} --model {input.facts:q} "
        "--measurements {input.measurements:q} --units {input.units:q} "
        "--generations {input.generations:q} --scores {input.scores:q} --lenses {input.lenses:q} --tunings {input.tunings:q} "
        "--timings {params.timings:q} --data {output.data:q} --picture {output.picture:q} --output {output.html:q} --log {log:q}"
