import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from excise.errors import ExciseError
from excise.evaluation import scorers
from excise.evaluation.scorers import FAMILIES, Options
from excise.evaluation.scorers.hf import decided
from tests.conftest import make_tokenizer

Run = Callable[..., str]
ALL = [name for names in FAMILIES.values() for name in names if ":" not in name]
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


def expected_detoxify(base: Path, model: Any, index: int) -> list[float]:
    tokenizer = transformers.BertTokenizer.from_pretrained(str(base))
    found = []
    for text in TEXTS:
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
        found.append(1 / (1 + math.exp(-float(logits[index]))))
    return found


@pytest.mark.parametrize("name", ["detoxify-original", "detoxify-unbiased", "detoxify-multilingual"])
def test_detoxify_from_a_checkpoint_file(base: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "tiny.ckpt"
    model = write_checkpoint(path, base, str(base))
    scorer = scorers.load(name, Options(checkpoint=path))
    assert scorers.score(scorer, TEXTS) == pytest.approx(expected_detoxify(base, model, 1), abs=1e-6)
    assert scorers.score(scorer, TEXTS[:1]) == pytest.approx(expected_detoxify(base, model, 1)[:1], abs=1e-6)
    assert scorer.name == name
    assert scorer.facts["label"] == "toxicity"
    assert len(scorer.facts["checkpoint"]) == 64
    assert str(tmp_path) not in json.dumps(scorer.facts)


def test_detoxify_from_a_folder_needs_no_hub(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "détox"
    folder.mkdir()
    for file in base.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    model = write_checkpoint(folder / "toxic_original.ckpt", base, "bert-base-uncased")  # as in the published files
    scorer = scorers.load("detoxify-original", Options(checkpoint=folder))
    assert scorers.score(scorer, TEXTS) == pytest.approx(expected_detoxify(base, model, 1), abs=1e-6)


def test_detoxify_refuses_weights_that_would_stay_random(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.ckpt"
    write_checkpoint(path, base, str(base), without=("classifier.weight",))
    with pytest.raises(ExciseError, match=r"'classifier.weight' is not the checkpoint's"):
        scorers.load("detoxify-original", Options(checkpoint=path))


def test_detoxify_refuses_a_checkpoint_without_the_label(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.ckpt"
    write_checkpoint(path, base, str(base), classes=["a", "b", "c"])
    with pytest.raises(ExciseError, match="no label 'toxicity'; it has a, b, c"):
        scorers.load("detoxify-original", Options(checkpoint=path))


def test_detoxify_offline_says_how_to_give_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import urllib.error
    import urllib.request

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", offline)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(ExciseError, match=r"no route to host.*--checkpoint FOLDER, with toxic_original-c1212f89.ckpt"):
        scorers.load("detoxify-original", Options())


def test_detoxify_refuses_a_folder_without_checkpoint(base: Path) -> None:
    with pytest.raises(ExciseError, match=r"exactly one \*.ckpt \(found 0\)"):
        scorers.load("detoxify-original", Options(checkpoint=base))


def save_classifier(folder: Path, base: Path, labels: list[str], **options: Any) -> Any:
    model = classifier(base, len(labels), id2label=dict(enumerate(labels)), **options)
    model.save_pretrained(str(folder))
    transformers.BertTokenizer.from_pretrained(str(base)).save_pretrained(str(folder))
    return model


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


def test_alt_profanity_check_is_the_package() -> None:
    import profanity_check

    scorer = scorers.load("alt-profanity-check", Options())
    texts = [*TEXTS, "what a lovely morning", "you stupid idiot, go to hell"]
    found = scorers.score(scorer, texts)
    assert found == pytest.approx([float(profanity_check.predict_prob([text])[0]) for text in texts], abs=1e-12)
    assert found[-1] > 0.9 > 0.1 > found[-2]
    assert scorer.facts["versions"]["alt-profanity-check"] == "1.9.1"


def test_better_profanity_finds_the_words_of_its_list() -> None:
    scorer = scorers.load("better-profanity", Options())
    texts = ["", "what a lovely morning", "what the FUCK", "you b*tch!", "a classic bass line"]
    assert scorers.score(scorer, texts) == [0.0, 0.0, 1.0, 1.0, 0.0]
    assert scorer.facts["versions"] == {"better-profanity": "0.7.0"}


def test_repetition_is_one_minus_the_uniqueness_of_the_tokens() -> None:
    from excise.evaluation.degeneration import RUR_LIMIT, response_uniqueness

    scorer = scorers.load("repetition", Options())
    tokens = [[5, 5, 7, 5], [1, 2, 3], [9] * 50, [4, 4], [], list(range(25)) * 2]
    naive = []
    for ids in tokens:
        seen, again = set(), 0
        for token in ids:
            again += token in seen
            seen.add(token)
        naive.append(again / len(ids) if ids else 0.0)
    found = scorers.score(scorer, tokens)
    assert found == pytest.approx(naive, abs=1e-15)
    some = [value for value, ids in zip(found, tokens, strict=True) if ids]
    uniqueness = [value for ids in tokens if (value := response_uniqueness(ids)) is not None]
    assert uniqueness == pytest.approx([1 - value for value in some], abs=1e-15)
    assert sum(value <= RUR_LIMIT for value in uniqueness) == sum(value >= 0.5 for value in some)  # exactly 0.5 counts


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


def test_a_function_that_fails_on_an_empty_text_is_refused_before_models_run(
    tmp_path: Path, excise: Run, monkeypatch
) -> None:
    (tmp_path / "hurried.py").write_text("def scores(texts):\n    return [1 / len(text) for text in texts]\n")
    monkeypatch.syspath_prepend(tmp_path)
    scorer = "python:hurried:scores"
    said = excise("fetch-scorer", "--scorer", scorer, "--output", tmp_path / "s.json", fails=True)
    assert "ZeroDivisionError" in said
    assert "here on an empty text" in said


def test_which_scorers_are_tried_before_models_run() -> None:
    tried = {name for name in (*ALL, "hf:me/x", "python:a:b") if scorers.needs_trial(name)}
    assert tried == {"detoxify-original", "detoxify-unbiased", "detoxify-multilingual", "hf:me/x", "python:a:b"}


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


def test_a_function_of_the_user(user_module: str) -> None:
    scorer = scorers.load(f"{user_module}length", Options())
    assert scorers.score(scorer, TEXTS) == [20.0, 4.0, 0.0, 54.0]
    assert len(scorer.facts["source"]) == 64


def test_wrong_results_are_refused_and_failures_raise(user_module: str) -> None:
    with pytest.raises(ExciseError, match="gave 1 scores for 4 texts"):
        scorers.score(scorers.load(f"{user_module}short", Options()), TEXTS)
    with pytest.raises(ExciseError, match="gave nan for the text 'people walked"):
        scorers.score(scorers.load(f"{user_module}nan", Options()), TEXTS)
    with pytest.raises(ExciseError, match=r"RuntimeError: the judge is ill \(own_scorers_of_a_test.py, line 10\)"):
        scorers.score(scorers.load(f"{user_module}fails", Options()), TEXTS)
    with pytest.raises(ExciseError, match=r"gave float for 4 texts\. A scorer takes a list"):
        scorers.score(scorers.load(f"{user_module}one", Options()), TEXTS)


def test_a_function_that_is_not_there_is_refused_before_its_code_runs(user_module: str, tmp_path: Path) -> None:
    with pytest.raises(ExciseError, match=r"unknown function 'lenght'\. Did you mean 'length'"):
        scorers.check_own(f"{user_module}lenght")
    scorers.check_own(f"{user_module}number")
    (tmp_path / "own_broken.py").write_text("import math\ndef f(texts)\n    return []\n")
    with pytest.raises(ExciseError, match=r"own_broken\.py, line 2: expected ':'"):
        scorers.check_own("python:own_broken:f")
    (tmp_path / "own_needy.py").write_text("import nothing_of_that_name\ndef f(texts):\n    return []\n")
    scorers.check_own("python:own_needy:f")
    with pytest.raises(
        ExciseError, match="own_needy cannot be imported: ModuleNotFoundError: No module named 'nothing"
    ):
        scorers.load("python:own_needy:f", Options())
    assert "own_scorers_of_a_test" not in sys.modules


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("detoxify-orignal", Options(), "unknown scorer 'detoxify-orignal'. Did you mean 'detoxify-original'"),
        ("detoxify", Options(), "unknown scorer 'detoxify'"),
        ("hf:", Options(), "unknown scorer 'hf:'"),
        ("alt-profanity-check", Options(checkpoint=Path("x")), "--checkpoint belongs to the detoxify scorers"),
        ("repetition", Options(label="x"), "--label belongs to hf: scorers"),
        ("repetitoin", Options(), "Did you mean 'repetition'"),
        ("alt-profanity-check", Options(label="x"), "--label belongs to hf: scorers"),
        ("python:no_such_module_anywhere:f", Options(), "no_such_module_anywhere.*PYTHONPATH"),
        ("python:math:no_such_function", Options(), "no_such_function"),
        ("python:math", Options(), "expected python:MODULE:FUNCTION"),
        ("python:math:pi", Options(), "pi is not a function"),
    ],
)
def test_bad_names_and_options_are_refused(name: str, options: Options, message: str) -> None:
    with pytest.raises(ExciseError, match=message):
        scorers.load(name, options)


@pytest.fixture
def generations(tmp_path: Path) -> Path:
    path = tmp_path / "generations.jsonl"
    rows = [{"id": f"p{n // 2}", "draw": n % 2, "completion": text} for n, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_stage(excise: Run, generations: Path, tmp_path: Path, user_module: str) -> None:
    output = tmp_path / "scores.jsonl"
    for batch_size in (1, 3, 64):
        options = ("--generations", generations, "--output", output, "--batch-size", batch_size)
        excise("score", "--scorer", f"{user_module}length", *options)
        meta, *rows = (json.loads(line) for line in output.read_text().splitlines())
        assert rows == [
            {"id": "p0", "draw": 0, "score": 20.0},
            {"id": "p0", "draw": 1, "score": 4.0},
            {"id": "p1", "draw": 0, "score": 0.0},
            {"id": "p1", "draw": 1, "score": 54.0},
        ]
    assert meta["meta"]["empty"] == 1
    assert meta["meta"]["scorer"]["name"] == f"{user_module}length"


def test_the_stage_gives_repetition_the_tokens_of_the_model(excise: Run, generations: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.jsonl"
    command = ("score", "--scorer", "repetition", "--generations", generations, "--output", output)
    assert "completion_ids" in excise(*command, fails=True)
    rows = [json.loads(line) for line in generations.read_text().splitlines()]
    ids = [[3, 3, 3, 3], [1, 2], [], [6, 7, 6]]
    generations.write_text(
        "".join(json.dumps(row | {"completion_ids": one}) + "\n" for row, one in zip(rows, ids, strict=True))
    )
    excise(*command)
    _, *scored = (json.loads(line) for line in output.read_text().splitlines())
    assert [row["score"] for row in scored] == [0.75, 0, 0, pytest.approx(1 / 3)]


def test_stage_writes_nothing_when_the_scorer_fails(
    excise: Run, generations: Path, tmp_path: Path, user_module: str
) -> None:
    output = tmp_path / "scores.jsonl"
    excise("score", "--scorer", f"{user_module}nan", "--generations", generations, "--output", output, fails=True)
    assert not output.exists()
    (tmp_path / "empty.jsonl").write_text("")
    empty = tmp_path / "empty.jsonl"
    messages = excise(
        "score", "--scorer", f"{user_module}length", "--generations", empty, "--output", output, fails=True
    )
    assert "no generations in it" in messages


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """Eleven generations, of very different lengths."""
    path = tmp_path / "long.jsonl"
    texts = ["", "cat", "the cat " * 9, "rain " * 5, *TEXTS, "grey", "on a mat " * 7, "x"]
    rows = [{"id": f"p{n}", "draw": 0, "completion": text} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("shards", [1, 2, 3, 5])  # of four batches, the last one short: of five shards one is empty
@pytest.mark.parametrize("neural", [True, False])
def test_shards_merge_to_the_bytes_of_one_run(
    excise: Run, base: Path, long: Path, tmp_path: Path, user_module: str, shards: int, neural: bool
) -> None:
    """Of scorers whose scores depend on the other texts of the batch."""
    save_classifier(tmp_path / "judge", base, ["neutral", "toxic"])
    scorer = f"hf:{tmp_path / 'judge'}" if neural else f"{user_module}share"
    score = ("score", "--scorer", scorer, "--threads", 1, "--batch-size", 3, "--generations", long, "--output")
    excise(*score, whole := tmp_path / "whole")
    paths = [tmp_path / f"shard {index}" for index in range(shards)]
    for index, path in enumerate(paths):
        excise(*score, path, "--shard", f"{index}/{shards}")
    excise("score", "--merge", *reversed(paths), "--output", merged := tmp_path / "merged")
    assert merged.read_bytes() == whole.read_bytes()
    assert json.loads(merged.read_text().splitlines()[0])["meta"]["empty"] == 2
    if not neural:
        excise(*score, other := tmp_path / "other", "--batch-size", 4)
        assert other.read_text().splitlines()[1:] != whole.read_text().splitlines()[1:]


def test_shards_that_do_not_make_one_run_are_refused_by_name(
    excise: Run, long: Path, generations: Path, tmp_path: Path, user_module: str
) -> None:
    def score(name: str, shard: str, *more: object, scorer: str = "length", source: Path = long) -> Path:
        files = ("--generations", source, "--output", tmp_path / name)
        excise("score", "--scorer", user_module + scorer, *files, "--batch-size", 3, "--shard", shard, *more)
        return tmp_path / name

    def refused(*paths: Path) -> str:
        message = excise("score", "--merge", *paths, "--output", tmp_path / "merged", fails=True)
        assert not (tmp_path / "merged").exists()
        return message

    first, second, third = (score(f"shard {index}", f"{index}/3") for index in range(3))
    assert "of 3 shards, [0, 2] were not given" in refused(second)
    assert f"{first}: shard 0/3 was given already" in refused(first, second, third, first)
    for path in (
        score("other batches", "2/3", "--batch-size", 4),
        score("other scorer", "2/3", scorer="share"),
        score("other texts", "2/3", source=generations),
        score("other shards", "2/4"),
    ):
        assert f"{path}: not a shard of the same run as {first}" in refused(first, second, path)
    assert f"{long}: not written by excise score" in refused(first, long)
    for wrong in ("3/3", "1", "-1/3", "a/b", "0/0"):
        command = ("--scorer", f"{user_module}length", "--generations", long, "--output", tmp_path / "merged")
        assert f"--shard {wrong}" in excise("score", *command, f"--shard={wrong}", fails=True)
    assert "needed to score" in excise("score", "--scorer", "repetition", "--output", tmp_path / "merged", fails=True)
