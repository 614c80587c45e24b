"""What the documentation says is so: its commands, settings, examples and messages are tried."""

import ast
import copy
import functools
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from excise.attribution.registry import MEASURED
from excise.checks import validated
from excise.cli import STAGES, parser
from excise.errors import ExciseError
from excise.evaluation.scorers import FAMILIES
from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = {str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
DEMO = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
BLOCK = re.compile(r"^ *```([\w+]+)(?: title=\"([^\"]+)\")?\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
NOTHING = ("", None, "")


def blocks(page):
    """(language, title, text) of the code blocks of a page, but for those that only pull in a file."""
    found = [(m[1], m[2], m[3]) for m in BLOCK.finditer(PAGES[page])]
    return [block for block in found if "--8<--" not in block[2]]


def example(page, title):
    """The text of the one block that has this title."""
    (text,) = [text for _, name, text in blocks(page) if name == title]
    return text


def commands():
    """Every ``excise`` command line of the documentation, as words."""
    for page in PAGES:
        for language, _, text in blocks(page):
            if language in ("sh", "console"):
                for line in text.replace("\\\n", " ").splitlines():
                    words = shlex.split(line.removeprefix("$ "), comments=True)
                    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                        del words[0]
                    if words[:1] == ["excise"]:
                        yield pytest.param(words[1:], id=f"{page}: {' '.join(words[1:3])}")


def merged(config, changes):
    """What Snakemake makes of two configuration files: the second wins, key by key."""
    result = copy.deepcopy(config)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def replaced(page, text):
    """The sections of the demo's configuration that the words before a block tell to replace by it."""
    words = PAGES[page].partition(text)[0].rpartition("```")[0].rpartition("```")[2]
    return [name for told in re.findall(r"Replace its (.+?) by these", words) for name in re.findall(r"`(\w+)`", told)]


def edited(page, text):
    """The demo's configuration, edited as a page says."""
    kept = {key: value for key, value in DEMO.items() if key not in replaced(page, text)}
    return merged(kept, yaml.safe_load(text))


def settings():
    """(the demo's configuration with a block's settings, the error it shall give or None)."""
    for page in PAGES:
        for (language, _, text), after in pairwise([*blocks(page), NOTHING]):
            if language == "yaml":
                fails = page.endswith("troubleshooting.md") and after[0] == "text"
                error = after[2].strip() if fails else None
                yield pytest.param(edited(page, text), error, id=f"{page}: {text[:30]}")


def copies():
    """The demo's configuration, edited where a page tells to copy the file."""
    for page in PAGES:
        for language, _, text in blocks(page):
            if language == "yaml" and replaced(page, text):
                yield pytest.param(edited(page, text), id=page)


def test_there_is_something_to_try():
    assert len(list(commands())) > 8
    assert len(list(settings())) > 15
    assert {given.id for given in copies()} == {"docs/how-to/behaviour.md", "docs/how-to/budget.md"}


@pytest.mark.parametrize("words", [*commands()])
def test_commands_are_well_formed(words):
    arguments = parser().parse_args(words)
    assert arguments.stage in STAGES


def same(message, quoted):
    """Whether a message is as the page has it; a page may leave out its end."""
    return message == quoted or (quoted.endswith(" ...") and message.startswith(quoted.removesuffix("...")))


@pytest.mark.parametrize(("config", "error"), [*settings()])
def test_settings_are_accepted_or_refused_as_the_page_says(config, error):
    if error is None:
        validated(config)
    else:
        with pytest.raises(ExciseError) as caught:
            validated(config)
        assert same(str(caught.value), error)


def plan(folder, *words):
    """What Snakemake, started in a folder, would run."""
    command = [Path(sys.executable).parent / "snakemake", "--profile", REPOSITORY / "profiles/local", "--dry-run"]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    result = subprocess.run(
        [*command, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "planned"),
    [
        ("docs/tutorial.md", "results/more-neurons/SmolLM2-135M-Instruct/units/lrp-3000.json"),
        ("docs/how-to/behaviour.md", "--source experiments/questions.csv --split train --field question"),
    ],
)
def test_settings_beside_the_demos_make_a_plan(page, planned, tmp_path):
    (tmp_path / "mine.yaml").write_text(example(page, "experiments/mine.yaml"))
    files = [REPOSITORY / "config.yaml", "mine.yaml"]
    assert planned in plan(tmp_path, "--snakefile", REPOSITORY / "Snakefile", "--configfile", *files)


@pytest.mark.slow
@pytest.mark.parametrize("config", [*copies()])
def test_an_edited_copy_of_the_demos_settings_makes_a_plan(config, tmp_path):
    assert config["experiment"] != DEMO["experiment"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "shouting.py").write_text(example("docs/how-to/scorer.md", "shouting.py"))
    planned = plan(tmp_path, "--snakefile", REPOSITORY / "Snakefile", "--configfile", "mine.yaml")
    assert f"results/{config['experiment']}/SmolLM2-135M-Instruct/export/{config['export']}" in planned
    assert "wanda" not in planned  # a selection of the demo's


@pytest.mark.slow
def test_another_workflow_goes_on_from_the_results(tmp_path):
    (tmp_path / "workflow").mkdir()
    text = example("docs/how-to/workflow.md", "workflow/Snakefile")
    (tmp_path / "workflow/Snakefile").write_text(text.replace("/path/to/excise", str(REPOSITORY)))
    shutil.copy(REPOSITORY / "config.yaml", tmp_path / "experiment.yaml")
    table = plan(tmp_path).rpartition("Job stats:")[2]
    assert re.search(r"^mine +1$", table, re.MULTILINE)
    assert re.search(r"^excise_summary +1$", table, re.MULTILINE)


# --- messages -------------------------------------------------------------------------------------------------------

QUOTES = [
    text.strip()
    for before, (language, _, text) in pairwise([NOTHING, *blocks("docs/troubleshooting.md")])
    if language == "text" and before[0] != "yaml"
]
CONSOLE = [text for language, _, text in blocks("docs/troubleshooting.md") if language == "console"]


@functools.cache
def literals():
    """Every string in the code, with a gap where a value is filled in."""
    found = []
    for path in [*REPOSITORY.glob("src/excise/**/*.py"), *REPOSITORY.glob("workflow/scripts/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pytest.mark.parametrize("quote", QUOTES)
def test_quoted_messages_are_in_the_code(quote):
    words = quote.strip(". ")
    assert len(words) > 25
    assert any(words in text for text in literals())


def unit_list(model):
    sizes = {"layers": 2, "units_per_layer": 24}
    facts = {
        "meta": {"model": model},
        "name": "mine",
        "method": "random",
        "scale": 0,
        "unit": "neuron",
        "ablation": "zero",
        **sizes,
    }
    return facts | {"rows": [{"layer": 1, "neuron": 3}]}


@pytest.fixture
def workplace(tiny_model, tmp_path, monkeypatch):
    """A folder with what the commands of the page name."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, "tiny")
    shutil.copytree(tiny_model, "bloom")
    config = json.loads(Path("bloom/config.json").read_text()) | {"model_type": "bloom"}
    Path("bloom/config.json").write_text(json.dumps(config))
    Path("pickled").mkdir()
    shutil.copy("tiny/config.json", "pickled")
    Path("pickled/pytorch_model.bin").touch()
    Path("generations.jsonl").write_text(json.dumps({"id": "a", "draw": 0, "completion": "Some TEXT"}) + "\n")
    model = {"id": "my-llama", "fingerprint": "abc123"}
    Path("units.json").write_text(json.dumps(unit_list(model)))
    return tmp_path


@pytest.mark.parametrize("session", CONSOLE, ids=lambda text: text.split("\n")[0][2:60])
def test_commands_fail_as_the_page_says(session, excise, workplace, monkeypatch):
    import huggingface_hub

    command, expected = session.strip().split("\n", 1)
    words = shlex.split(command.removeprefix("$ "))
    if words[0] == "HF_HUB_OFFLINE=1":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        del words[0]
    messages = excise(*words[1:], fails=True)

    def without_fingerprints(text):
        return re.sub(r"\(weights \w+\)", "(weights)", text)

    said = "error: " + messages.strip().partition(" error: ")[2]
    assert same(without_fingerprints(said), without_fingerprints(expected)), said


@pytest.mark.parametrize("name", [name for names in FAMILIES.values() for name in names])
def test_every_scorer_is_in_the_table(name):
    assert f"`{name.replace('ID_OR_FOLDER', 'ID')}`" in PAGES["docs/how-to/scorer.md"]


# --- examples -------------------------------------------------------------------------------------------------------


def test_the_scorer_scores(excise, tmp_path, monkeypatch):
    (tmp_path / "shouting.py").write_text(example("docs/how-to/scorer.md", "shouting.py"))
    monkeypatch.syspath_prepend(tmp_path)
    rows = [{"id": "a", "draw": 0, "completion": "ABcd"}, {"id": "b", "draw": 0, "completion": ""}]
    (tmp_path / "generations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = ["--generations", tmp_path / "generations.jsonl", "--output", tmp_path / "scores.jsonl"]
    excise("score", "--scorer", "python:shouting:scores", *files)
    _, *found = map(json.loads, (tmp_path / "scores.jsonl").read_text().splitlines())
    assert [row["score"] for row in found] == [0.5, 0]


def test_the_task_is_asked(excise, tiny_model, tmp_path, monkeypatch):
    """With the very commands of the page, in the folder in which Snakemake would be started."""
    monkeypatch.chdir(tmp_path)
    Path("experiments/tasks").mkdir(parents=True)
    for name in ("experiments/tasks/capitals.jsonl", "experiments/tasks/capitals.yaml"):
        Path(name).write_text(example("docs/how-to/capability.md", name))
    Path("inputs/models").mkdir(parents=True)
    Path("inputs/models/SmolLM2-135M-Instruct").symlink_to(tiny_model)
    fetch, measure, *_ = [given.values[0] for given in commands() if given.id.startswith("docs/how-to/capability.md")]
    excise(*fetch)
    excise(*measure)
    found = json.loads(Path("baseline.json").read_text())["tasks"]["capitals"]
    assert found["documents"] == len(found["metrics"]["acc,none"]["per_document"]) == 2


def test_the_new_method_is_found_and_measures(tiny_model, tmp_path):
    """Beside the other methods in a copy of the package, in a process of its own."""
    shutil.copytree(REPOSITORY / "src/excise", tmp_path / "excise")
    (tmp_path / "excise/attribution/peak.py").write_text(
        example("docs/how-to/method.md", "src/excise/attribution/peak.py")
    )
    assert "peak" not in MEASURED
    registry = tmp_path / "excise/attribution/registry.py"
    text = registry.read_text().replace("    random,\n", "    peak,\n    random,\n")
    registry.write_text(text.replace("        random.METHOD,\n", "        peak.METHOD,\n        random.METHOD,\n"))
    samples = [{"id": f"s{n}", "input_ids": [5 + n, 6, 7, 8], "target_start": 1} for n in range(3)]
    (tmp_path / "reference.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    command = [sys.executable, "-m", "excise", "attribute", "--method", "peak", "--model", str(tiny_model)]
    command += ["--device", "cpu", "--reference", "reference.jsonl", "--output", "peak.safetensors"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    from safetensors.torch import load_file

    sums = load_file(tmp_path / "peak.safetensors")
    assert sums["peak"].shape == (2, 24)
    assert (sums["peak"] > 0).all()


def test_a_neuron_list_is_applied_in_python(tiny_model, tmp_path, monkeypatch):
    from excise.models.loading import fingerprint

    monkeypatch.chdir(tmp_path)
    Path("MODEL").symlink_to(tiny_model)
    model = {"id": "tiny", "fingerprint": fingerprint(tiny_model)}
    Path("units.json").write_text(json.dumps(unit_list(model)))
    first, second = [text for language, _, text in blocks("docs/how-to/share.md") if language == "python"]
    Path("first.py").write_text(first)
    Path("second.py").write_text(second)
    names = runpy.run_path("first.py")
    column = names["model"].model.layers[1].mlp.down_proj.weight[:, 3]
    assert not column.any()
    runpy.run_path("second.py", init_globals=names)
    assert column.any()


# --- what the demo found --------------------------------------------------------------------------------------------


def test_the_readme_and_the_pages_show_the_same_table():
    table = (DOCS / "demo/table.txt").read_text(encoding="utf-8")
    (block,) = runpy.run_path(str(DOCS / "fill.py"))["BLOCK"].findall((REPOSITORY / "README.md").read_text("utf-8"))
    assert block == f"```\n{table}```\n"


def test_every_variant_of_the_demo_is_in_the_table():
    from excise.config.plan import judged

    table = (DOCS / "demo/table.txt").read_text(encoding="utf-8")
    for name in judged(validated(DEMO)):
        assert f"\n{name} " in table, f"{name}: run make docs-numbers"
