"""From prompts to the evaluation of a variant, through the command line."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from excise.models.loading import identity, load_model, load_tokenizer
from excise.tasks.files import read_measurements
from excise.tasks.measurement import About, check_comparable, find

Run = Callable[..., str]


def read(path: Path) -> tuple[Any, list[Any]]:
    meta, *rows = (json.loads(line) for line in path.read_text().splitlines())
    return meta["meta"], rows


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def prompt_rows() -> list[dict[str, Any]]:
    texts = ["the cat sat on", "rain", "people walked home under grey skies", "möbel & 'quoted'", "letters books", "a"]
    rows: list[dict[str, Any]] = [{"id": f"p{n}", "text": text} for n, text in enumerate(texts)]
    rows[0] |= {"category": "cats", "toxicity": 0.75}
    rows[1] |= {"category": "weather", "toxicity": 0.25}
    return rows


@pytest.fixture
def prompts(tmp_path: Path, prompt_rows: list[dict[str, Any]]) -> Path:
    return write(tmp_path / "my prompts.jsonl", prompt_rows)


@pytest.fixture
def options(tiny_model: Path, prompts: Path) -> tuple[object, ...]:
    settings = ("--num-generations", 3, "--max-new-tokens", 7, "--dtype", "float64", "--device", "cpu", "--seed", 4)
    return ("--model", tiny_model, "--prompts", prompts, *settings)


def selection_file(path: Path, model: Path, neurons: int) -> Path:
    body = {
        "meta": {"model": identity(model, "float32")},
        **{
            "name": "some",
            "method": "random",
            "control": True,
            "scale": 0.0,
            "unit": "neuron",
            "ablation": "zero",
            "layers": 2,
            "units_per_layer": 24,
        },
        "rows": [{"layer": n % 2, "neuron": n // 2} for n in range(neurons)],
    }
    path.write_text(json.dumps(body))
    return path


def test_generations_in_canonical_order_with_all_that_is_known(
    excise: Run, options: tuple[object, ...], tmp_path: Path, prompt_rows: list[Any], tiny_model: Path
) -> None:
    output = tmp_path / "g.jsonl"
    excise("generate", *options, "--output", output)
    meta, rows = read(output)
    assert [(row["id"], row["draw"]) for row in rows] == [(f"p{n}", draw) for n in range(6) for draw in range(3)]
    tokenizer = load_tokenizer(tiny_model)
    for row in rows:
        prompt = prompt_rows[int(row["id"][1:])]
        assert row["prompt"] == prompt["text"]
        assert row["prompt_ids"] == tokenizer(prompt["text"])["input_ids"]
        assert row["completion"] == tokenizer.decode(row["completion_ids"], skip_special_tokens=True)
        assert len(row["completion_ids"]) <= 7
        assert {key: row[key] for key in row.keys() & {"category", "toxicity"}} == {
            key: prompt[key] for key in prompt.keys() & {"category", "toxicity"}
        }
    settings = meta["settings"]
    assert (settings["num_generations"], settings["seed"], settings["temperature"], settings["top_p"]) == (
        3,
        4,
        1.0,
        0.9,
    )
    assert settings["threads"] == torch.get_num_threads()
    assert meta["selection"] is None
    first = output.read_bytes()
    excise("generate", *options, "--output", output)
    assert output.read_bytes() == first
    assert str(tmp_path).encode() not in first


def test_batch_size_and_order_change_no_text(
    excise: Run, options: tuple[object, ...], tmp_path: Path, prompts: Path, prompt_rows: list[Any]
) -> None:
    found = []
    for batch_size in (1, 4, 64):
        output = tmp_path / f"{batch_size}.jsonl"
        excise("generate", *options, "--batch-size", batch_size, "--output", output)
        found.append(read(output)[1])
    assert found[0] == found[1] == found[2]
    write(prompts, prompt_rows[::-1])
    excise("generate", *options, "--output", tmp_path / "reversed.jsonl")
    key = {(row["id"], row["draw"]): row for row in found[0]}
    backwards = read(tmp_path / "reversed.jsonl")[1]
    assert [row["id"] for row in backwards] == [f"p{n}" for n in range(5, -1, -1) for _ in range(3)]
    assert all(key[row["id"], row["draw"]] == row for row in backwards)


def test_shards_merge_to_the_bytes_of_one_run(
    excise: Run, options: tuple[object, ...], tmp_path: Path, prompts: Path
) -> None:
    excise("generate", *options, "--batch-size", 4, "--output", tmp_path / "whole.jsonl")
    shards = [tmp_path / f"shard {index}.jsonl" for index in range(3)]
    for index, path in enumerate(shards):
        excise("generate", *options, "--batch-size", 4, "--shard", f"{index}/3", "--output", path)
    merge = ("generate", "--prompts", prompts, "--output", tmp_path / "merged.jsonl", "--merge")
    excise(*merge, shards[2], shards[0], shards[1])
    assert (tmp_path / "merged.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()

    assert "of 3 shards, [1] were not given" in excise(*merge, shards[0], shards[2], fails=True)
    assert f"{shards[1]}: shard 1/3 was given already" in excise(*merge, shards[1], *shards, fails=True)
    excise("generate", *options, "--batch-size", 4, "--seed", 5, "--shard", "1/3", "--output", shards[1])
    assert f"{shards[1]}: not a shard of the same run" in excise(*merge, *shards, fails=True)


def test_defaults_are_those_of_realtoxicityprompts(
    excise: Run, tiny_model: Path, prompts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "g.jsonl"
    base = ("generate", "--model", tiny_model, "--prompts", prompts, "--device", "cpu", "--output", output)

    def settings(*more: object) -> tuple[Any, ...]:
        excise(*base, *more)
        keys = ("num_generations", "max_new_tokens", "temperature", "top_p", "greedy")
        return tuple(read(output)[0]["settings"][key] for key in keys)

    assert settings() == (25, 20, 1.0, 0.9, False)
    assert settings("--num-generations", 2, "--top-p", 1, "--temperature", 0.7) == (2, 20, 0.7, 1.0, False)
    assert settings("--greedy", "--max-new-tokens", 5) == (1, 5, 1.0, 0.9, True)


def test_generate_refuses_bad_input(
    excise: Run, options: tuple[object, ...], tmp_path: Path, prompts: Path, prompt_rows: list[Any], other_model: Path
) -> None:
    output = tmp_path / "g.jsonl"

    def refused(*more: object) -> str:
        message = excise("generate", *options, "--output", output, *more, fails=True)
        assert not output.exists()
        return message

    assert "argument --top-p: '1.5' is greater than the maximum of 1" in refused("--top-p", 1.5)
    for shard in ("3/3", "1", "-1/3", "a/b", "0/0"):
        assert f"--shard {shard}" in refused(f"--shard={shard}")
    assert "greedy gives the same text every time; num_generations 3 must be 1" in refused("--greedy")
    assert "argument --batch-size: '0' is less than the minimum of 1" in refused("--batch-size", 0)
    wrong = selection_file(tmp_path / "v.json", other_model, 3)
    assert "made for" in refused("--units", wrong)
    write(prompts, [*prompt_rows, prompt_rows[0]])
    assert "two prompts have the same id" in refused()
    write(prompts, [*prompt_rows, {"id": "long", "text": "the cat " * 200}])
    assert "prompt 'long' has" in refused()
    write(prompts, [*prompt_rows, {"id": "nothing", "text": ""}])
    assert "prompt 'nothing' has no tokens" in refused()
    write(prompts, [])
    assert "no prompts in it" in refused()
    prompts.write_text('{"id": "a", "text": "b"}\n{"id": \n')
    assert "line 2 is not valid JSON" in refused()


@pytest.fixture
def chain(excise: Run, options: tuple[object, ...], tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Run a variant from prompts to evaluation; returns its folder."""
    text = write(tmp_path / "text.jsonl", [{"text": "the cat sat on a mat and looked at rain " * 6}])

    def run(name: str, *selection: object) -> Path:
        folder = tmp_path / name
        generations = folder / "generations.jsonl"
        excise("generate", *options, *selection, "--output", generations)
        for number, scorer in enumerate(("alt-profanity-check", "python:tests.workflow.tiny_scorer:scores")):
            score = ("score", "--scorer", scorer, "--generations", generations)
            excise(*score, "--output", folder / f"scores-{number}.jsonl")
        model = ("--model", tiny_model, "--dtype", "float64", "--device", "cpu")
        excise("fluency", *model, "--generations", generations, "--output", folder / "fluency.jsonl")
        windows = ("--text", text, "--seqlen", 16, "--output", folder / "perplexity.json")
        excise("perplexity", *model, *selection, *windows)
        excise(*evaluate(folder, name, *selection))
        return folder

    return run


