"""Tasks of lm-evaluation-harness on the model in memory: the real harness, tiny models, data of our own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from excise.comparison import compare
from excise.models.loading import identity, load_model, load_tokenizer
from excise.tasks.files import read_measurements
from excise.tasks.measurement import check_comparable, find
from tests.conftest import WORDS

Run = Callable[..., str]

QUESTIONS = 24


def write_tasks(folder: Path) -> Path:
    """Two multiple-choice tasks in a group, one that measures perplexity, one that generates."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in ("cats", "rain"):
        rows = [
            {
                "question": " ".join(generator.choice(WORDS, 4)),
                "options": [" " + " ".join(generator.choice(WORDS, int(n))) for n in generator.integers(1, 4, 3)],
                "answer": int(generator.integers(3)),
            }
            for _ in range(QUESTIONS)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_yaml(
            folder / f"{name}.yaml",
            task=name,
            output_type="multiple_choice",
            test_split="train",
            fewshot_split="train",
            dataset_path="json",
            dataset_kwargs={"data_files": str(folder / f"{name}.jsonl")},
            doc_to_text="{{question}}",
            doc_to_choice="{{options}}",
            doc_to_target="answer",
            target_delimiter="",
            metric_list=[
                {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")
            ],
            metadata={"version": 3.0},
        )
    weighted = {"metric": "acc", "aggregation": "mean", "weight_by_size": True}
    write_yaml(folder / "both.yaml", group="both", task=["cats", "rain"], aggregate_metric_list=[weighted])
    base = yaml.safe_load((folder / "cats.yaml").read_text())
    for key in ("doc_to_choice", "metric_list", "fewshot_split"):
        del base[key]
    write_yaml(
        folder / "text.yaml",
        **base
        | {
            "task": "text",
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{question}}",
            "num_fewshot": 0,
            "metric_list": [{"metric": "word_perplexity"}],
        },
    )
    write_yaml(
        folder / "copy.yaml",
        **base
        | {
            "task": "copy",
            "output_type": "generate_until",
            "doc_to_target": "{{options[0]}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 5},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        },
    )
    return folder


def write_yaml(path: Path, **content: Any) -> None:
    path.write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of task files; do not write into it."""
    return write_tasks(tmp_path_factory.mktemp("capability") / "my tasks")


@pytest.fixture
def neurons(tmp_path: Path, tiny_model: Path) -> Path:
    path = tmp_path / "units.json"
    body = {
        "meta": {"model": identity(tiny_model, "float32"), "excise": "0", "settings": {}},
        **{
            "name": "some",
            "method": "random",
            "control": True,
            "scale": 0.0,
            "unit": "neuron",
            "ablation": "zero",
            "layers": 2,
            "units_per_layer": 24,
            "stability": None,
        },
        "rows": [{"layer": n % 2, "neuron": n} for n in range(16)],
    }
    path.write_text(json.dumps(body))
    return path


@pytest.fixture
def measured(excise: Run, tiny_model: Path, tasks: Path, tmp_path: Path) -> Callable[..., Any]:
    """Run ``excise capability`` on tasks of that folder; returns what it wrote."""

    def run(*names: str, output: str = "capability.json", **options: object) -> Any:
        given = {"model": tiny_model, "device": "cpu", "include-path": tasks, "output": tmp_path / output, **options}
        words = [word for key, value in given.items() for word in (f"--{key}", value)]
        excise("capability", "--tasks", *names, *words)
        return json.loads((tmp_path / output).read_text())

    return run


def naive_choice(model: Any, tokenizer: Any, question: str, options: list[str]) -> list[float]:
    """Log-likelihood of each option after the question, token by token in float64."""
    sums = []
    for option in options:
        context = tokenizer(question)["input_ids"]
        ids = tokenizer(question + option)["input_ids"]
        total = 0.0
        for position in range(len(context), len(ids)):
            with torch.no_grad():
                logits = model(torch.tensor([ids[:position]])).logits[0, -1].double()
            total += float(logits[ids[position]] - logits.logsumexp(0))
        sums.append(total)
    return sums


def test_accuracy_is_what_a_loop_over_the_tokens_gives(measured: Any, tiny_model: Path, tasks: Path) -> None:
    model = load_model(tiny_model, dtype="float32", device="cpu")
    tokenizer = load_tokenizer(tiny_model)
    rows = [json.loads(line) for line in (tasks / "cats.jsonl").read_text().splitlines()]
    expected: dict[str, list[float]] = {"acc": [], "acc_norm": []}
    for row in rows:
        sums = naive_choice(model, tokenizer, row["question"], row["options"])
        expected["acc"].append(float(np.argmax(sums) == row["answer"]))
        by_length = [total / len(option) for total, option in zip(sums, row["options"], strict=True)]
        expected["acc_norm"].append(float(np.argmax(by_length) == row["answer"]))
    found = measured("cats")
    task = found["tasks"]["cats"]
    assert (task["version"], task["num_fewshot"], task["documents"]) == (3.0, 0, QUESTIONS)
    for metric, values in expected.items():
        figure = task["metrics"][f"{metric},none"]
        assert figure["per_document"] == values
        assert figure["value"] == pytest.approx(np.mean(values))
        assert figure["stderr"] == pytest.approx(np.std(values, ddof=1) / QUESTIONS**0.5)
        assert figure["higher_is_better"]
    assert 0 < np.mean(expected["acc"]) < 1
    assert found["shown"] == ["cats"]


def test_a_pruned_model_scores_as_its_exported_folder_does_in_the_harness(
    measured: Any, excise: Run, tiny_model: Path, tasks: Path, neurons: Path, tmp_path: Path
) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    excise("apply", neurons, tiny_model, "--output", tmp_path / "export")
    names = ["both", "text", "copy"]
    manager = TaskManager(include_path=tasks, include_defaults=False)
    expected = lm_eval.simple_evaluate(
        model="hf", model_args={"pretrained": str(tmp_path / "export"), "dtype": "float32"}, tasks=names,
        num_fewshot=None, batch_size=4, device="cpu", task_manager=manager,
    )["results"]  # fmt: skip
    found = measured(*names, units=neurons)
    unpruned = measured(*names)
    assert found["shown"] == names
    assert found["meta"]["selection"]["count"] == 16
    for name, result in {**found["tasks"], **found["groups"]}.items():
        for metric, figure in result["metrics"].items():
            assert figure["value"] == pytest.approx(expected[name][metric], rel=1e-6), (name, metric)
            error = expected[name][metric.replace(",", "_stderr,")]
            assert figure["stderr"] == (None if error == "N/A" else pytest.approx(error)), (name, metric)
    assert found["tasks"]["text"]["metrics"] != unpruned["tasks"]["text"]["metrics"]
    assert {name: task["sha256"] for name, task in found["tasks"].items()} == {
        name: task["sha256"] for name, task in unpruned["tasks"].items()
    }


def test_same_command_same_bytes_and_no_path_in_them(measured: Any, tmp_path: Path) -> None:
    for name in ("first", "second"):
        measured("cats=2", output=name)
    first = (tmp_path / "first").read_bytes()
    assert first == (tmp_path / "second").read_bytes()
    assert str(tmp_path).encode() not in first
    assert b"my tasks" not in first


def test_examples_in_the_prompt_are_counted_and_change_the_questions(measured: Any) -> None:
    given = measured("cats=2", "rain", **{"num-fewshot": 1, "limit": 5})
    assert [given["tasks"][name]["num_fewshot"] for name in ("cats", "rain")] == [2, 1]
    assert given["meta"]["settings"]["limit"] == given["tasks"]["cats"]["documents"] == 5
    without = measured("cats", limit=5)
    assert given["tasks"]["cats"]["sha256"] != without["tasks"]["cats"]["sha256"]


def test_fetching_says_how_much_there_is_to_do_and_keeps_the_data(
    excise: Run, measured: Any, tasks: Path, tmp_path: Path
) -> None:
    data = tmp_path / "the data"
    options = ("--include-path", tasks, "--data", data, "--output", tmp_path / "plan.json")
    excise("fetch-tasks", "--tasks", "both", "copy", *options, "--limit", 7)
    plan = json.loads((tmp_path / "plan.json").read_text())["tasks"]
    rows = [json.loads(line) for line in (tasks / "cats.jsonl").read_text().splitlines()][:7]
    lengths = [len(row["question"]) + len(option) for row in rows for option in row["options"]]
    assert plan["cats"] == {
        "version": 3.0, "num_fewshot": 0, "documents": 7, "requests": 21, "characters": sum(lengths),
        "longest": max(lengths), "generated": 0,
    }  # fmt: skip
    assert plan["copy"]["generated"] == 7 * 5
    assert list(data.rglob("*.arrow"))
    assert measured("cats", data=data, limit=7)["tasks"]["cats"]["documents"] == 7


def test_data_of_the_hub_are_read_from_the_folder_without_a_hub(
    excise: Run, measured: Any, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task whose data set is OWNER/NAME: where it lies in the folder as ``datasets`` keeps it, no socket is opened."""
    import socket

    import datasets

    data = tmp_path / "data"
    hub = tmp_path / "name"
    hub.mkdir()
    (hub / "train.jsonl").write_bytes((tasks / "rain.jsonl").read_bytes())
    datasets.load_dataset(str(hub), cache_dir=str(tmp_path / "cache"))
    data.mkdir()
    (tmp_path / "cache/name").rename(data / "owner___name")
    own = tmp_path / "own"
    own.mkdir()
    task = yaml.safe_load((tasks / "rain.yaml").read_text()) | {"task": "far", "dataset_path": "owner/name"}
    del task["dataset_kwargs"]
    write_yaml(own / "far.yaml", **task)

    def refused(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    near = measured("rain")["tasks"]["rain"]
    far = measured("far", data=data, **{"include-path": own})["tasks"]["far"]
    assert far == near
    message = excise(
        "capability", "--tasks", "far", "--include-path", own, "--model", "x", "--data", tmp_path / "empty",
        "--output", tmp_path / "x.json", fails=True,
    )  # fmt: skip
    assert "task 'far' cannot be used" in message
    assert "excise fetch-tasks where there is a network" in message


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["cat"], (), "knows no task 'cat'. Did you mean 'cats'"),
        (["both", "cats"], (), "task 'cats' is asked for twice"),
        (["cats=many"], (), "does not match"),
        (["cats="], (), "does not match"),
        (["text=3"], (), "'text' is a zero-shot task by its own file"),
        (["cats"], ("--limit", 0), "argument --limit: '0' is less than the minimum of 1"),
        (["cats"], ("--num-fewshot", -1), "argument --num-fewshot: '-1' is less than the minimum of 0"),
        (["cats"], ("--include-path", "nowhere"), "nowhere: no such folder"),
    ],
)
def test_wrong_tasks_are_refused_before_anything_is_run(
    excise: Run, tasks: Path, tmp_path: Path, names: list[str], options: tuple[object, ...], message: str
) -> None:
    given = ("--include-path", tasks, *options, "--output", tmp_path / "plan.json")
    assert message in excise("fetch-tasks", "--tasks", *names, *given, fails=True)
    assert not (tmp_path / "plan.json").exists()


