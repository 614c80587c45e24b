"""Sequence classifiers as scorers: labels, padding, length, company."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from excise.errors import ExciseError
from excise.evaluation import scorers
from excise.evaluation.scorers import Options
from excise.evaluation.scorers.hf import decided
from tests.conftest import make_tokenizer
from tests.unit.scorers import TEXTS, Run, base, bert_config, save_classifier

__all__ = ["base"]


def expected_logits(base: Path, model: Any) -> list[list[float]]:
    tokenizer = transformers.BertTokenizer.from_pretrained(str(base))
    with torch.no_grad():
        return [model(**tokenizer(text, return_tensors="pt")).logits[0].tolist() for text in TEXTS]


def test_classifier_softmax(base: Path, tmp_path: Path) -> None:
    model = save_classifier(tmp_path / "judge", base, ["neutral", "TOXIC"])
    scorer = scorers.load(f"hf:{tmp_path / 'judge'}", Options())
    expected = [math.exp(b) / (math.exp(a) + math.exp(b)) for a, b in expected_logits(base, model)]
    assert scorers.score(scorer, TEXTS) == pytest.approx(expected, abs=1e-6)
    assert scorer.name == "hf:judge"
    assert scorer.facts["label"] == "TOXIC"
    assert str(tmp_path) not in json.dumps(scorer.facts)


def test_classifier_with_independent_labels(base: Path, tmp_path: Path) -> None:
    labels = ["insult", "threat", "other"]
    model = save_classifier(tmp_path / "m", base, labels, problem_type="multi_label_classification")
    scorer = scorers.load(f"hf:{tmp_path / 'm'}", Options(label="threat"))
    expected = [1 / (1 + math.exp(-logits[1])) for logits in expected_logits(base, model)]
    assert scorers.score(scorer, TEXTS) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ExciseError, match=r"say with --label which label counts: insult, threat, other"):
        scorers.load(f"hf:{tmp_path / 'm'}", Options())
    with pytest.raises(ExciseError, match=r"unknown label 'thread'. Did you mean 'threat'"):
        scorers.load(f"hf:{tmp_path / 'm'}", Options(label="thread"))


def test_classifier_with_one_label_cuts_long_texts(base: Path, tmp_path: Path) -> None:
    model = save_classifier(tmp_path / "m", base, ["score"])
    scorer = scorers.load(f"hf:{tmp_path / 'm'}", Options())
    long = "cat " * 100
    assert scorers.score(scorer, [long]) == scorers.score(scorer, ["cat " * 30])
    assert scorers.score(scorer, TEXTS) == pytest.approx(
        [1 / (1 + math.exp(-logits[0])) for logits in expected_logits(base, model)], abs=1e-6
    )


def test_a_model_without_a_trained_head_is_refused(base: Path, tmp_path: Path) -> None:
    transformers.BertModel(bert_config(base, 2)).save_pretrained(str(tmp_path / "m"))
    transformers.BertTokenizer.from_pretrained(str(base)).save_pretrained(str(tmp_path / "m"))
    with pytest.raises(ExciseError, match="not a trained classifier"):
        scorers.load(f"hf:{tmp_path / 'm'}", Options())


@pytest.mark.parametrize(
    ("labels", "problem_type", "option", "found"),
    [
        (["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"], None, None, "sigmoid"),
        (["Toxicity", "Severe toxicity", "obscene"], None, None, "sigmoid"),
        (["toxic", "insult"], None, None, "sigmoid"),
        (["toxic", "insult"], "single_label_classification", None, "softmax"),
        (["toxic", "insult"], "multi_label_classification", "softmax", "softmax"),
        (["score"], None, None, "sigmoid"),
        (["neutral", "toxic"], None, None, "softmax"),
        (["nothate", "hate"], None, None, "softmax"),
        (["Non-Toxic", "Toxic"], None, None, "softmax"),
        (["LABEL_0", "LABEL_1"], None, None, "softmax"),
        (["calm", "hasty"], None, None, "softmax"),
        (["negative", "neutral", "positive"], None, None, "softmax"),
        (["hate", "offensive", "neither"], None, None, "softmax"),
        (["LABEL_0", "LABEL_1", "LABEL_2"], None, None, None),
        (["joy", "anger", "neutral"], None, None, None),  # of emotions a text may have several
        (["hate", "rude"], None, None, None),
        (["toxic", "unhealthy", "hostile"], None, None, None),
        (["score"], "regression", None, None),
        (["score"], "regression", "sigmoid", "sigmoid"),
    ],
)
def test_how_labels_go_together(labels, problem_type, option, found) -> None:
    if found is None:
        with pytest.raises(ExciseError, match="--probability sigmoid"):
            decided(problem_type, labels, option, "x")
    else:
        assert decided(problem_type, labels, option, "x")[0] == found


def test_independent_labels_without_problem_type_are_not_shares_of_one(base: Path, tmp_path: Path) -> None:
    labels = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
    model = save_classifier(tmp_path / "m", base, labels)
    assert json.loads((tmp_path / "m/config.json").read_text()).get("problem_type") is None
    scorer = scorers.load(f"hf:{tmp_path / 'm'}", Options())
    expected = [1 / (1 + math.exp(-logits[0])) for logits in expected_logits(base, model)]
    assert scorers.score(scorer, TEXTS) == pytest.approx(expected, abs=1e-6)
    assert scorer.facts["probability_by"].startswith("the names of its labels")
    forced = scorers.load(f"hf:{tmp_path / 'm'}", Options(probability="softmax"))
    shares = [math.exp(x[0]) / sum(map(math.exp, x)) for x in expected_logits(base, model)]
    assert scorers.score(forced, TEXTS) == pytest.approx(shares, abs=1e-6)


def save_decoder(folder: Path, *, pad: str | None, special: bool, **options: Any) -> Any:
    """A tiny GPT-2 that classifies by the last token; with a padding token, and tokens of its own, or without."""
    make_tokenizer(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    tokenizer.pad_token = pad
    if special:
        from tokenizers.processors import TemplateProcessing

        begin = [("<s>", tokenizer.convert_tokens_to_ids("<s>"))]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=begin)
    tokenizer.save_pretrained(str(folder))
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.5,
        id2label={0: "clean", 1: "toxic"}, label2id={"clean": 0, "toxic": 1}, **options,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.GPT2ForSequenceClassification(config).eval()
    model.save_pretrained(str(folder))
    return tokenizer


@pytest.mark.parametrize(
    ("pad", "options"),
    [(None, {}), ("</s>", {}), ("</s>", {"pad_token_id": 5}), ("</s>", {"pad_token_id": 1})],
    ids=["no padding token", "only the tokenizer has one", "they name different ones", "they agree"],
)
def test_a_classifier_without_a_shared_padding_token_scores_right(tmp_path: Path, pad, options) -> None:
    tokenizer = save_decoder(tmp_path / "m", pad=pad, special=True, **options)
    scorer = scorers.load(f"hf:{tmp_path / 'm'}", Options())
    scorers.tried(scorer, f"hf:{tmp_path / 'm'}")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(str(tmp_path / "m"))
    expected = []
    for text in TEXTS:
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0]
        expected.append(float(logits.softmax(-1)[1]))
    assert scorers.score(scorer, TEXTS) == pytest.approx(expected, abs=1e-5)


def test_a_classifier_that_has_no_token_for_an_empty_text_is_refused_when_it_is_fetched(
    tmp_path: Path, excise: Run
) -> None:
    save_decoder(tmp_path / "m", pad=None, special=False)
    said = excise("fetch-scorer", "--scorer", f"hf:{tmp_path / 'm'}", "--output", tmp_path / "s.json", fails=True)
    assert "gives no token for an empty text" in said
    assert "tried before models run, here on an empty text" in said
    assert not (tmp_path / "s.json").exists()


class Company:
    """A scorer of which a score depends on the other texts, as where padding is taken for text."""

    name = "company"
    facts: dict[str, Any] = {}  # noqa: RUF012

    def __call__(self, texts: list[str]) -> list[float]:
        return [len(text) / (1 + sum(map(len, texts))) for text in texts]


def test_a_neural_scorer_whose_scores_depend_on_their_company_is_refused() -> None:
    with pytest.raises(ExciseError, match=r"alone and .* beside others; it takes padding"):
        scorers.tried(Company(), "hf:company")
    scorers.tried(Company(), "python:company:scores")  # a person's own function may do as it likes
    scorers.tried(scorers.load("repetition", Options()), "repetition")
