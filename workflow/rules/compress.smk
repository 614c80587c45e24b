# In:  the model, or a variant's folder; a calibration text
# Out: variants/VARIANT/model: an ordinary model folder, pruned or sliced, gone when all is measured; the one to export
#      stays as export/VARIANT


include: "../common/compress.smk"


rule compress:
    input:
        model=base_of,
        facts=FACTS,
        calibration=calibration_of,
        protect=protected_of,
        relevance=lambda w: entry_of(w.variant).get("relevance") or [],
    output:
        temp(directory(f"{VARIANT}/model")),
    log:
        f"{MODEL}/logs/compress-{{variant}}.log",  # beside other steps: the report lists what each variant took
    wildcard_constraints:
        variant=alternatives(FOLDERS.keys() - {config["export"]}),
    conda:
        "../../envs/excise.yaml"
    threads: config["threads"]
    resources:
        **model_job(lambda w, input: costs.compress(entry_of(w.variant)["calibration"])),
    params:
        stage=lambda w: entry_of(w.variant)["edit"],
        model=model_options,
        files=lambda w, input: options(
            {
                key: input.get(key) or None
                for key in ("calibration", "protect", "relevance")
            }
        ),
        settings=lambda w: compress_options(w.variant),
        made=lambda w: made(w.variant),
    shell:
        "excise {params.stage} {input.model:q} {params.model} {params.files} {params.settings} "
        "--output {output:q} --log {log:q}"


use rule compress as compress_and_keep with:
    output:
        directory(f"{MODEL}/export/{{variant}}"),
    wildcard_constraints:
        variant=alternatives(FOLDERS.keys() & {config["export"]}),