def test_a_task_file_that_does_not_fit_its_data_is_named(excise: Run, tasks: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    task = yaml.safe_load((tasks / "cats.yaml").read_text()) | {"task": "odd", "doc_to_target": "{{nothing.here}}"}
    write_yaml(own / "odd.yaml", **task)
    given = ("--include-path", own, "--output", tmp_path / "plan.json")
    message = excise("fetch-tasks", "--tasks", "odd", *given, fails=True)
    assert "task 'odd' cannot be used" in message
    assert "nothing" in message


def test_without_the_harness_the_message_says_what_to_install(
    excise: Run, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    given = ("--tasks", "cats", "--include-path", tasks, "--output", tmp_path / "x.json")
    assert "pip install 'excise[harness]'" in excise("capability", "--model", "x", *given, fails=True)


def test_variants_are_compared_document_by_document(measured: Any, neurons: Path, tmp_path: Path, excise: Run) -> None:
    names = ("both", "text")
    found = measured(*names, output="base.json"), measured(*names, output="pruned.json", units=neurons)
    for name, *units in (("base",), ("pruned", "--units", neurons)):
        files = ("--capability", tmp_path / f"{name}.json", "--output", tmp_path / f"{name}-measured.json")
        excise("evaluate", "--variant", name, *units, *files)
    base, pruned = (read_measurements(tmp_path / f"{name}-measured.json") for name in ("base", "pruned"))
    check_comparable(base, pruned)
    assert [one.name for one in base.measurements] == names_of(found[0]["shown"])
    assert base.about.kind == "baseline"
    assert (pruned.about.kind, pruned.about.size) == ("control", 16)

    def values(one: Any) -> np.ndarray:
        return np.concatenate([one["tasks"][n]["metrics"]["acc,none"]["per_document"] for n in ("cats", "rain")])

    before, after = (find(one, "both.acc") for one in (base, pruned))
    assert before[0].items == [f"{task}/{n}" for task in ("cats", "rain") for n in range(QUESTIONS)]
    assert before[1].values is not None
    assert before[1].values.tolist() == values(found[0]).tolist()
    assert before[1].direction == "higher"
    assert before[0].details["stderr"]["acc"] == found[0]["groups"]["both"]["metrics"]["acc,none"]["stderr"]
    change = compare(before[1], after[1], seed=0)
    assert change.difference == pytest.approx((values(found[1]) - values(found[0])).mean())
    other = [find(one, "text.word_perplexity")[1] for one in (base, pruned)]
    assert other[0].values is None  # no mean over documents
    assert other[0].direction == "lower"
    assert [one.figure for one in other] == [
        one["tasks"]["text"]["metrics"]["word_perplexity,none"]["value"] for one in found
    ]
    asked = find(base, "text.word_perplexity")[0].settings["asked"]["text"]
    assert asked["sha256"] == found[0]["tasks"]["text"]["sha256"]


def names_of(shown: Any) -> list[str]:
    return [str(name) for name in shown]