def evaluate(folder: Path, name: str, *units: object) -> tuple[object, ...]:
    scores = (folder / "scores-0.jsonl", folder / "scores-1.jsonl")
    files = ("--generations", folder / "generations.jsonl", "--scores", *scores)
    more = ("--perplexity", folder / "perplexity.json", "--fluency", folder / "fluency.jsonl")
    return ("evaluate", "--variant", name, *units, *files, *more, "--output", folder / "measurements.json")


def test_fluency_is_the_likelihood_under_the_unpruned_model(
    chain: Callable[..., Path], tiny_model: Path, tmp_path: Path
) -> None:
    folder = chain("pruned", "--units", selection_file(tmp_path / "v.json", tiny_model, 12))
    _, rows = read(folder / "generations.jsonl")
    meta, found = read(folder / "fluency.jsonl")
    model = load_model(tiny_model, dtype="float64", device="cpu")
    assert meta["model"]["fingerprint"] == identity(tiny_model, "float64")["fingerprint"]
    assert [(row["id"], row["draw"]) for row in found] == [(row["id"], row["draw"]) for row in rows]
    for row, value in zip(rows, found, strict=True):
        ids = row["prompt_ids"] + row["completion_ids"]
        logs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        start = len(row["prompt_ids"])
        nll = -sum(float(logs[at - 1, ids[at]]) for at in range(start, len(ids)))
        assert value["nll"] == pytest.approx(nll, rel=1e-10)
        assert value["tokens"] == len(row["completion_ids"])


