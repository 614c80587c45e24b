import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from excise.errors import ExciseError
from excise.evaluation.perplexity import Window, join, loss, plan, protocol_name
from excise.models.loading import load_model, load_tokenizer

Run = Callable[..., str]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return load_model(tiny_model, dtype="float64", device="cpu")


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(2, 290, (157,), generator=torch.Generator().manual_seed(0))


def token_losses(model: Any, ids: Tensor) -> Tensor:
    """Loss of each token but the first, from the whole text's logits."""
    logits = model(input_ids=ids[None]).logits[0, :-1].double()
    return -logits.log_softmax(-1)[torch.arange(len(ids) - 1), ids[1:]]


def naive_windows(model: Any, ids: Tensor, seqlen: int, count: int) -> tuple[float, int]:
    """As Wanda's and SparseGPT's evaluation code: mean loss of each window, one at a time."""
    losses = [float(token_losses(model, ids[i * seqlen : (i + 1) * seqlen]).mean()) for i in range(count)]
    return sum(losses) / count, count * (seqlen - 1)


def naive_sliding(model: Any, ids: Tensor, seqlen: int, stride: int) -> tuple[float, int]:
    """As Hugging Face's recipe, with each token weighted once: the labels before the target length are ignored."""
    total, tokens, previous = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + seqlen, len(ids))
        losses = token_losses(model, ids[begin:end])[-(end - previous) :]
        total += float(losses.sum())
        tokens += len(losses)
        previous = end
        if end == len(ids):
            break
    return total / tokens, tokens


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize(
    ("seqlen", "windows", "expected_windows"), [(16, None, 9), (16, 5, 5), (2, None, 78), (157, 1, 1)]
)
def test_windows_equal_the_naive_loop(
    model: Any, ids: Tensor, seqlen: int, windows: int | None, expected_windows: int, batch_size: int
) -> None:
    planned = plan(len(ids), "windows", seqlen=seqlen, stride=1, windows=windows)
    assert len(planned) == expected_windows
    found = loss(model, ids, planned, batch_size=batch_size)
    nll, tokens = naive_windows(model, ids, seqlen, expected_windows)
    assert sum(one.tokens for one in found) == tokens
    assert sum(one.nll for one in found) / tokens == pytest.approx(nll, rel=1e-12)
    for window, one in zip(planned, found, strict=True):
        alone, _ = naive_windows(model, ids[window.begin : window.end], seqlen, 1)
        assert one.nll / one.tokens == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(("seqlen", "stride"), [(32, 8), (32, 32), (32, 11), (157, 50), (2, 1)])
def test_sliding_equals_the_naive_loop(model: Any, ids: Tensor, seqlen: int, stride: int, batch_size: int) -> None:
    found = loss(
        model, ids, plan(len(ids), "sliding", seqlen=seqlen, stride=stride, windows=None), batch_size=batch_size
    )
    nll, tokens = naive_sliding(model, ids, seqlen, stride)
    assert sum(one.tokens for one in found) == tokens
    assert stride == seqlen or tokens == len(ids) - 1  # every token but the first, once
    assert sum(one.nll for one in found) / tokens == pytest.approx(nll, rel=1e-12)


def test_progress_counts_every_window(model: Any, ids: Tensor) -> None:
    counts: list[int] = []
    loss(model, ids, plan(len(ids), "windows", seqlen=16, stride=1, windows=None), batch_size=4, done=counts.append)
    assert counts == [4, 4, 1]


def test_plans_by_hand() -> None:
    assert plan(11, "windows", seqlen=4, stride=9, windows=None) == [Window(0, 4, 1), Window(4, 8, 5)]
    assert plan(11, "sliding", seqlen=6, stride=2, windows=None) == [
        Window(0, 6, 1),
        Window(2, 8, 6),
        Window(4, 10, 8),
        Window(6, 11, 10),
    ]
    assert plan(11, "sliding", seqlen=6, stride=2, windows=2) == [Window(0, 6, 1), Window(2, 8, 6)]
    assert plan(11, "sliding", seqlen=6, stride=2, windows=2, skip=1) == [Window(2, 8, 6), Window(4, 10, 8)]
    assert plan(11, "windows", seqlen=4, stride=9, windows=None, skip=1) == [Window(4, 8, 5)]


