"""Tiny classifiers and functions of a user, for the tests of scorers."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

Run = Callable[..., str]


TEXTS = ["the cat sat on a mat", "rain", "", "people walked home under grey skies thinking of dinner"]


def bert_folder(folder: Path, words: list[str]) -> Path:
    """config.json and WordPiece tokenizer of a tiny BERT."""
    folder.mkdir()
    alphabet = [c for letter in "abcdefghijklmnopqrstuvwxyz" for c in (letter, f"##{letter}")]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(words)), *alphabet]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)))
    transformers.BertTokenizer(str(folder / "vocab.txt"), model_max_length=32).save_pretrained(str(folder))
    bert_config(folder, 3).save_pretrained(str(folder))
    return folder


def bert_config(folder: Path, labels: int, **options: Any) -> Any:
    return transformers.BertConfig(
        vocab_size=len((folder / "vocab.txt").read_text().split("\n")),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        initializer_range=0.5,
        num_labels=labels,
        **options,
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = " ".join(TEXTS).split()
    return bert_folder(tmp_path_factory.mktemp("bert") / "base model", words)


def classifier(base: Path, labels: int, **options: Any) -> Any:
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(bert_config(base, labels, **options)).eval()


def write_checkpoint(path: Path, base: Path, model_type: str, **changes: Any) -> Any:
    """A checkpoint as Detoxify publishes them; returns the model in it."""
    model = classifier(base, 3)
    state = model.state_dict()
    without = changes.pop("without", ())
    checkpoint = {
        "config": {
            "dataset": {"args": {"classes": changes.pop("classes", ["obscene", "toxic", "threat"])}},
            "arch": {
                "args": {
                    "num_classes": 3,
                    "model_type": model_type,
                    "model_name": "BertForSequenceClassification",
                    "tokenizer_name": "BertTokenizer",
                }
            },
        },
        "state_dict": {key: value for key, value in state.items() if key not in without},
    }
    torch.save(checkpoint, path)
    return model


def save_classifier(folder: Path, base: Path, labels: list[str], **options: Any) -> Any:
    model = classifier(base, len(labels), id2label=dict(enumerate(labels)), **options)
    model.save_pretrained(str(folder))
    transformers.BertTokenizer.from_pretrained(str(base)).save_pretrained(str(folder))
    return model


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_scorers_of_a_test.py").write_text(
        "def length(texts):\n    return [len(text) for text in texts]\n"
        "def short(texts):\n    return [0.5]\n"
        "def share(texts):\n    return [len(text) / sum(map(len, texts)) for text in texts]\n"
        "def nan(texts):\n    return [0.5] * (len(texts) - 1) + [float('nan')]\n"
        "def fails(texts):\n    raise RuntimeError('the judge is ill')\n"
        "number = 3\n"
        "def one(text):\n    return 0.5\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_scorers_of_a_test", raising=False)
    return "python:own_scorers_of_a_test:"
