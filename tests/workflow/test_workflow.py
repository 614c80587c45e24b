"""The whole chain through the real Snakemake."""

import copy
import csv
import dataclasses
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from excise.reporting.summary import read_summary
from tests.conftest import REPOSITORY, WORDS, clone_into
from tests.unit.test_capability import write_tasks
from tests.unit.test_evaluation_scorers import bert_folder, save_classifier
from tests.workflow.conftest import PLANNED

pytestmark = pytest.mark.slow


def children_seconds():
    """Processor time of finished child processes: what they cost, however busy the machine is."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def planned(output):
    """Jobs by rule from the table that Snakemake prints."""
    table = output[output.index("Job stats:") :]
    rows = re.findall(r"^(\w+) +(\d+)$", table.split("\n\n")[0], re.MULTILINE)
    return {rule: int(count) for rule, count in rows if rule != "total"}


def test_a_dry_run_plans_every_job_and_touches_nothing(make_experiment):
    experiment = make_experiment()
    before = sorted(experiment.folder.rglob("*"))
    start = children_seconds()
    result = experiment.snakemake("--dry-run")
    assert result.returncode == 0, result.stderr
    assert planned(result.stdout) == PLANNED
    assert children_seconds() - start < 5
    after = {path for path in experiment.folder.rglob("*") if ".snakemake" not in path.parts}
    assert after == {*before, experiment.folder / "experiment.yaml"}


def test_the_demo_and_every_experiment_can_be_planned(tmp_path):
    for path in (REPOSITORY / "config.yaml", *sorted((REPOSITORY / "experiments").glob("*.yaml"))):
        result = subprocess.run(
            [Path(sys.executable).parent / "snakemake", "--snakefile", REPOSITORY / "Snakefile", "--directory", tmp_path]
            + ([] if path.name == "config.yaml" else ["--configfile", path])
            + ["--dry-run"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, (path, result.stderr[-3000:])
        jobs = planned(result.stdout)
        if path.name == "config.yaml":
            drawn = re.findall(r">(\w+)</text>", (REPOSITORY / "docs/rules.svg").read_text())
            assert sorted(drawn) == sorted(jobs), "draw docs/rules.svg again: docs/architecture.md says how"
        config = yaml.safe_load(path.read_text())
        used = {config.get("generations", {}).get("scorer", "detoxify-original"), *config["evaluation"]["scorers"]}
        assert jobs.get("fetch_scorer", 0) == sum(name.startswith(("detoxify", "hf:")) for name in used), path
        sizes = {n: len(s.get("count", "?")) * s.get("repeats", 1) for n, s in config["variants"].items()}
        chosen = {s["choose"] for s in config["variants"].values() if "choose" in s}
        competing = sum(sizes[name] for name, s in config["variants"].items() if "choose" in s)
        judged = 1 + sum(sizes.values()) - competing + len(chosen)
        assert jobs["evaluate"] == (judged + competing + bool(chosen)) * len(config["models"]), path


def test_the_chain_ends_with_a_summary_a_report_and_an_exported_model(finished):
    from transformers import AutoModelForCausalLM

    with open(finished.run_folder / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == ["baseline", "lrp-2", "lrp-4", "random-4"]
    summary = json.loads((finished.run_folder / "summary.json").read_text())
    assert [row["variant"] for row in summary["variants"]] == [row["variant"] for row in rows]
    page = (finished.run_folder / "report.html").read_text()
    assert "lrp-4" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page), "the page must not fetch anything"
    model = AutoModelForCausalLM.from_pretrained(finished.run_folder / "export/lrp-2").eval()
    neurons = json.loads((finished.run_folder / "units/lrp-2.json").read_text())["rows"]
    for row in neurons:
        assert not model.model.layers[row["layer"]].mlp.down_proj.weight[:, row["neuron"]].any()


def test_no_prompt_serves_both_attribution_and_evaluation(finished):
    folder = finished.run_folder.parent / "prompts"
    parts = [{row["text"] for row in rows(folder / f"{part}.jsonl")} for part in ("attribution", "evaluation")]
    assert all(parts)
    assert not parts[0] & parts[1]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def test_running_again_does_nothing(finished):
    result = finished.snakemake()
    assert result.returncode == 0
    assert "Nothing to be done" in result.stderr + result.stdout


def test_a_rule_is_a_command_that_can_be_typed(finished, tmp_path):
    """Every printed command, typed by hand with another output, writes the same bytes."""
    result = finished.snakemake("--dry-run", "--forceall", "--printshellcmds")
    commands = re.findall(r"^Shell command: (excise .+)$", result.stdout, re.MULTILINE)
    assert len(commands) == sum(PLANNED.values()) - 2  # all and settings run no command
    typed = [c for c in commands if c.split()[1] in {"select", "merge", "contrast", "reference", "attribute"}]
    by_stage = {command.split()[1]: command for command in typed}
    assert len(by_stage) == 5
    for stage, command in by_stage.items():
        words = shlex.split(command)
        output = finished.folder / words[words.index("--output") + 1]
        words[words.index("--output") + 1] = str(tmp_path / stage)
        words[words.index("--log") + 1] = str(tmp_path / "log")
        words[0] = str(Path(sys.executable).parent / "excise")
        subprocess.run(words, cwd=finished.folder, env=finished.environment(), check=True, capture_output=True)
        assert (tmp_path / stage).read_bytes() == output.read_bytes(), command


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(finished, make_experiment):
    experiment = make_experiment()
    wanted = experiment.run_folder.relative_to(experiment.folder) / "variants/lrp-2/measurements.json"
    for moment in ("statistics/neuron/lrp", "variants/lrp-2"):  # the second cannot begin before the first is done
        messages = experiment.folder / "messages"  # a pipe that nobody reads would stop the run once it is full
        with messages.open("w") as file:
            process = subprocess.Popen(
                experiment.command(str(wanted), program="start"),
                cwd=experiment.folder, env=experiment.environment(),
                stdout=subprocess.DEVNULL, stderr=file, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 300
        while not any((experiment.run_folder / moment).rglob("*.*")) and time.monotonic() < deadline:
            assert process.poll() is None, messages.read_text()[-4000:]
            time.sleep(0.1)
        time.sleep(3)  # into the middle of a job
        victims = [process, *psutil.Process(process.pid).children(recursive=True)]
        for victim in victims:
            os.kill(victim.pid, signal.SIGKILL)
        process.wait()
    result = experiment.snakemake(str(wanted), program="start")
    assert result.returncode == 0, result.stderr[-4000:]
    assert "removing the lock" in result.stderr
    found = experiment.artefacts()
    assert str(wanted.relative_to("results")) in found
    assert found == {name: data for name, data in finished.artefacts().items() if name in found}
    assert not list(experiment.folder.rglob("*.tmp"))


def copy_of(experiment, place):
    """The same, run so far, in a folder of its own."""
    shutil.copytree(experiment.folder, folder := place / experiment.folder.name)
    return dataclasses.replace(experiment, folder=folder, config=copy.deepcopy(experiment.config))


def test_too_few_answers_stop_before_any_attribution_and_a_lower_bar_reruns_what_depends_on_it(finished, tmp_path):
    experiment = copy_of(finished, tmp_path)
    shutil.rmtree(experiment.run_folder / "statistics")
    experiment.config["references"]["toxic"] |= {"at_least": 2, "minimum": 6}  # more than the scorer ever gives
    result = experiment.snakemake("--keep-going")
    assert result.returncode != 0
    assert "toxic/seed-0.jsonl: 0 of 24 generations score at or above 2" in result.stderr, result.stderr[-3000:]
    assert not (experiment.run_folder / "statistics").exists()
    experiment.config["references"]["toxic"] |= {"at_least": 0.6, "minimum": 2}
    jobs = planned(experiment.snakemake("--dry-run").stdout)
    assert jobs["reference_generations"] == PLANNED["reference_generations"]
    assert not jobs.keys() & {"generate_references", "score_references", "reference_windows", "fetch_model"}


@pytest.mark.parametrize(
    ("file", "reruns", "stays"),
    [
        (
            "src/excise/attribution/lrp.py",
            "attribute",
            {"generate_references", "reference_generations", "control", "fetch_model"},
        ),
        (
            "tests/workflow/tiny_scorer.py",
            "score_references",
            {"generate_references", "reference_windows", "control", "fetch_model"},
        ),
    ],
)
def test_editing_a_module_reruns_the_rules_that_use_it_and_only_those(finished, tmp_path, file, reruns, stays):
    """The rules carry digests of their code: a comment in it concerns what it makes, and what follows, alone."""
    clone = clone_into(tmp_path / "clone")
    with open(clone / file, "a") as module:
        module.write("\n# a comment\n")
    edited = dataclasses.replace(finished, repository=clone, python_path=[clone / "src", clone / "tests/workflow"])
    jobs = planned(edited.snakemake("--dry-run").stdout)
    assert jobs[reruns] == PLANNED[reruns]
    assert not stays & jobs.keys()


@pytest.mark.parametrize(
    ("file", "rule"),
    [("prömpts 'x.jsonl", "fetch_prompts"), ("a text.txt", "fetch_text"), ("model", "fetch_model")],
)
def test_editing_a_local_input_reruns_what_reads_it(finished, tiny_model, file, rule):
    path = tiny_model / "config.json" if file == "model" else finished.folder / file
    before, times = path.read_bytes(), path.stat()
    try:
        path.write_bytes(before + b"\n")
        jobs = planned(finished.snakemake("--dry-run").stdout)
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert jobs[rule] == PLANNED[rule]
    assert not {"fetch_prompts", "fetch_text", "fetch_model"} - {rule} & jobs.keys()


def test_a_further_number_of_neurons_costs_its_evaluation_and_nothing_else(finished):
    config = copy.deepcopy(finished.config)
    config["variants"]["lrp"]["count"].append(6)  # more than any before
    jobs = planned(dataclasses.replace(finished, config=config).snakemake("--dry-run").stdout)
    once = {"select", "logit_lens", "generate", "score", "perplexity", "fluency", "evaluate"}
    assert {rule: count for rule, count in jobs.items() if rule in PLANNED.keys() - {"all", "settings"}} == {
        **dict.fromkeys(once, 1), "summary": 1, "report": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({"count": [2, 4, 6], "objective": "last-max"}, {"attribute": 8}),
        ({"count": [2, 4, 6], "temperature": 0.7}, {"generate_references": 2, "attribute": 8, "generate": 3}),
        ({"count": [2, 4, 6], "seqlen": 32}, {"perplexity": 5}),
        ({"at_least": 0.55, "objective": "last-max"}, {"attribute": 8}),
        ({"dtype": "bfloat16"}, {"generate_references": 2, "attribute": 8, "perplexity": 4}),
        ({"count": [2]}, {"summary": 1, "report": 1}),
    ],
)
def test_no_change_hides_behind_another(finished, changes, rules):
    """Snakemake asks no job below one that runs whether its own settings changed."""
    config = copy.deepcopy(finished.config)
    places = {
        "count": config["variants"]["lrp"],
        "objective": config.setdefault("attribution", {}),
        "temperature": config["generations"],
        "seqlen": config["evaluation"]["perplexity"],
        "at_least": config["references"]["toxic"],
        "dtype": next(iter(config["models"].values())),
    }
    for key, value in changes.items():
        places[key][key] = value
    jobs = planned(dataclasses.replace(finished, config=config).snakemake("--dry-run").stdout)
    assert {rule: jobs.get(rule, 0) for rule in rules} == rules


def test_until_select_makes_every_list_that_is_not_like_another(finished, tmp_path):
    experiment = copy_of(finished, tmp_path)
    shutil.rmtree(experiment.run_folder / "units")
    experiment.config["variants"]["random"]["matched_to"] = "lrp"
    result = experiment.snakemake("--until", "select")
    assert result.returncode == 0, result.stderr[-2000:]
    assert {path.stem for path in (experiment.run_folder / "units").iterdir()} == {"lrp-2", "lrp-4"}
    assert planned(experiment.snakemake("--dry-run").stdout)["select_matched"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"varaints": {}}, "Did you mean 'variants'"),
        ({"seeds": "zero"}, "seeds: 'zero' is not a list"),
        ({"generations": {"scorer": "python:tiny_scorer:scoers"}}, "tiny_scorer.py: unknown function 'scoers'"),
        ({"generations": {"scorer": "python:no_module_of_that_name:f"}}, "there is no module 'no_module_of_that_name'"),
    ],
)
def test_a_wrong_configuration_stops_the_dry_run(make_experiment, change, message):
    experiment = make_experiment()
    experiment.config |= change
    result = experiment.snakemake("--dry-run")
    assert result.returncode != 0
    assert message in result.stderr + result.stdout


def test_too_many_neurons_stop_before_anything_is_generated(make_experiment):
    experiment = make_experiment()
    experiment.config["variants"]["lrp"]["count"] = [2, 49]
    experiment.config["export"] = None
    result = experiment.snakemake()
    assert result.returncode != 0
    assert "49" in result.stderr
    assert "48" in result.stderr
    assert not (experiment.run_folder / "generations").exists()


def test_a_scorer_that_cannot_be_fetched_stops_before_anything_is_generated(make_experiment):
    experiment = make_experiment()
    experiment.config["evaluation"]["scorers"].append("hf:me/nothing at all")
    result = experiment.snakemake()
    assert result.returncode != 0
    assert "Run excise fetch-scorer once where there is a network" in result.stdout + result.stderr
    assert "localrule fetch_scorer:" in result.stdout + result.stderr
    assert not list(experiment.folder.rglob("generations*.jsonl"))
    (experiment.folder / "inputs/scorers").mkdir(exist_ok=True)
    (experiment.folder / "inputs/scorers/hf%3Ame%2Fnothing%20at%20all.json").touch()
    assert "fetch_scorer" not in planned(experiment.snakemake("--dry-run").stdout)


def test_a_further_scorer_is_fetched_and_generates_nothing_anew(finished, tmp_path):
    experiment = copy_of(finished, tmp_path)
    experiment.config["evaluation"]["scorers"].append("detoxify-original")
    jobs = planned(experiment.snakemake("--dry-run").stdout)
    assert jobs == {
        "fetch_scorer": 1, "score": 4, "evaluate": 4,
        "summary": 1, "report": 1, "export": 1, "settings": 1, "all": 1,
    }  # fmt: skip


def test_a_behaviour_of_the_users_own_goes_through_the_whole_chain(make_experiment):
    """Judged by a classifier in a local folder and by repetition; decoded greedily; and no word of toxicity.

    How many neurons are pruned is chosen on prompts of their own; beside them all experts are dampened about their mean.
    """
    experiment = make_experiment()
    folder = experiment.folder / "a 'judge'"
    base = bert_folder(experiment.folder / "bert", WORDS)
    save_classifier(folder, base, ["calm", "hasty"])
    judge = f"hf:{folder}"
    corpora = {"target": "hasty", "retain": "words"}
    experiment.config |= {
        "behaviour": {"noun": "haste", "adjective": "hasty"},
        "seeds": [0],
        "generations": {"greedy": True, "max_new_tokens": 5, "scorer": judge},
        "scorers": {judge: {"label": "hasty"}},
        "attribution": {"batch_size": 2},
        "variants": {
            "lrp": {"method": "lrp", **corpora, "count": [2, 3], "choose": "best"},
            "random": {"method": "random", "matched_to": "best"},
            "experts": {"method": "aura", **corpora, "scale": "expertise", "ablation": "mean", "count": ["all"]},
            "heads": {"method": "wanda", "unit": "head", **corpora, "ablation": "mean", "count": [1]},
        },
        "tuning": {
            "perplexity": {"text": "words", "seqlen": 16, "windows": 4, "skip": 4},
            "max_perplexity_increase": 0.4,
        },
        "export": "experts-all",
    }
    experiment.config["prompts"]["tuning_fraction"] = 0.25
    references = experiment.config["references"]
    hasty = references["toxic"] | {"at_least": 0.01, "span": "generation"}
    experiment.config["references"] = {"hasty": hasty, "words": references["words"]}
    evaluation = experiment.config["evaluation"] | {"greedy": True, "scorers": [judge, "repetition"], "threshold": 0.85}
    del evaluation["num_generations"]
    experiment.config["evaluation"] = evaluation
    result = experiment.snakemake()
    assert result.returncode == 0, result.stderr[-6000:]
    summary = read_summary(experiment.run_folder / "summary.json")
    noun = experiment.config["behaviour"]["noun"]
    assert [column.label for column in summary.of_task("behaviour")[::4]] == ["hf:a 'judge'", "repetition"]
    assert summary.goal.metric == f"{noun}.share"
    figures = {address: cell.figure for address, cell in summary.baseline.cells.items()}
    assert figures[f"{noun}[repetition].mean"] == pytest.approx(1 - figures["language.rur"])
    settings = summary.target.settings
    assert settings["scorer"]["label"] == "hasty"
    assert settings["generation"]["greedy"]
    assert settings["num_generations"] == 1
    page = re.sub(r"base64,[^\"]+", "", (experiment.run_folder / "report.html").read_text())
    assert "hasty continuations" in page
    tuning = read_summary(experiment.run_folder / "tuning/best.json")
    assert [row.variant for row in tuning.variants] == ["baseline", "lrp-2", "lrp-3"]
    assert tuning.budgets[0].settings["protocol"] == "windows-16x4-skip-4"
    assert tuning.target.items + summary.target.items == 12
    experts, best, like, heads = (
        json.loads((experiment.run_folder / f"units/{name}.json").read_text())
        for name in ("experts-all", "best", "random", "heads-1")
    )
    assert best["chosen"]["variant"] == "lrp-2"  # lrp-3 leaves every continuation hasty, as it was
    sizes = [len(chosen["rows"]) for chosen in (experts, best, like, heads)]
    about = {row.variant: row.about for row in summary.variants}
    assert [about[name].size for name in ("experts-all", "best", "random", "heads-1")] == sizes
    assert 48 > sizes[0] > sizes[1] == sizes[2] > sizes[3] == 1
    assert heads["rows"][0].keys() >= {"layer", "head", "mean"}
    layers = [sorted(row["layer"] for row in chosen["rows"]) for chosen in (best, like)]
    assert layers[0] == layers[1]
    treatments = {name: (one.unit, one.scale, one.ablation) for name, one in about.items() if name != "baseline"}
    assert treatments == {
        "experts-all": ("neuron", "per row", "mean"),
        "best": ("neuron", 0, "zero"),
        "random": ("neuron", 0, "zero"),
        "heads-1": ("head", 0, "mean"),
    }
    assert len({row.cells["words.perplexity"].figure for row in summary.variants}) == 5, (
        "each intervention does something of its own"
    )
    means = sorted(experiment.run_folder.glob("scores/*/mean-activation/*"))
    assert [path.parts[-3:] for path in means] == [
        (unit, "mean-activation", "words.safetensors") for unit in ("head", "neuron")
    ]
    assert json.loads((experiment.run_folder / "export/experts-all/config.json").read_text())["mlp_bias"]
    assert f"best is {best['chosen']['variant']}: of 2 lists" in page
    for place in ("report.html", "summary.csv", "export/experts-all/README.md"):
        assert "toxi" not in re.sub(
            r"<details>.*</details>", "", (experiment.run_folder / place).read_text(), flags=re.DOTALL
        )


def test_tasks_of_the_harness_are_run_without_a_network(finished, tmp_path):
    """From the data of the tasks to the page, where opening a connection is an error."""
    experiment = copy_of(finished, tmp_path)
    experiment.python_path = [*finished.python_path, tmp_path]
    tasks = write_tasks(experiment.folder / "my tasks")
    experiment.config["evaluation"]["capability"] = {"tasks": ["both", "cats-two=2"], "include_path": "my tasks"}
    (tasks / "cats-two.yaml").write_text((tasks / "cats.yaml").read_text().replace("task: cats", "task: cats-two"))
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\n"
        "real = socket.socket.connect\n"
        "def connect(self, address):\n"
        "    assert self.family == socket.AF_UNIX, f'a connection to {address}'\n"
        "    return real(self, address)\n"
        "socket.socket.connect = connect\n"
    )
    work = {"fetch_tasks": 1, "capability": 4, "evaluate": 4, "summary": 1, "report": 1, "export": 1, "all": 1}
    result = experiment.snakemake()
    assert result.returncode == 0, result.stderr[-6000:]
    assert planned(result.stdout + result.stderr) == work | {"settings": 1}
    with open(experiment.run_folder / "summary.csv", newline="") as file:
        before, after, *_ = csv.DictReader(file)
    column = "both.acc [both acc, 0-shot]"
    assert float(after[f"{column} change"]) == pytest.approx(float(after[column]) - float(before[column]))
    assert float(after[f"{column} change low"]) <= float(after[f"{column} change"])
    assert "cats-two.acc_norm [cats-two acc_norm, 2-shot]" in after
    page = (experiment.run_folder / "report.html").read_text()
    assert "What can it still do?" in page
    assert "both, 0-shot: 48 documents" in page

    assert "Nothing to be done" in experiment.snakemake("--dry-run").stdout
    with open(tasks / "rain.jsonl", "a") as file:
        file.write('{"question": "rain", "options": [" a", " b"], "answer": 0}\n')
    assert planned(experiment.snakemake("--dry-run").stdout) == work


def test_a_missing_harness_stops_the_dry_run(make_experiment, tmp_path):
    experiment = make_experiment()
    experiment.config["evaluation"]["capability"] = {"tasks": ["hellaswag"]}
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['lm_eval'] = None\n")
    experiment.python_path.append(tmp_path)
    result = experiment.snakemake("--dry-run")
    assert result.returncode != 0
    assert "pip install 'excise[harness]'" in result.stderr + result.stdout


def test_another_workflow_can_import_this_one(make_experiment):
    experiment = make_experiment()
    experiment.command()  # writes experiment.yaml
    (experiment.folder / "workflow").mkdir()
    (experiment.folder / "workflow/Snakefile").write_text(
        'configfile: "experiment.yaml"\n\n\n'
        f"module excise:\n    snakefile:\n        {str(REPOSITORY / 'Snakefile')!r}\n    config:\n        config\n\n\n"
        "use rule * from excise as excise_*\n"
    )
    result = subprocess.run(
        [Path(sys.executable).parent / "snakemake", "--cores", "1", "--dry-run"],
        cwd=experiment.folder, env=experiment.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert planned(result.stdout) == {f"excise_{rule}": count for rule, count in PLANNED.items()}


def test_several_models_share_their_inputs(make_experiment):
    experiment = make_experiment()
    experiment.config["models"]["second"] = experiment.config["models"]["tiny"]
    jobs = planned(experiment.snakemake("--dry-run").stdout)
    once = {"all", "settings", "fetch_text", "fetch_prompts", "split_prompts"}
    assert jobs == {rule: count if rule in once else 2 * count for rule, count in PLANNED.items()}


def test_what_is_generated_in_shards_is_scored_in_shards(make_experiment):
    """Each scoring job asks for its part of the time."""
    experiment = make_experiment()
    del experiment.config["references"]["toxic"]["span"]  # so that the generations are all that scoring reads
    generations = experiment.run_folder / "generations/seed-0/generations.jsonl"
    generations.parent.mkdir(parents=True)
    generations.write_text("{}\n" * 24000)
    sharded = {
        "generate_references": 6, "score_references": 6, "merge_reference_generations": 2, "merge_reference_scores": 2,
        "generate": 8, "score": 8, "merge_generations": 4, "merge_scores": 4,
    }  # fmt: skip
    for shards, jobs, minutes in ((1, {}, 140), (3, sharded, 60)):
        experiment.config["generations"]["shards"] = shards
        experiment.config["evaluation"]["shards"] = min(shards, 2)
        plan = experiment.snakemake("--dry-run").stdout
        assert planned(plan) == PLANNED | jobs
        asked = re.findall(r"rule score_references:(?:\n    .+)*?, seed=0.*\n    resources: .*runtime=(\d+)", plan)
        assert asked == [str(minutes)] * shards


def test_a_second_start_beside_a_running_one_is_refused(make_experiment):
    experiment = make_experiment()
    process = subprocess.Popen(
        experiment.command(), cwd=experiment.folder, env=experiment.environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        time.sleep(1)
        result = experiment.snakemake("--dry-run", program="start")
        assert result.returncode != 0
        assert "another Snakemake is running in this folder" in result.stderr
    finally:
        process.terminate()
        process.wait()


def test_torch_is_not_needed_to_plan(make_experiment, tmp_path):
    """A dry run succeeds where importing torch is an error."""
    experiment = make_experiment()
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')")
    experiment.python_path.insert(0, tmp_path)
    result = subprocess.run(
        experiment.command("--dry-run"), cwd=experiment.folder, env=experiment.environment(), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert torch.__name__ == "torch"
