"""The whole chain through the real Snakemake."""

import copy
import csv
import dataclasses
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from excise import warm
from excise.reporting.summary import read_summary
from excise.reporting.verdict import leading
from tests.conftest import REPOSITORY, clone_into
from tests.unit.test_capability import write_tasks
from tests.workflow.conftest import AWKWARD, PLANNED, copy_of, planned

pytestmark = pytest.mark.slow


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
        place = words.index("--output") + 1
        outputs = [*itertools.takewhile(lambda word: not word.startswith("--"), words[place:])]
        words[place : place + len(outputs)] = [str(tmp_path / f"{stage}-{n}") for n in range(len(outputs))]
        words[words.index("--log") + 1] = str(tmp_path / "log")
        words[0] = str(Path(sys.executable).parent / "excise")
        subprocess.run(words, cwd=finished.folder, env=finished.environment(), check=True, capture_output=True)
        for number, output in enumerate(outputs):
            assert (tmp_path / f"{stage}-{number}").read_bytes() == (finished.folder / output).read_bytes(), command


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(finished, make_experiment):
    experiment = make_experiment()
    if version("torch").endswith("+cpu"):  # as in the demo; it means the same there
        experiment.config["device"] = "auto"
    wanted = experiment.run_folder.relative_to(experiment.folder) / "variants/lrp-2/measurements.json"
    for moment in ("statistics/neuron/lrp", "units"):  # the first file of each, so that most jobs still wait
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
        if moment != "units":  # at which the second run may have started no model yet
            commands = [set(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
            assert any({warm.__file__, str(process.pid)} <= command for command in commands), "jobs start warm"
        victims = [process, *psutil.Process(process.pid).children(recursive=True)]
        for victim in victims:
            os.kill(victim.pid, signal.SIGKILL)
        process.wait()
    result = experiment.snakemake(str(wanted), program="start")
    assert result.returncode == 0, result.stderr[-4000:]
    assert "removing the lock" in result.stderr
    found = experiment.artefacts()
    assert str(wanted.relative_to("results")) in found
    same = finished.artefacts()
    assert not [name for name in found if found[name] != same.get(name) and not name.endswith("/settings.json")]
    assert not list(experiment.folder.rglob("*.tmp"))


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
def test_editing_a_local_input_reruns_what_reads_it(finished, file, rule):
    model = Path(finished.config["models"]["tiny"]["source"])
    path = model / "config.json" if file == "model" else finished.folder / file
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
        ({"count": [2, 4, 6], "objective": "last-max"}, {"attribute": 3}),
        ({"count": [2, 4, 6], "temperature": 0.7}, {"generate_references": 2, "attribute": 3, "generate": 3}),
        ({"count": [2, 4, 6], "seqlen": 32}, {"perplexity": 5}),
        ({"at_least": 0.55, "objective": "last-max"}, {"attribute": 3}),
        ({"dtype": "bfloat16"}, {"generate_references": 2, "attribute": 3, "perplexity": 4}),
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


def test_control_and_export_follow_the_winner(finished, tmp_path):
    experiment = copy_of(finished, tmp_path)
    experiment.config["variants"]["random"] = {"method": "random", "matched_to": "winner"}
    experiment.config["export"] = "winner"
    result = experiment.snakemake()
    assert result.returncode == 0, result.stderr[-6000:]
    jobs = planned(result.stdout + result.stderr)
    assert {rule: jobs[rule] for rule in ("compare_candidates", "winner", "select_matched", "generate", "export")} == {
        "compare_candidates": 1, "winner": 1, "select_matched": 1, "generate": 1, "export": 1,
    }  # fmt: skip
    units = experiment.run_folder / "units"
    name = leading(read_summary(experiment.run_folder / "candidates.json")).variant
    assert (units / "winner.json").read_bytes() == (units / f"{name}.json").read_bytes()
    winner, drawn = (json.loads((units / f"{one}.json").read_text()) for one in ("winner", "random"))
    assert sorted(row["layer"] for row in winner["rows"]) == sorted(row["layer"] for row in drawn["rows"])
    assert f"| {name} |" in (experiment.run_folder / "export/winner/README.md").read_text()


def test_a_further_scorer_is_fetched_and_generates_nothing_anew(finished, tmp_path):
    experiment = copy_of(finished, tmp_path)
    experiment.config["evaluation"]["scorers"].append("detoxify-original")
    jobs = planned(experiment.snakemake("--dry-run").stdout)
    assert jobs == {
        "fetch_scorer": 1, "score": 4, "evaluate": 4,
        "summary": 1, "report": 1, "export": 1, "settings": 1, "all": 1,
    }  # fmt: skip


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


def test_a_new_method_is_one_file_and_one_line_and_nothing_is_generated_or_attributed_anew(finished, tmp_path):
    """The method of docs/how-to/method.md, in a copy of the library."""
    experiment = copy_of(finished, tmp_path)
    library = tmp_path / "src"
    shutil.copytree(REPOSITORY / "src/excise", library / "excise", ignore=shutil.ignore_patterns("__pycache__"))
    page = (REPOSITORY / "docs/how-to/method.md").read_text()
    code = re.search(r'```python title="src/excise/attribution/peak.py"\n(.*?)```', page, re.DOTALL)
    (library / "excise/attribution/peak.py").write_text(code[1])
    registry = library / "excise/attribution/registry.py"
    text = registry.read_text().replace("    random,\n", "    peak,\n    random,\n")
    registry.write_text(text.replace("        random.METHOD,\n", "        peak.METHOD,\n        random.METHOD,\n"))
    experiment.python_path = [library, *finished.python_path]
    experiment.config["variants"]["peak"] = {"method": "peak", "retain": "words", "count": [3]}
    assert planned(experiment.snakemake("--dry-run").stdout) == {
        "all": 1, "attribute": 3, "average": 2, "contrast": 1, "evaluate": 1, "fluency": 1, "generate": 1, "logit_lens": 1,
        "merge": 2, "perplexity": 1, "report": 1, "score": 1, "select": 1, "settings": 1, "summary": 1,
    }  # fmt: skip
    result = experiment.snakemake(f"results/{AWKWARD}/tiny/units/peak-3.json")
    assert result.returncode == 0, result.stderr[-3000:]
    chosen = json.loads((experiment.run_folder / "units/peak-3.json").read_text())
    assert (chosen["method"], len(chosen["rows"])) == ("peak", 3)


def test_a_list_is_found_again_from_the_references_of_other_seeds(finished, tmp_path):
    experiment = copy_of(finished, tmp_path)
    experiment.config["seeds"] = [0]  # its references, and those of seed 1, are there
    experiment.config["variants"]["lrp"] |= {"count": [2], "findings": 2}
    jobs = planned(experiment.snakemake("--dry-run").stdout)
    assert not jobs.keys() & {"generate_references", "score_references", "reference_generations", "reference_windows"}
    assert (jobs["average"], jobs["contrast"], jobs["select"]) == (4, 2, 2)
    folder = experiment.run_folder.relative_to(experiment.folder)
    lists = [folder / f"units/{name}.json" for name in ("lrp-2", "lrp-finding2-2")]
    result = experiment.snakemake(*map(str, lists))
    assert result.returncode == 0, result.stderr[-4000:]
    for seed, path in enumerate(lists):
        found = json.loads((experiment.folder / path).read_text())["meta"]["references"]
        assert [found[side]["seeds"] for side in ("target", "retain")] == [[seed], [seed]]
    plan = experiment.snakemake("--dry-run").stdout
    assert "--variant lrp-finding2-2 --finding 2 " in plan


def test_a_new_task_is_one_file_and_one_line_and_nothing_is_generated_anew(finished, tmp_path):
    """The task of docs/how-to/task.md, in a copy of the library."""
    experiment = copy_of(finished, tmp_path)
    library = tmp_path / "src"
    shutil.copytree(REPOSITORY / "src/excise", library / "excise", ignore=shutil.ignore_patterns("__pycache__"))
    page = (REPOSITORY / "docs/how-to/task.md").read_text()
    code = re.search(r'```python title="src/excise/tasks/questions.py"\n(.*?)```', page, re.DOTALL)
    (library / "excise/tasks/questions.py").write_text(code[1])
    registry = library / "excise/tasks/registry.py"
    registry.write_text(
        registry.read_text()
        .replace(" perplexity\n", " perplexity, questions\n")
        .replace(" cost)\n", " cost, questions)\n")
    )
    experiment.python_path = [library, *finished.python_path]
    experiment.config["goal"] = {"lower": "questions.share"}
    again = {"all": 1, "evaluate": 4, "export": 1, "summary": 1, "report": 1, "settings": 1}
    assert planned(experiment.snakemake("--dry-run").stdout) == again
    result = experiment.snakemake()
    assert result.returncode == 0, result.stderr[-3000:]
    summary = read_summary(experiment.run_folder / "summary.json")
    assert summary.goal.metric == "questions.share"
    assert all(0 <= row.cells["questions.share"].figure <= 1 for row in summary.variants)
    assert summary.rows["lrp-2"].cells["questions.share"].change is not None
    assert "share that asks" in (experiment.run_folder / "report.html").read_text()
