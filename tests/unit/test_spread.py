"""Models spread over devices: accelerate's hooks around every part, and weights that are brought in for each pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, dispatch_model

from excise.artefacts import read_json, read_jsonl
from excise.config.generations import SeededSampling
from excise.edits.ablation import prune
from excise.errors import ExciseError
from excise.evaluation.fluency import continuation_nll
from excise.evaluation.generation import generate
from excise.evaluation.likelihood import check_head
from excise.evaluation.perplexity import loss, plan
from excise.models.loading import load_model, resolve_device
from tests.conftest import WORDS


def hooked(model: Any) -> Any:
    parts = {name: "cpu" for name, module in model.named_modules() if not list(module.children())}
    return dispatch_model(model, device_map=parts, force_hooks=True)


def offloaded(model: Any) -> Any:
    return cpu_offload(model, execution_device=torch.device("cpu"))


@pytest.mark.parametrize("spread", [hooked, offloaded])
def test_evaluation_gives_the_same(tiny_model: Path, spread: Callable[[Any], Any]) -> None:
    prompts = [("a", [5, 6, 7]), ("b", [8, 9, 10, 11, 12])]
    batch = [(index, draw) for index in range(2) for draw in range(3)]
    ids = torch.arange(64) % 50 + 5
    found = []
    for place in (lambda model: model, spread):
        model = place(load_model(tiny_model, device="cpu"))
        model.generation_config.eos_token_id = list(range(80))  # of 320: answers end early and leave the batch
        check_head(model)
        answers = generate(model, prompts, batch, SeededSampling(num_generations=3, max_new_tokens=9, seed=1))
        nll = continuation_nll(
            model, [p for _, p in prompts], [(i, a) for (i, _), a in zip(batch, answers, strict=True)]
        )
        found.append(
            (answers, nll, loss(model, ids, plan(64, "windows", seqlen=16, stride=8, windows=None), batch_size=2))
        )
    assert found[0] == found[1]
    assert len({len(answer) for answer in found[0][0]}) > 1


@pytest.mark.parametrize("device", ["auto", "spread"])
def test_a_cuda_build_of_torch_without_a_driver_takes_the_cpu(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There torch names the accelerator that it was built for."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert resolve_device(device).type == "cpu"


def test_pruning_an_offloaded_layer_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ExciseError, match="layer 1 does not fit on the accelerators"):
        prune(
            offloaded(load_model(tiny_model, device="cpu")),
            {"unit": "neuron", "ablation": "zero", "scale": 0, "rows": [{"layer": 1, "neuron": 0}]},
        )


def test_every_stage_takes_device_spread(excise: Callable[..., str], tiny_model: Path, tmp_path: Path) -> None:
    """Where there is no accelerator all of the model lies in main memory, and numbers are those of the CPU."""
    (tmp_path / "prompts.jsonl").write_text('{"id": "a", "text": "the cat"}\n')
    (tmp_path / "text.jsonl").write_text(f'{{"id": 0, "text": "{" ".join(WORDS)}"}}\n')
    found = {}
    for device in ("cpu", "spread"):
        folder = tmp_path / device
        model = ("--model", tiny_model, "--device", device)
        excise("generate", *model, "--prompts", tmp_path / "prompts.jsonl", "--output", folder / "g.jsonl")
        excise("fluency", *model, "--generations", folder / "g.jsonl", "--output", folder / "f.jsonl")
        excise("perplexity", *model, "--text", tmp_path / "text.jsonl", "--seqlen", 16, "--output", folder / "p.json")
        result = read_json(folder / "p.json")
        assert result["meta"]["settings"]["device"] == device
        found[device] = [read_jsonl(folder / "g.jsonl")[1], read_jsonl(folder / "f.jsonl")[1], result["nll"]]
    assert found["cpu"] == found["spread"]
