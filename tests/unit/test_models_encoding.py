"""Text to token ids: what begins a text, control tokens in it, ids without an embedding, what ends a generation."""

import json
import logging
import re
from pathlib import Path

import pytest
import torch
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.families import tiny
from excise.artefacts import read_json, read_jsonl
from excise.errors import ExciseError
from excise.models.encoding import load_encoder
from excise.models.loading import load_model
from tests.conftest import TEXT, make_model, make_tokenizer

TEMPLATE = "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}{{ eos_token }}"


def folder_with(tmp_path: Path, *, adds: str = "", template: str | None = None) -> Path:
    """A tiny Llama whose tokenizer knows <|user|> and puts a token first, or last."""
    folder = make_model(tmp_path / "model")
    larger = AutoModelForCausalLM.from_pretrained(folder)
    larger.resize_token_embeddings(330)
    larger.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    if adds:
        single = {"first": "<s> $A", "both": "<s> $A </s>"}[adds]
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def test_a_tokenizer_that_puts_nothing_there_is_followed_to_the_id(tiny_model):
    encoder, tokenizer = load_encoder(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    for text in (TEXT, " ", "héé\n\nthe cat", "it is 5 < 6 <s", ""):
        assert encoder.prompt(text, "here") == encoder.text(text) == tokenizer(text)["input_ids"]
    assert encoder.facts() == {"first": [], "windows_begin_with": None, "end_a_generation": ["</s>"]}


@pytest.mark.parametrize("adds", ["first", "both"])
def test_a_prompt_begins_with_the_token_once_and_ends_with_none(tmp_path, adds):
    encoder = load_encoder(folder_with(tmp_path, adds=adds))
    plain = encoder.tokenizer("the cat", add_special_tokens=False)["input_ids"]
    assert encoder.prompt("the cat", "here") == [0, *plain]
    assert encoder.prompt("<s>the cat", "here") == [0, *plain]
    assert encoder.prompt("the cat", "here", first=False) == plain
    assert encoder.text("the cat") == [0, *plain]


@pytest.mark.parametrize("word", ["<s>", "</s>", "<|user|>"])
def test_control_tokens_in_a_text_are_letters_and_in_a_prompt_refused(tmp_path, word):
    encoder = load_encoder(folder_with(tmp_path, adds="first"))
    ids = encoder.text(f"the {word} cat")
    assert ids.count(0) == 1
    assert not {1, encoder.tokenizer.convert_tokens_to_ids("<|user|>")} & set(ids)
    assert encoder.tokenizer.decode(ids[1:]) == f"the {word} cat"
    with pytest.raises(ExciseError, match=re.escape(f"p.jsonl: {word!r} in the middle of it is a control token")):
        encoder.prompt(f"the {word} cat", "p.jsonl")


def test_control_tokens_of_the_chat_template_are_read_as_such(tmp_path):
    encoder = load_encoder(folder_with(tmp_path, adds="first", template=TEMPLATE))
    user = encoder.tokenizer.convert_tokens_to_ids("<|user|>")
    ids = encoder.prompt("<s><|user|>the cat</s><|user|>sat", "here")
    assert (ids.count(0), ids.count(1), ids.count(user)) == (1, 1, 2)
    with pytest.raises(ExciseError, match="'<s>' in the middle"):
        encoder.prompt("<|user|>the cat<s>", "here")


def test_ids_beyond_the_embedding_are_refused_by_every_stage(tmp_path, excise):
    """The tokenizer has tokens that the model has no row for, as after added tokens without resizing."""
    folder = make_model(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["mountains"])
    tokenizer.save_pretrained(folder)
    (tmp_path / "t.jsonl").write_text(json.dumps({"id": "a", "text": TEXT * 3}) + "\n")
    (tmp_path / "f.jsonl").write_text(json.dumps({"prompt": "the", "continuation": " mountains"}) + "\n")
    model = ("--model", folder, "--output", tmp_path / "out")
    for command in (
        ("generate", "--prompts", tmp_path / "t.jsonl", *model),
        ("perplexity", "--text", tmp_path / "t.jsonl", "--seqlen", 16, *model),
        ("reference", "--kind", "windows", "--text", tmp_path / "t.jsonl", "--seqlen", 8, "--windows", 2, *model),
        ("reference", "--kind", "file", "--source", tmp_path / "f.jsonl", "--count", 1, *model),
    ):
        assert "ids beyond its vocabulary ('mountains' is 320, the embedding has 320 rows)" in excise(
            *command, fails=True
        )


@pytest.fixture
def gemma(tmp_path):
    """A tiny Gemma 3 whose tokenizer puts nothing first, as one from a GGUF file may be."""
    folder = tmp_path / "gemma"
    size = make_tokenizer(folder)
    tiny("gemma3_text", dtype=torch.float32, vocab_size=size, bos_token_id=0, eos_token_id=1).save_pretrained(folder)
    return folder


def test_gemma_reads_its_first_token_in_every_window(gemma, tmp_path, excise, caplog):
    import math

    with caplog.at_level(logging.WARNING, "excise"):
        assert load_encoder(gemma).prompt("the cat", "here")[0] == 0
    assert "its tokenizer does not begin a text with <s>; excise does" in caplog.text
    (tmp_path / "t.jsonl").write_text(json.dumps({"id": "a", "text": TEXT * 3}) + "\n")
    command = ("perplexity", "--model", gemma, "--text", tmp_path / "t.jsonl", "--seqlen", 16, "--windows", 3)
    excise(*command, "--output", tmp_path / "p.json")
    body = read_json(tmp_path / "p.json")
    assert body["protocol"] == "windows-16x3-bos"
    ids = torch.tensor([0, *AutoTokenizer.from_pretrained(gemma)(TEXT * 3)["input_ids"]])
    model, total = load_model(gemma, device="cpu").double(), 0.0
    for begin in (0, 16, 32):
        window = ids[begin : begin + 16].clone()
        window[0] = 0
        logits = model(window[None]).logits[0, :-1].double()
        total += float(-logits.log_softmax(-1).gather(1, window[1:, None]).sum())
    assert body["nll"] == pytest.approx(total / 45, rel=1e-5)
    assert body["tokens"] == 45
    assert body["perplexity"] == pytest.approx(math.exp(total / 45), rel=1e-5)
    reference = ("reference", "--kind", "windows", "--model", gemma, "--text", tmp_path / "t.jsonl", "--seqlen", 8)
    excise(*reference, "--windows", 4, "--output", tmp_path / "r.jsonl")
    meta, rows = read_jsonl(tmp_path / "r.jsonl")
    assert {(row["input_ids"][0], len(row["input_ids"]), row["target_start"]) for row in rows} == {(0, 8, 1)}
    assert meta["settings"]["begin_with"] == 0


def test_a_family_that_needs_the_token_and_has_none_is_refused(gemma):
    config = read_json(gemma / "tokenizer_config.json")
    (gemma / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "bos_token"}))
    with pytest.raises(ExciseError, match="gemma3_text needs a token at the beginning"):
        load_encoder(gemma)


