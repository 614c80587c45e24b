"""Heads, MLPs, attentions and layers ablated by weights, against hooks that replace activations, in float64."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.families import tiny
from excise.artefacts import Json
from excise.edits.ablation import prune, pruned, restore
from excise.errors import ExciseError
from excise.models.families import ARCHITECTURES, architecture, head_shape
from excise.models.loading import identity, load_model
from excise.models.parts import attention_outputs, output_projections
from excise.models.units import axis
from tests.conftest import make_tokenizer

IDS = torch.arange(3, 41).view(2, 19)
CASES = [*((family, {}) for family in ARCHITECTURES), ("opt", {"enable_bias": False}), ("llama", {"mlp_bias": False})]


def logits(model: Any) -> Tensor:
    found: Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


def unit_list(unit: str, rows: list[Json], *, ablation: str = "zero", scale: float | None = 0.0) -> Json:
    return {"unit": unit, "ablation": ablation, "scale": scale, "rows": rows}


def means(count: int, seed: int) -> list[float]:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()


def expected(model: Any, modules: list[Any], changes: dict[int, Callable[[Tensor], Tensor]], *, output: bool) -> Tensor:
    """Logits with the input, or the output, of some layers' modules replaced."""
    hooks = []
    for layer, change in changes.items():
        if output:
            hooks.append(modules[layer].register_forward_hook(lambda _, __, out, change=change: change(out)))
        else:
            hooks.append(modules[layer].register_forward_pre_hook(lambda _, args, change=change: (change(args[0]),)))
    found = logits(model)
    for hook in hooks:
        hook.remove()
    return found


def check(model: Any, chosen: Json, wanted: Tensor) -> None:
    """The weights do what the hooks did, and come back to the bit."""
    before, unpruned = {name: value.clone() for name, value in model.state_dict().items()}, logits(model)
    assert (wanted - unpruned).abs().max() > 1e-4
    with pruned(model, chosen):
        torch.testing.assert_close(logits(model), wanted, rtol=1e-9, atol=1e-9)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(("family", "changes"), CASES)
@pytest.mark.parametrize(
    ("ablation", "scales"),
    [("zero", [0.0] * 3), ("mean", [0.0] * 3), ("mean", [0.3, -1.0, 0.0]), ("zero", [1.5, 0.0, -0.5])],
)
def test_an_ablated_head_equals_a_hook_on_its_output(
    family: str, changes: dict[str, object], ablation: str, scales: list[float]
) -> None:
    """Grouped queries included: a head is one of the query heads, and its key-value head serves on."""
    model = tiny(family, **changes)
    _, heads, _, size = head_shape(model.config)
    places = [(0, 1), (2, heads - 1), (0, 2)]
    rows = [{"layer": layer, "head": head} for layer, head in places]
    centres = [torch.zeros(size, dtype=torch.float64)] * 3
    if ablation == "mean":
        for number, row in enumerate(rows):
            row["mean"] = means(size, number)
        centres = [torch.tensor(row["mean"], dtype=torch.float64) for row in rows]
    same = len(set(scales)) == 1
    if not same:
        for row, scale in zip(rows, scales, strict=True):
            row["scale"] = scale

    def change(layer: int) -> Callable[[Tensor], Tensor]:
        def replaced(value: Tensor) -> Tensor:
            value = value.clone()
            for (at, head), scale, centre in zip(places, scales, centres, strict=True):
                if at == layer:
                    block = slice(head * size, (head + 1) * size)
                    value[..., block] = centre + scale * (value[..., block] - centre)
            return value

        return replaced

    chosen = unit_list("head", rows, ablation=ablation, scale=scales[0] if same else None)
    wanted = expected(model, attention_outputs(model), {0: change(0), 2: change(2)}, output=False)
    check(model, chosen, wanted)


@pytest.mark.parametrize(("family", "changes"), CASES)
@pytest.mark.parametrize("unit", ["mlp", "attention", "layer"])
def test_a_whole_write_is_removed_with_its_bias(family: str, changes: dict[str, object], unit: str) -> None:
    model = tiny(family, **changes)
    parts = {"mlp": [output_projections], "attention": [attention_outputs]}
    found = parts.get(unit, [output_projections, attention_outputs])
    hooks = [part(model)[1].register_forward_hook(lambda _, __, out: torch.zeros_like(out)) for part in found]
    wanted = logits(model)
    for hook in hooks:
        hook.remove()
    check(model, unit_list(unit, [{"layer": 1}]), wanted)


@pytest.mark.parametrize("family", ["llama", "opt", "gpt_neox", "mistral"])
def test_a_whole_write_is_scaled_and_held_at_its_mean(family: str) -> None:
    model = tiny(family)
    wanted = expected(model, output_projections(model), {1: lambda out: 0.5 * out}, output=True)
    check(model, unit_list("mlp", [{"layer": 1}], scale=0.5), wanted)
    width = axis(model.config, "attention").width
    centre = means(width, 4)
    module = attention_outputs(model)[2]
    write = module(torch.tensor(centre, dtype=torch.float64))
    held = expected(model, attention_outputs(model), {2: lambda out: write.expand_as(out)}, output=True)
    check(model, unit_list("attention", [{"layer": 2, "mean": centre}], ablation="mean"), held)


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "olmo2"])
def test_scaling_a_write_that_is_normalised_afterwards_is_refused(family: str) -> None:
    """The norm would undo it: an ablation that changes nothing."""
    model = tiny(family)
    before = logits(model)
    with pytest.raises(ExciseError, match=r"the mlp of layer 1 is scaled by 0.5, but .* normalises what"):
        prune(model, unit_list("mlp", [{"layer": 1}], scale=0.5))
    assert torch.equal(logits(model), before)
    check(model, unit_list("head", [{"layer": 1, "head": 0}], scale=0.5), _halved_head(model))