@pytest.mark.parametrize(
    ("tokens", "protocol", "options", "message"),
    [
        (15, "windows", {}, "15 tokens, less than one window of 16"),
        (15, "sliding", {}, "15 tokens, less than one window of 16"),
        (40, "windows", {"windows": 3}, "2 windows of 16, fewer than the 3"),
        (
            40,
            "windows",
            {"windows": 2, "skip": 1},
            r"2 windows of 16, fewer than the 3 asked for \(1 of them skipped\)",
        ),
        (40, "windows", {"skip": 2}, "fewer than the 3"),
        (40, "windows", {"skip": -1}, "--skip -1"),
        (40, "windows", {"windows": 0}, "--windows 0"),
        (40, "windows", {"seqlen": 1}, "--seqlen 1"),
        (40, "sliding", {"stride": 0}, "--stride 0"),
        (40, "sliding", {"stride": 17}, "--stride 17"),
    ],
)
def test_bad_plans_are_refused(tokens: int, protocol: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ExciseError, match=message):
        plan(tokens, protocol, **({"seqlen": 16, "stride": 4, "windows": None} | options))  # type: ignore[arg-type]


def test_names_say_everything_that_numbers_depend_on() -> None:
    assert protocol_name("windows", seqlen=2048, stride=512, windows=None) == "windows-2048"
    assert protocol_name("windows", seqlen=512, stride=512, windows=12) == "windows-512x12"
    assert protocol_name("sliding", seqlen=2048, stride=512, windows=None) == "sliding-2048-512"
    assert protocol_name("sliding", seqlen=2048, stride=512, windows=3) == "sliding-2048-512x3"
    assert protocol_name("windows", seqlen=512, stride=512, windows=12, skip=24) == "windows-512x12-skip-24"


def test_windows_keep_empty_documents_and_sliding_drops_them() -> None:
    documents = ["a", "", " \n", "b"]
    assert join(documents, "\n\n", protocol="windows") == "a\n\n\n\n \n\n\nb"
    assert join(documents, "\n\n", protocol="sliding") == "a\n\nb"


def test_a_loss_that_is_not_finite_is_refused(tiny_model: Path, ids: Tensor) -> None:
    broken = load_model(tiny_model, device="cpu")
    broken.model.norm.weight.fill_(float("inf"))
    with pytest.raises(ExciseError, match=r"tokens 0 to 32.*not a finite number"):
        loss(broken, ids, plan(len(ids), "windows", seqlen=16, stride=1, windows=None), batch_size=2)


@pytest.fixture
def text(tmp_path: Path, words: list[str]) -> Path:
    path = tmp_path / "text.jsonl"
    documents = [" ".join(words), "", " ".join(reversed(words)), " ".join(words[::2])]
    rows = [{"meta": {"label": "Some words"}}, *({"id": n, "text": text} for n, text in enumerate(documents))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_stage(excise: Run, tiny_model: Path, text: Path, tmp_path: Path, model: Any) -> None:
    output = tmp_path / "p.json"
    options = ("--model", tiny_model, "--text", text, "--dtype", "float64", "--device", "cpu", "--output", output)
    excise("perplexity", *options, "--seqlen", 16, "--windows", 3, "--batch-size", 2)
    found = json.loads(output.read_text())
    documents = [json.loads(line)["text"] for line in text.read_text().splitlines()[1:]]
    ids = torch.tensor(load_tokenizer(tiny_model)("\n\n".join(documents))["input_ids"])
    nll, tokens = naive_windows(model, ids, 16, 3)
    assert found["nll"] == pytest.approx(nll, rel=1e-12)
    assert found["perplexity"] == math.exp(found["nll"])
    assert (found["tokens"], found["windows"], found["protocol"]) == (
        tokens,
        3,
        "windows-16x3",
    )
    assert found["text"] == "Some words"
    assert found["meta"]["settings"]["separator"] == "\n\n"
    assert found["meta"]["selection"] is None
    before = output.read_bytes()
    excise("perplexity", *options, "--seqlen", 16, "--windows", 3, "--batch-size", 2)
    assert output.read_bytes() == before

    excise("perplexity", *options, "--protocol", "sliding", "--seqlen", 32, "--stride", 8, "--separator", " ")
    found = json.loads(output.read_text())
    ids = torch.tensor(load_tokenizer(tiny_model)(" ".join(d for d in documents if d))["input_ids"])
    assert found["nll"] == pytest.approx(naive_sliding(model, ids, 32, 8)[0], rel=1e-12)
    assert found["protocol"] == "sliding-32-8"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--protocol", "window"), "'window' is not one of windows, sliding. Did you mean 'windows'"),
        (("--seqlen", "300"), "--seqlen 300: more than the model's 256"),
        (("--seqlen", "16", "--windows", "999"), "fewer than the 999"),
        (("--seqlen", "256"), "less than one window of 256"),
        (("--batch-size", "0"), "--batch-size: '0' is less than the minimum of 1"),
    ],
)
def test_stage_refuses(
    excise: Run, tiny_model: Path, text: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    output = tmp_path / "p.json"
    sized = options if "--seqlen" in options else ("--seqlen", "16", *options)
    messages = excise("perplexity", "--model", tiny_model, "--text", text, "--output", output, *sized, fails=True)
    assert message in messages
    assert not output.exists()
