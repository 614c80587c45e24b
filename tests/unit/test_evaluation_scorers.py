"""Scorers: Detoxify, word lists, repetition, functions of a user; what each refuses."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from excise.errors import ExciseError
from excise.evaluation import scorers
from excise.evaluation.scorers import FAMILIES, Options
from tests.unit.scorers import TEXTS, Run, base, user_module, write_checkpoint

__all__ = ["base", "user_module"]


ALL = [name for names in FAMILIES.values() for name in names if ":" not in name]


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