def _halved_head(model: Any) -> Tensor:
    size = head_shape(model.config)[3]

    def halved(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., :size] /= 2
        return value

    return expected(model, attention_outputs(model), {1: halved}, output=False)


def test_a_head_outside_the_model_and_a_mean_of_another_width_are_refused() -> None:
    model = tiny("llama")
    with pytest.raises(ExciseError, match=r"layer 0, head 4; this model has 3 layers x 4 heads"):
        prune(model, unit_list("head", [{"layer": 0, "head": 4}]))
    with pytest.raises(ExciseError, match=r"layer 0, head 1 has a mean of 2 numbers; in this model it has 4 channels"):
        prune(model, unit_list("head", [{"layer": 0, "head": 1, "mean": [0.0, 1.0]}], ablation="mean"))


def head_list(folder: Path, size: int, *, ablation: str = "mean") -> Json:
    rows: list[Json] = [{"layer": layer, "head": head} for layer, head in ((0, 1), (2, 3))]
    if ablation == "mean":
        rows = [row | {"mean": means(size, number)} for number, row in enumerate(rows)]
    return unit_list("head", rows, ablation=ablation) | {
        **{"meta": {"model": identity(folder, "float32")}, "name": "heads", "method": "lrp"},
        **{"layers": 3, "units_per_layer": 4},
    }


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_a_list_of_heads_at_their_mean_is_applied_and_exported(excise: Any, tmp_path: Path, family: str) -> None:
    """Llama gets biases in all its attention maps, by its own switch; those of queries, keys and values stay zero."""
    folder, output = tmp_path / family, tmp_path / "out"
    changes = {"attention_bias": False} if family == "llama" else {}
    model = tiny(family, dtype=torch.float32, **changes)
    model.save_pretrained(folder)
    make_tokenizer(folder)
    chosen = head_list(folder, head_shape(model.config)[3])
    (tmp_path / "units.json").write_text(json.dumps(chosen))
    excise("apply", tmp_path / "units.json", folder, "--output", output)
    exported, said = AutoModelForCausalLM.from_pretrained(output, output_loading_info=True)
    assert not said["missing_keys"]
    assert not said["unexpected_keys"]
    loaded = load_model(folder, device="cpu")
    unpruned = logits(loaded)
    undo = prune(loaded, chosen)
    torch.testing.assert_close(logits(exported.eval()), logits(loaded))
    assert (logits(loaded) - unpruned).abs().max() > 1e-2
    restore(undo)
    assert torch.equal(logits(loaded), unpruned)
    card = (output / "README.md").read_text()
    assert "2 of 12 attention heads (16.67 %) were held at their mean activation" in card
    if family == "llama":
        assert exported.config.attention_bias
        assert not exported.config.mlp_bias or model.config.mlp_bias
        assert not exported.model.layers[0].self_attn.q_proj.bias.any()
        assert exported.model.layers[0].self_attn.o_proj.bias.any()


@pytest.mark.parametrize("family", ["mistral", "qwen2", "phi3"])
def test_a_family_without_attention_bias_is_not_exported_with_heads_at_their_mean(
    excise: Any, tmp_path: Path, family: str
) -> None:
    assert not architecture(tiny(family).config).attention.bias
    folder = tmp_path / family
    model = tiny(family, dtype=torch.float32)
    model.save_pretrained(folder)
    make_tokenizer(folder)
    path = tmp_path / "units.json"
    path.write_text(json.dumps(head_list(folder, head_shape(model.config)[3])))
    said = excise("apply", path, folder, "--output", tmp_path / "out", fails=True)
    assert f"{family}: a unit that is scaled about its mean (ablation: mean) needs a bias in its attention" in said
    assert "can be: llama, qwen3, gemma" in said
    path.write_text(json.dumps(head_list(folder, head_shape(model.config)[3], ablation="zero")))
    excise("apply", path, folder, "--output", tmp_path / "out")
    assert "2 of 12 attention heads" in (tmp_path / "out" / "README.md").read_text()


def test_the_logit_lens_reads_neurons_only(excise: Any, tmp_path: Path) -> None:
    folder = tmp_path / "llama"
    tiny("llama", dtype=torch.float32).save_pretrained(folder)
    make_tokenizer(folder)
    (tmp_path / "units.json").write_text(json.dumps(head_list(folder, 4)))
    said = excise(
        *("logit-lens", "--model", folder, "--units", tmp_path / "units.json", "--output", tmp_path / "lens"),
        fails=True,
    )
    assert "a list of unit head; the logit lens reads neurons" in said
