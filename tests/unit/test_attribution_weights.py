"""Weight relevance against autograd's own weight gradients, and against neuron relevance."""

import argparse
import contextlib
from pathlib import Path

import pytest
import torch

from benchmarks.families import FAMILIES, samples, tiny
from benchmarks.gate import error
from benchmarks.recording import record
from excise.artefacts import read_tensors, write_jsonl
from excise.attribution import Options
from excise.attribution.backward import relevance
from excise.attribution.batches import make_batches, pad
from excise.attribution.lxt_patch import patched
from excise.attribution.registry import measured
from excise.attribution.weight_relevance import weight_relevance
from excise.errors import ExciseError
from excise.models.families import architecture
from excise.models.parts import decoder_layers
from excise.stages import weight_relevance as stage


@pytest.mark.parametrize("family", FAMILIES)
def test_against_weight_times_weight_gradient(family: str) -> None:
    model = tiny(family)
    found = weight_relevance(model, make_batches(samples(), 2), range(1, 3), rule="attnlrp", options=Options())
    weights = {
        (layer, name): parameter.requires_grad_()
        for layer in (1, 2)
        for name, parameter in decoder_layers(model)[layer].named_parameters()
        if parameter.ndim == 2
    }
    with patched(model, "attnlrp") as patch:
        record(model, pad(samples()), patch)
    assert len(weights) == sum(map(len, found))
    for (layer, name), weight in weights.items():
        assert weight.grad is not None
        ours = found[layer - 1][name.removesuffix(".weight")]
        assert ours.shape == weight.shape
        assert error(ours, (weight * weight.grad).detach()) < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_columns_of_the_output_projection_add_up_to_the_neurons(family: str) -> None:
    model = tiny(family)
    (weights,) = weight_relevance(model, [pad(samples())], range(1, 2), rule="attnlrp", options=Options())
    with measured("lrp").measuring(model, Options()) as measure:
        neurons = measure(pad(samples()))["relevance"].sum(0)[1]
    row = architecture(model.config)
    assert error(weights[row.output].double().sum(1 if row.transposed else 0), neurons) < 1e-5


def test_recomputation_changes_nothing() -> None:
    plain, recomputed = (
        weight_relevance(tiny("llama"), [pad(samples())], range(3), rule="cp", options=Options(recompute=recompute))
        for recompute in (False, True)
    )
    for first, second in zip(plain, recomputed, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_nan_is_named() -> None:
    model = tiny("llama")
    model.model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(ExciseError, match=r"layer 0, .* NaN"):
        weight_relevance(model, [pad(samples())], range(3), rule="attnlrp", options=Options())


def test_the_stage_writes_a_file_a_layer(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"id": str(n), "input_ids": [3, 40 + n, 50, 60], "target_start": 2} for n in range(3)]
    write_jsonl(tmp_path / "r.jsonl", {}, rows)

    def run(*more: str) -> None:
        parser = argparse.ArgumentParser()
        stage.add_arguments(parser)
        options = ["--model", str(tiny_model), "--reference", str(tmp_path / "r.jsonl"), "--device", "cpu"]
        stage.run(parser.parse_args([*options, "--output", str(tmp_path / "out"), *more]))

    run("--layers", "1:2")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["layer-001.safetensors"]
    meta, tensors = read_tensors(tmp_path / "out" / "layer-001.safetensors")
    assert (meta["layer"], meta["method"]) == (1, "lrp")
    assert tensors["mlp.up_proj"].shape == (24, 16)
    before = tensors["mlp.up_proj"]
    run()
    assert torch.equal(read_tensors(tmp_path / "out" / "layer-001.safetensors")[1]["mlp.up_proj"], before)
    with pytest.raises(ExciseError, match="--layers '2:3'"):
        run("--layers", "2:3")
    with pytest.raises(ExciseError, match="--method: unknown method 'wanda'"):
        run("--method", "wanda")
    with pytest.raises(ExciseError, match="on one device"):
        run("--device", "spread")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_token_form_against_a_loop_over_tokens(family: str) -> None:
    model, found = tiny(family), {}
    (ours,) = weight_relevance(model, [pad(samples())], range(1, 2), rule="attnlrp", options=Options(), form="token")
    layer = decoder_layers(model)[1]
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(patched(model, "attnlrp"))
        for name in ours:

            def note(_: object, given: tuple[torch.Tensor], output: torch.Tensor, name: str = name) -> None:
                output.register_hook(lambda gradient: found.update({name: (given[0].detach(), gradient)}))

            stack.callback(layer.get_submodule(name).register_forward_hook(note).remove)
        relevance(
            model, pad(samples()), objective=Options().objective, elementwise=patch.elementwise, halve=patch.halve
        )
    for name, (values, gradients) in found.items():
        sums = torch.zeros_like(ours[name], dtype=torch.float64)
        for value, gradient in zip(values.flatten(0, 1), gradients.flatten(0, 1), strict=True):
            outer = torch.outer(gradient, value)
            sums += (outer.T if architecture(model.config).transposed else outer).double() ** 2
        assert error(ours[name], layer.get_submodule(name).weight.abs() * sums.sqrt()) < 1e-5