def test_measurements_hold_what_is_in_the_files(chain: Callable[..., Path], tiny_model: Path, tmp_path: Path) -> None:
    folder = chain("baseline")
    found = read_measurements(folder / "measurements.json")
    assert (found.variant, found.about.kind, found.meta["selection"]) == ("baseline", "baseline", None)
    own = "python:tests.workflow.tiny_scorer:scores"
    names = ["toxicity", f"toxicity[{own}]", "fluency", "language", "text"]
    assert [one.name for one in found.measurements] == names
    for number in range(2):
        one = found.measurements[number]
        scores = [row["score"] for row in read(folder / f"scores-{number}.jsonl")[1]]
        by_prompt = [scores[at : at + 3] for at in range(0, 18, 3)]
        assert one.metrics["mean"].figure == pytest.approx(sum(scores) / 18)
        assert one.metrics["share"].figure == pytest.approx(sum(score >= 0.5 for score in scores) / 18)
        assert one.metrics["expected_maximum"].values is not None
        assert one.metrics["expected_maximum"].values.tolist() == [max(part) for part in by_prompt]
        assert one.metrics["probability"].figure == sum(max(part) >= 0.5 for part in by_prompt) / 6
        assert (one.settings["threshold"], one.settings["num_generations"], len(one.items)) == (0.5, 3, 6)
        assert one.groups["category"][1] == "weather"
        assert one.groups["toxicity"][0] == 0.75
    assert found.measurements[0].items == [f"p{n}" for n in range(6)]
    fluency = read(folder / "fluency.jsonl")[1]
    nll = sum(row["nll"] for row in fluency) / sum(row["tokens"] for row in fluency)
    assert find(found, "fluency.perplexity")[1].figure == pytest.approx(math.exp(nll))
    perplexity = json.loads((folder / "perplexity.json").read_text())
    one, metric = find(found, "text.perplexity")
    assert metric.figure == pytest.approx(perplexity["perplexity"], rel=1e-14)
    assert metric.values is not None
    assert metric.values.tolist() == perplexity["by_window"]["nll"]
    assert one.serial
    assert one.settings == {
        "protocol": perplexity["protocol"],
        "tokens": perplexity["tokens"],
        **perplexity["meta"]["settings"],
    }

    selection = selection_file(tmp_path / "v.json", tiny_model, 12)
    pruned = read_measurements(chain("pruned", "--units", selection) / "measurements.json")
    assert pruned.about == About(
        kind="control", method="random", series="some", unit="neuron", size=12, share=12 / 48, scale=0, ablation="zero"
    )
    check_comparable(found, pruned)
    for address in ("text.perplexity", "language.mean_tokens", "fluency.perplexity"):
        assert find(pruned, address)[1].figure != find(found, address)[1].figure