@pytest.mark.parametrize(
    ("generation", "model", "own", "ends", "said"),
    [
        (1, 1, "</s>", ["</s>"], ""),
        (None, None, "</s>", ["</s>"], "names no eos_token_id; 1 of the tokenizer ends a generation too"),
        (None, 1, "</s>", ["</s>"], ""),
        (17, 1, "</s>", ["</s>"], "is no control token of the tokenizer and ends nothing"),
        ([0, 1], 1, "</s>", ["<s>", "</s>"], ""),
        (0, 1, "</s>", ["<s>", "</s>"], "has another eos_token_id; 1 of the tokenizer ends a generation too"),
        (1, 1, None, ["</s>"], ""),
    ],
)
def test_what_ends_a_generation_is_settled_and_said(tmp_path, excise, generation, model, own, ends, said):
    folder = make_model(tmp_path / "model")
    for name, value in (("generation_config.json", generation), ("config.json", model)):
        body = read_json(folder / name)
        (folder / name).write_text(json.dumps(body | {"eos_token_id": value}))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = own
    tokenizer.save_pretrained(folder)
    messages = excise("inspect", "--model", folder, "--output", tmp_path / "m.json")
    assert said in messages
    assert ("ends" in messages) is bool(said)
    assert read_json(tmp_path / "m.json")["control_tokens"]["end_a_generation"] == ends
    (tmp_path / "p.jsonl").write_text('{"id": "a", "text": "the cat"}\n')
    command = ("generate", "--model", folder, "--prompts", tmp_path / "p.jsonl", "--num-generations", 40, "--output")
    excise(*command, tmp_path / "g.jsonl")
    meta, rows = read_jsonl(tmp_path / "g.jsonl")
    ids = {"<s>": 0, "</s>": 1}
    assert meta["settings"]["end_tokens"] == sorted(ids[end] for end in ends)
    assert not {ids[end] for end in ends} & {token for row in rows for token in row["completion_ids"]}
    assert any(len(row["completion_ids"]) < 20 for row in rows)


def test_a_model_that_nothing_ends_is_refused_before_any_job(tmp_path, excise):
    folder = make_model(tmp_path / "model", eos_token_id=17)
    (folder / "generation_config.json").unlink()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    said = excise("inspect", "--model", folder, "--output", tmp_path / "m.json", fails=True)
    assert "nothing ends a generation" in said
    assert "(17) is none" in said
