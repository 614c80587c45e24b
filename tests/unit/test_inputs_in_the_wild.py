"""Inputs as people have them, which would give a wrong number without a word, or a traceback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file

from excise.artefacts import read_jsonl
from excise.config.reading import check_file
from excise.config.site import read_site
from excise.errors import ExciseError
from excise.evaluation import scorers
from excise.evaluation.scorers import Options
from excise.models.encoding import load_encoder
from excise.models.loading import facts, load_model
from tests.conftest import TEXT, make_model

Run = Callable[..., str]

try:
    import google.protobuf  # type: ignore[import-untyped]  # noqa: F401

    HAS_PROTOBUF = True
except ImportError:  # it is not among what excise needs
    HAS_PROTOBUF = False


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.mark.parametrize(
    ("written", "read"), [("012345", 5349), ("4:00:00", 14400), ("1_000", 1000), ("0x1F", 31), ("1:30.5", 90.5)]
)
def test_a_number_that_yaml_reads_as_another_is_refused(tmp_path: Path, written: str, read: float) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(f"all:\n  slurm_account: {written}\npartitions: {{long: {{max_runtime: {written}}}}}\n")
    assert yaml.safe_load(path.read_text())["all"]["slurm_account"] == read  # which nobody meant
    with pytest.raises(ExciseError, match=f"line 2: YAML reads {written} as {read}; write {read}, or put"):
        check_file(path)
    path.write_text(f"all: {{slurm_account: '{written}'}}\n")
    assert read_site(path).resources("cpu") == {"slurm_account": written}


def test_numbers_as_they_look_are_read(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text("a: [0, -3, 17, 0.5, .5, 1., 1.5e+3, 2.5e-3, .inf, -.inf, .nan]\nb: 1-00:00:00\nc: 2024-01-02\n")
    check_file(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "prompt,toxicity,prompt\none,0.1,two\n", "names the column 'prompt' twice"),
        ("a.tsv", "prompt\ttoxicity\none\t0.1\nprompt\ttoxicity\ntwo\t0.2\n", "line 3 repeats the column names"),
        ("a.jsonl", '{"text": "one", "text": "two"}\n', "the key 'text' is given twice in one object"),
        ("a.json", '[{"text": "one"}, {"text": "a", "category": "b", "text": "c"}]', "the key 'text' is given twice"),
        ("a.csv", "prompt,toxicity\none,95\n", "toxicity '95' is not between 0 and 1"),
        ("a.jsonl", '{"text": "one", "toxicity": -1}\n', "toxicity -1 is not between 0 and 1"),
    ],
)
def test_prompts_of_which_a_part_would_be_lost_are_refused(
    tmp_path: Path, excise: Run, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    said = excise("fetch-prompts", "--source", tmp_path / name, "--output", tmp_path / "out.jsonl", fails=True)
    assert message in said
    assert not (tmp_path / "out.jsonl").exists()


def test_a_tokenizer_that_cuts_at_random_is_refused(copy: Path, tmp_path: Path, excise: Run) -> None:
    path = copy / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["dropout"] = 0.3
    path.write_text(json.dumps(tokenizer))
    encode = transformers.AutoTokenizer.from_pretrained(str(copy))
    assert len({tuple(encode(TEXT)["input_ids"]) for _ in range(20)}) > 1  # so it does
    assert "dropout 0.3 in tokenizer.json" in excise("inspect", "--model", copy, "--output", tmp_path / "o", fails=True)


def test_lengths_and_padding_kept_in_a_tokenizer_change_no_text(copy: Path) -> None:
    """As sentence encoders and fine-tuned classifiers are saved."""
    before = load_encoder(copy).text(TEXT)
    path = copy / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    tokenizer["padding"] = {
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 1, "pad_type_id": 0,
        "pad_token": "</s>",
    }  # fmt: skip
    path.write_text(json.dumps(tokenizer))
    assert load_encoder(copy).text(TEXT) == before
    assert len(before) > 20


@pytest.mark.parametrize("greedy", [True, False])
def test_weights_that_are_not_numbers_generate_nothing(copy: Path, tmp_path: Path, excise: Run, greedy: bool) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] = float("nan")
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "a", "text": "the cat"}\n')
    command = ["generate", "--model", copy, "--device", "cpu", "--prompts", prompts, "--max-new-tokens", 3]
    command += ["--greedy"] if greedy else ["--num-generations", 2]
    assert "logits that are not finite numbers" in excise(*command, "--output", tmp_path / "g.jsonl", fails=True)
    assert not (tmp_path / "g.jsonl").exists()


def test_a_pointer_of_git_lfs_is_told_from_a_damaged_file(copy: Path, tmp_path: Path, excise: Run) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 538090408\n"
    (copy / "model.safetensors").write_text(pointer)
    for command in (["fetch-model", "--source", copy], ["inspect", "--model", copy]):
        assert "run git lfs pull there" in excise(*command, "--output", tmp_path / "out", fails=True)


def test_a_classifier_is_read_as_it_is_stored_whatever_its_configuration_says(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "judge", hidden_size=32)
    config = transformers.AutoConfig.from_pretrained(str(folder))
    config.num_labels, config.id2label, config.label2id = 2, {0: "clean", 1: "toxic"}, {"clean": 0, "toxic": 1}
    torch.manual_seed(3)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(str(folder))
    found = []
    for dtype in ("float32", "bfloat16"):
        body = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(body | {"dtype": dtype, "torch_dtype": dtype}))
        found.append(scorers.score(scorers.load(f"hf:{folder}", Options()), ["the cat sat", "a mat"]))
    assert found[0] == found[1]


def sentencepiece_model(folder: Path) -> Any:
    import sentencepiece

    text = folder / "corpus.txt"
    text.write_text("\n".join([TEXT, *TEXT.split()] * 3))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "tokenizer"), vocab_size=120, model_type="bpe", remove_extra_whitespaces=False, normalization_rule_name="identity",
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2,
    )  # fmt: skip
    for name in ("corpus.txt", "tokenizer.vocab"):
        (folder / name).unlink()
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def test_a_folder_with_nothing_but_a_sentencepiece_model_to_read_text(tmp_path: Path, excise: Run) -> None:
    """As Llama 2 was published at first. The ids are those of sentencepiece itself."""
    folder = make_model(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    own = sentencepiece_model(folder)
    body = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(body | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}))
    (folder / "generation_config.json").unlink()
    fetched = tmp_path / "fetched"
    excise("fetch-model", "--source", folder, "--output", fetched)
    look = ("inspect", "--model", fetched, "--output", tmp_path / "model.json")
    assert "nothing says whether a text begins with the bos_token" in excise(*look, fails=True)
    for first in (True, False):
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "LlamaTokenizer", "add_bos_token": first})
        )
        excise("fetch-model", "--source", folder, "--output", fetched)
        if not HAS_PROTOBUF:
            assert "pip install protobuf" in excise(*look, fails=True)
            continue
        excise(*look)
        encoder = load_encoder(fetched)
        assert encoder.first == ((1,) if first else ())
        assert encoder.ends == (2,)
        for text in ("the cat sat on a mat", "rivers and mountains", "the  cat"):
            assert encoder.text(text, first=False) == own.encode(text)


@pytest.mark.parametrize("diverged", [False, True])
def test_parameters_are_those_that_are_loaded(tmp_path: Path, diverged: bool) -> None:
    """config.json ties the head to the embedding; the file may yet hold one of other values."""
    folder = make_model(tmp_path / "model", tie_word_embeddings=True)
    if diverged:
        tensors = load_file(folder / "model.safetensors")
        head = {"lm_head.weight": 2 * tensors["model.embed_tokens.weight"]}
        save_file(tensors | head, folder / "model.safetensors", {"format": "pt"})
    loaded = sum(parameter.numel() for parameter in load_model(folder, device="cpu").parameters())
    assert facts(folder)["parameters"] == loaded


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)  # fmt: skip
def test_short_prompts_are_answered_alike_beside_a_long_one(tmp_path: Path, excise: Run, rope: dict[str, Any]) -> None:
    folder = make_model(tmp_path / "model", rope_parameters=rope | {"rope_theta": 10000.0})
    prompts = [{"id": "long", "text": TEXT * 2}, {"id": "a", "text": "the cat"}, {"id": "b", "text": "rain over"}]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    (tmp_path / "short.jsonl").write_text("\n".join(map(json.dumps, prompts[1:])))
    found = {}
    for name in ("all", "short"):
        command = ["generate", "--model", folder, "--device", "cpu", "--prompts", tmp_path / f"{name}.jsonl"]
        excise(*command, "--num-generations", 2, "--max-new-tokens", 8, "--output", tmp_path / f"{name}.out")
        _, rows = read_jsonl(tmp_path / f"{name}.out")
        found[name] = {(row["id"], row["draw"]): row["completion_ids"] for row in rows if row["id"] != "long"}
    assert found["all"] == found["short"]
