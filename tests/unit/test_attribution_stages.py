"""attribute, merge, average, contrast, control: through the command line's own arguments, on a real tiny model."""

import argparse
import importlib
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from excise.artefacts import read_jsonl, read_tensors, write_jsonl
from excise.attribution.registry import CONTROLS, MEASURED, RANKING
from excise.errors import ExciseError


def stage(name: str, *arguments: object) -> None:
    module = importlib.import_module(f"excise.stages.{name}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    module.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """Two corpora under two seeds each; samples of unequal length."""
    folder = tmp_path_factory.mktemp("references")
    found = {}
    for corpus, count in (("general", 7), ("toxic", 5)):
        for seed in (0, 1):
            generator = torch.Generator().manual_seed(100 * seed + count)
            rows = []
            for number in range(count):
                length = 6 + int(torch.randint(6, (), generator=generator))
                ids = torch.randint(2, 260, (length,), generator=generator).tolist()
                rows.append({"id": f"{number}", "input_ids": ids, "target_start": 1 + number % 4})
            found[corpus, seed] = folder / f"{corpus}-{seed}.jsonl"
            write_jsonl(found[corpus, seed], {"stage": "reference"}, rows)
    return found


def attribute(model: Path, reference: Path, output: Path, *more: object, method: str = "lrp", seed: int = 0) -> Path:
    corpus = reference.stem.split("-")[0]
    options = ["--corpus", corpus, "--batch-size", 2, "--device", "cpu", "--threads", 1]
    options += ["--seed", seed, *more, "--output", output]
    stage("attribute", "--method", method, "--model", model, "--reference", reference, *options)
    return output


def scores(model: Path, references: Any, corpus: str, folder: Path, method: str) -> Path:
    files = [
        attribute(model, references[corpus, seed], folder / f"{corpus}{seed}", method=method, seed=seed)
        for seed in (1, 0)
    ]
    stage("average", "--statistics", *files, "--model", model, "--output", folder / corpus)
    return folder / corpus


@pytest.mark.parametrize("method", MEASURED)
def test_shards_merge_to_the_bytes_of_the_whole(method: str, tiny_model: Path, references: Any, tmp_path: Path) -> None:
    reference = references["general", 0]
    whole = attribute(tiny_model, reference, tmp_path / "whole", method=method)
    for count in (1, 2, 3, 6):
        shards = [
            attribute(
                tiny_model, reference, tmp_path / f"{index}-{count}", "--shard", f"{index}/{count}", method=method
            )
            for index in range(count)
        ]
        stage("merge", *reversed(shards), "--output", tmp_path / "merged")
        assert (tmp_path / "merged").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("method", MEASURED)
def test_the_chain_from_statistics_to_contrast(method: str, tiny_model: Path, references: Any, tmp_path: Path) -> None:
    paths = {corpus: scores(tiny_model, references, corpus, tmp_path, method) for corpus in ("general", "toxic")}
    if method not in RANKING:
        with pytest.raises(ExciseError, match="mean-activation measures means to ablate to; it does not rank units"):
            stage("contrast", "--retain", paths["general"], "--target", paths["toxic"], "--output", tmp_path / "d")
        return
    stage("contrast", "--retain", paths["general"], "--target", paths["toxic"], "--output", tmp_path / "d")
    meta, tensors = read_tensors(tmp_path / "d")
    general_meta, general = read_tensors(paths["general"])
    _, toxic = read_tensors(paths["toxic"])
    assert meta["method"] == method
    assert meta["retain"]["samples"] == 14
    assert meta["target"]["seeds"] == [0, 1]
    assert general_meta["corpus"] == {"id": "general", "seeds": [0, 1]}
    assert tensors["difference"].shape == (2, 24)
    assert tensors["difference"].dtype == torch.float64
    assert torch.equal(tensors["difference"], tensors["retain"] - tensors["target"])
    if method == "aura":
        assert torch.equal(tensors["retain"], torch.full((2, 24), 0.5, dtype=torch.float64))
        assert tensors["target"].min() >= 0
        assert tensors["target"].max() <= 1
        assert "retain_by_seed" not in tensors
        return
    if method == "trust-region":  # its score is signed, and the retained text says what it costs
        assert not tensors["retain"].any()
        assert torch.equal(tensors["target"].sign(), toxic["score"].sign())
        assert len(general["drawn_rows"]) == 14
        return
    assert torch.equal(tensors["retain"], general["score"])
    assert torch.equal(tensors["target_by_seed"], toxic["by_seed"])
    if method == "wanda":
        assert "standard_error" not in tensors
    else:
        errors = zip(general["standard_error"].flatten(), toxic["standard_error"].flatten(), strict=True)
        expected = [math.sqrt(float(a) ** 2 + float(b) ** 2) for a, b in errors]
        assert tensors["standard_error"].flatten().tolist() == expected


def test_the_score_is_the_mean_of_the_per_sample_values(tiny_model: Path, references: Any, tmp_path: Path) -> None:
    files = [
        attribute(tiny_model, references["toxic", seed], tmp_path / f"{seed}", "--per-sample", seed=seed)
        for seed in (0, 1)
    ]
    meta, tensors = read_tensors(files[0])
    assert sorted(meta["sample_ids"]) == ["0", "1", "2", "3", "4"]
    assert tensors["relevance_rows"].shape == (5, 2, 24)
    torch.testing.assert_close(tensors["relevance"], tensors["relevance_rows"].sum(0))
    rows = torch.cat([read_tensors(file)[1]["relevance_rows"] for file in files])
    stage("average", "--statistics", *files, "--model", tiny_model, "--output", tmp_path / "scores")
    _, found = read_tensors(tmp_path / "scores")
    torch.testing.assert_close(found["score"], rows.mean(0))
    torch.testing.assert_close(found["standard_error"], rows.std(0) / 10**0.5)


def test_the_order_of_seeds_does_not_matter(tiny_model: Path, references: Any, tmp_path: Path) -> None:
    files = [attribute(tiny_model, references["toxic", s], tmp_path / f"{s}", seed=s) for s in (0, 1)]
    for name, order in (("ab", files), ("ba", files[::-1])):
        stage("average", "--statistics", *order, "--model", tiny_model, "--output", tmp_path / name)
    assert (tmp_path / "ab").read_bytes() == (tmp_path / "ba").read_bytes()


def test_corpora_pool_under_a_name(tiny_model: Path, references: Any, tmp_path: Path) -> None:
    files = [
        attribute(tiny_model, references[key], tmp_path / f"{key[0]}{key[1]}", "--per-sample", seed=key[1])
        for key in sorted(references)
    ]
    for name, order in (("one", files), ("two", files[::-1])):
        stage("average", "--statistics", *order, "--pool", "both", "--model", tiny_model, "--output", tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    meta, found = read_tensors(tmp_path / "one")
    assert meta["corpus"] == {"id": "both", "seeds": [0, 1]}
    assert meta["counts"]["samples"] == 24
    rows = torch.cat([read_tensors(file)[1]["relevance_rows"] for file in files])
    torch.testing.assert_close(found["score"], rows.mean(0))
    assert found["by_seed"].shape == (2, 2, 24)


@pytest.mark.parametrize("method", CONTROLS)
def test_controls_have_the_form_of_a_contrast(method: str, tiny_model: Path, tmp_path: Path) -> None:
    for seed in (0, 0, 1):
        output = tmp_path / f"{seed}"
        before = output.read_bytes() if output.exists() else None
        stage("control", "--method", method, "--model", tiny_model, "--seed", seed, "--output", output)
        assert before in (None, output.read_bytes())
    meta, tensors = read_tensors(tmp_path / "0")
    assert meta["method"] == method
    assert meta["model"]["fingerprint"]
    assert tensors.keys() == {"difference"}
    assert tensors["difference"].shape == (2, 24)
    assert torch.equal(tensors["difference"], read_tensors(tmp_path / "1")[1]["difference"]) == (method == "magnitude")


def test_a_missing_shard_is_named(tiny_model: Path, references: Any, tmp_path: Path) -> None:
    part = attribute(tiny_model, references["general", 0], tmp_path / "part", "--shard", "0/2")
    with pytest.raises(ExciseError, match=r"2 of 4 batches are missing \(2, 3\)"):
        stage("merge", part, "--output", tmp_path / "merged")
    with pytest.raises(ExciseError, match=r"part: 2 of 4 batches are missing"):
        stage("average", "--statistics", part, "--model", tiny_model, "--output", tmp_path / "scores")
    with pytest.raises(ExciseError, match=r"part cannot be added.*batches 0 to 1 would be counted twice"):
        stage("merge", part, part, "--output", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"--objective": "last-max"}, r"settings\.objective"),
        ({"--batch-size": "4"}, "batches in all|batch_size"),
        ({"--tokens": "not-special"}, r"settings\.excluded_token_ids|settings\.tokens"),
        ({"--dtype": "bfloat16"}, r"model\.dtype"),
        ({"--corpus": "another"}, r"corpus\.id"),
        ({"--seed": "7"}, r"corpus\.seed"),
        ({"--aggregate": "abs"}, r"settings\.aggregate"),
    ],
)
def test_shards_of_something_else_are_refused_by_name(
    more: dict[str, str], name: str, tiny_model: Path, references: Any, tmp_path: Path
) -> None:
    reference = references["general", 0]
    first = attribute(tiny_model, reference, tmp_path / "first", "--shard", "0/2")
    arguments = [text for pair in more.items() for text in pair]
    second = attribute(tiny_model, reference, tmp_path / "second", "--shard", "1/2", *arguments)
    with pytest.raises(ExciseError, match=name):
        stage("merge", first, second, "--output", tmp_path / "merged")


def test_statistics_of_another_model_method_or_reference_are_refused(
    tiny_model: Path, other_model: Path, references: Any, tmp_path: Path
) -> None:
    reference = references["general", 0]
    first = attribute(tiny_model, reference, tmp_path / "first", "--shard", "0/2")
    other = attribute(other_model, reference, tmp_path / "other", "--shard", "1/2")
    with pytest.raises(ExciseError, match=r"model\.fingerprint"):
        stage("merge", first, other, "--output", tmp_path / "merged")
    gradient = attribute(tiny_model, reference, tmp_path / "gradient", "--shard", "1/2", method="gradient")
    with pytest.raises(ExciseError, match=r"code is|method is 'lrp' in one, 'gradient'"):
        stage("merge", first, gradient, "--output", tmp_path / "merged")
    elsewhere = attribute(tiny_model, references["general", 1], tmp_path / "elsewhere", "--shard", "1/2")
    with pytest.raises(ExciseError, match=r"corpus\.sha256"):
        stage("merge", first, elsewhere, "--output", tmp_path / "merged")


def test_averages_and_contrasts_of_misfits_are_refused(
    tiny_model: Path, other_model: Path, references: Any, tmp_path: Path
) -> None:
    ours = attribute(tiny_model, references["general", 0], tmp_path / "ours")
    with pytest.raises(ExciseError, match="not for the model given"):
        stage("average", "--statistics", ours, "--model", other_model, "--output", tmp_path / "scores")
    with pytest.raises(ExciseError, match=r"a seed is given twice \(general 0, general 0\)"):
        stage("average", "--statistics", ours, ours, "--model", tiny_model, "--output", tmp_path / "scores")
    toxic = attribute(tiny_model, references["toxic", 1], tmp_path / "toxic", seed=1)
    with pytest.raises(ExciseError, match=r"corpus\.id is 'general' in one, 'toxic' in the other"):
        stage("average", "--statistics", ours, toxic, "--model", tiny_model, "--output", tmp_path / "scores")
    stage("average", "--statistics", ours, "--model", tiny_model, "--output", tmp_path / "general-scores")
    last = attribute(tiny_model, references["toxic", 0], tmp_path / "last", "--objective", "last-max")
    stage("average", "--statistics", last, "--model", tiny_model, "--output", tmp_path / "last-scores")
    with pytest.raises(ExciseError, match=r"settings\.objective is 'continuation' in one, 'last-max'"):
        stage(
            *("contrast", "--retain", tmp_path / "general-scores", "--target", tmp_path / "last-scores"),
            *("--output", tmp_path / "d"),
        )
    with pytest.raises(ExciseError, match=r"written by excise attribute; give scores"):
        stage("contrast", "--retain", ours, "--target", ours, "--output", tmp_path / "d")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard", "2/2"], "--shard 2/2"),
        (["--shard", "half"], "--shard half: expected I/N"),
        (["--objective", "last"], "--objective: 'last' is not one of .*Did you mean 'last-max'"),
        (["--tokens", "some"], "--tokens: unknown tokens"),
        (["--aggregate", "mean"], "--aggregate: unknown aggregate"),
        (["--batch-size", "0"], "argument --batch-size: '0' is less than the minimum of 1"),
        (["--dtype", "float16"], "--dtype: float16 is refused.*overflow"),
        (["--dtype", "int8"], "unknown dtype 'int8'"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: list[str], message: str, tiny_model: Path, references: Any, tmp_path: Path, capsys: Any
) -> None:
    with pytest.raises((ExciseError, SystemExit)) as error:
        attribute(tiny_model, references["general", 0], tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()
    assert re.search(message, f"{error.value} {capsys.readouterr().err}")


def test_special_tokens_are_left_out_and_recorded(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"id": str(n), "input_ids": [0, 40 + n, 50, 60, 70, 1], "target_start": 2} for n in range(3)]
    write_jsonl(tmp_path / "general-0.jsonl", {}, rows)
    output = attribute(tiny_model, tmp_path / "general-0.jsonl", tmp_path / "out", "--tokens", "not-special")
    meta, tensors = read_tensors(output)
    assert meta["settings"]["excluded_token_ids"] == [0, 1]
    assert meta["counts"] == {"batches": 2, "samples": 3, "tokens": 12}
    assert int(tensors["tokens"]) == 12


def test_recomputation_gives_the_same_sums(tiny_model: Path, references: Any, tmp_path: Path) -> None:
    reference = references["general", 0]
    plain, recomputed = (
        read_tensors(attribute(tiny_model, reference, tmp_path / f"out{len(more)}", *more))[1]
        for more in ((), ("--recompute",))
    )
    for name, value in plain.items():
        assert torch.equal(value, recomputed[name])


def test_importing_the_stages_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from excise.stages import attribute, merge, average, contrast, control\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("unit", ["neuron", "head"])
def test_a_step_gains_what_it_is_predicted_to_gain(
    unit: str, tiny_model: Path, references: Any, tmp_path: Path
) -> None:
    """In the limit of a small budget: the log-probability of the target's tokens, before and after."""
    from excise.edits.unit_list import read_units
    from excise.evaluation.variant import load_variant

    for corpus in ("general", "toxic"):
        files = [
            attribute(
                tiny_model, references[corpus, seed], tmp_path / f"{corpus}{seed}", "--unit", unit,
                method="trust-region", seed=seed,
            )
            for seed in (0, 1)
        ]  # fmt: skip
        stage("average", "--statistics", *files, "--model", tiny_model, "--output", tmp_path / corpus)
    both = ["--retain", tmp_path / "general", "--target", tmp_path / "toxic"]
    stage("step", *both, "--count", 6, "--budget", 1e-8, "--name", "small", "--output", tmp_path / "small.json")
    units = read_units(tmp_path / "small.json")
    assert (units["name"], units["method"], units["control"], units["unit"]) == ("small", "trust-region", False, unit)
    assert [row["rank"] for row in units["rows"]] == [1, 2, 3, 4, 5, 6]
    assert all((row["score"] < 0) == (row["scale"] < 1) for row in units["rows"])
    assert units["predicted"]["log_perplexity"] == pytest.approx(0.9e-8, rel=1e-3)
    assert len(units["stability"]["jaccard_between_seeds"]) == 1
    assert units["meta"]["references"]["target"] == {"id": "toxic", "seeds": [0, 1], "samples": 10, "tokens": 93}

    def likelihood(path: Path | None) -> float:
        model, total, samples = load_variant(tiny_model, path, dtype="float64", device="cpu").model, 0.0, 0
        for seed in (0, 1):
            for row in read_jsonl(references["toxic", seed])[1]:
                with torch.no_grad():
                    log_p = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
                for place in range(row["target_start"], len(row["input_ids"])):
                    total += float(log_p[place - 1, row["input_ids"][place]])
                samples += 1
        return total / samples

    change = likelihood(tmp_path / "small.json") - likelihood(None)
    assert change < 0
    assert change == pytest.approx(units["predicted"]["log_probability"], rel=0.05)
    stage(
        "step",
        *both,
        "--count",
        2,
        "--lowest",
        0,
        "--highest",
        1,
        "--budget",
        0.5,
        "--control",
        "--output",
        tmp_path / "cut.json",
    )
    cut = read_units(tmp_path / "cut.json")
    assert cut["control"]
    assert all(0 <= row["scale"] < 1 for row in cut["rows"])


def test_a_step_refuses_scores_that_do_not_fit(tiny_model: Path, references: Any, tmp_path: Path) -> None:
    general = scores(tiny_model, references, "general", tmp_path, "trust-region")
    other = scores(tiny_model, references, "toxic", tmp_path, "gradient")
    more = ["--count", 3, "--output", tmp_path / "no.json"]
    with pytest.raises(ExciseError, match=r"toxic: not scores .* of method trust-region"):
        stage("step", "--retain", general, "--target", other, *more)
    heads = attribute(tiny_model, references["toxic", 0], tmp_path / "h", "--unit", "head", method="trust-region")
    stage("average", "--statistics", heads, "--model", tiny_model, "--output", tmp_path / "heads")
    with pytest.raises(ExciseError, match=r"settings.unit is 'neuron' in one, 'head' in the other"):
        stage("step", "--retain", general, "--target", tmp_path / "heads", *more)
    assert not (tmp_path / "no.json").exists()