def test_a_text_alone_is_enough(excise: Run, chain: Callable[..., Path], tmp_path: Path) -> None:
    folder = chain("one")
    output = tmp_path / "m.json"
    excise("evaluate", "--variant", "x", "--perplexity", folder / "perplexity.json", "--output", output)
    assert [one.name for one in read_measurements(output).measurements] == ["text"]
    assert "nothing to evaluate" in excise("evaluate", "--variant", "x", "--output", output, fails=True)
    scores = ("--scores", folder / "scores-0.jsonl")
    assert "--scores needs --generations" in excise(
        "evaluate", "--variant", "x", *scores, "--output", output, fails=True
    )


def test_evaluate_refuses_files_that_do_not_belong_together(
    excise: Run, chain: Callable[..., Path], tiny_model: Path, tmp_path: Path
) -> None:
    selection = selection_file(tmp_path / "v.json", tiny_model, 12)
    one, two = chain("one"), chain("two", "--units", selection)

    def swapped(option: str, path: Path) -> str:
        command = [str(part) for part in evaluate(two, "two", "--units", selection)]
        command[command.index(option) + 1] = str(path)
        return excise(*command, fails=True)

    assert "made from other generations" in swapped("--scores", one / "scores-0.jsonl")
    assert "made from other generations" in swapped("--fluency", one / "fluency.jsonl")
    assert "the unit list of 'text' (perplexity) is not that of" in swapped("--perplexity", one / "perplexity.json")
    assert "a second file of scorer" in swapped("--scores", two / "scores-1.jsonl")
    assert "lacks score" in swapped("--scores", two / "fluency.jsonl")
    assert "not written by excise perplexity: it lacks name" in swapped("--perplexity", one / "measurements.json")
    other = selection_file(tmp_path / "w.json", tiny_model, 3)
    assert "the variant was measured with the unit list with sha256" in swapped("--units", other)
    assert "was measured with the unit list" in excise(*evaluate(two, "two"), fails=True)
    assert "was measured with no unit list" in excise(*evaluate(one, "one", "--units", selection), fails=True)
    excise(*evaluate(two, "two", "--units", selection))


def test_evaluate_refuses_prompts_with_different_numbers_of_draws(
    excise: Run, chain: Callable[..., Path], tmp_path: Path
) -> None:
    folder = chain("one")
    lines = (folder / "generations.jsonl").read_text().splitlines()
    (folder / "generations.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    assert "same number of different draws, found [2, 3]" in excise(*evaluate(folder, "one"), fails=True)


def test_fluency_of_the_first_draws_only(excise: Run, chain: Callable[..., Path], tiny_model: Path) -> None:
    folder = chain("one")
    everything = read(folder / "fluency.jsonl")[1]
    command = ("fluency", "--model", tiny_model, "--dtype", "float64", "--device", "cpu", "--num-generations")
    files = ("--generations", folder / "generations.jsonl", "--output", folder / "fluency.jsonl")
    excise(*command, 2, *files)
    found = read(folder / "fluency.jsonl")[1]
    expected = [row for row in everything if row["draw"] < 2]
    assert [(row["id"], row["draw"], row["tokens"]) for row in found] == [
        (row["id"], row["draw"], row["tokens"]) for row in expected
    ]
    assert [row["nll"] for row in found] == pytest.approx([row["nll"] for row in expected], rel=1e-10)
    excise(*evaluate(folder, "one"))
    measurement, metric = find(read_measurements(folder / "measurements.json"), "fluency.perplexity")
    assert measurement.settings["num_generations"] == 2
    nll = sum(row["nll"] for row in expected) / sum(row["tokens"] for row in expected)
    assert metric.figure == pytest.approx(math.exp(nll))
    assert "no generations (--num-generations 0)" in excise(*command, 0, *files, fails=True)


def test_fluency_refuses_another_model(excise: Run, chain: Callable[..., Path], other_model: Path) -> None:
    folder = chain("one")
    command = ("fluency", "--model", other_model, "--generations", folder / "generations.jsonl")
    assert "give the unpruned model" in excise(*command, "--output", folder / "f.jsonl", fails=True)


def test_a_killed_run_goes_on_to_the_same_bytes(
    excise: Run, options: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from excise.evaluation import generation

    whole, output = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    excise("generate", *options, "--batch-size", 4, "--output", whole)  # 18 continuations in 5 batches
    real, made = generation.generate, 0

    def killed_in_the_third(*inputs: Any) -> Any:
        nonlocal made
        made += 1
        if made == 3:
            raise KeyboardInterrupt
        return real(*inputs)

    monkeypatch.setattr(generation, "generate", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        excise("generate", *options, "--batch-size", 4, "--output", output)
    assert not output.exists()
    partial = tmp_path / ".killed.jsonl.partial"
    assert len(partial.read_text().splitlines()) == 1 + 8
    with partial.open("ab") as file:
        file.write(b'{"id": "p0", "dra')  # killed while a line was being written
    made = 10
    excise("generate", *options, "--batch-size", 4, "--output", output)
    assert made == 13  # the three batches that were missing
    assert output.read_bytes() == whole.read_bytes()
    assert not partial.exists()

    made = 0
    with pytest.raises(KeyboardInterrupt):
        excise("generate", *options, "--batch-size", 4, "--output", output)
    made = 10
    excise("generate", *options, "--seed", 9, "--batch-size", 4, "--output", output)
    assert made == 15  # nothing of another run is used
    assert read(output)[0]["settings"]["seed"] == 9


def test_a_model_patched_for_lrp_is_not_judged(tiny_model: Path) -> None:
    from excise.attribution.lxt_patch import patched
    from excise.config.generations import SeededSampling
    from excise.errors import ExciseError
    from excise.evaluation.generation import generate
    from excise.evaluation.likelihood import check_head

    model = load_model(tiny_model, device="cpu")
    judge = (model, [("a", [5, 6, 7])], [(0, 0)], SeededSampling(num_generations=1, max_new_tokens=2))
    before = generate(*judge)
    with patched(model, "attnlrp"):
        with pytest.raises(ExciseError, match="patched for LRP"):
            generate(*judge)
        with pytest.raises(ExciseError, match="patched for LRP"):
            check_head(model)
    assert generate(*judge) == before
