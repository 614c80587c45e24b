"""Heads, whole MLPs, attentions and layers: where they are, and that every method scores them as its formula says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.families import samples, tiny
from benchmarks.gate import error
from benchmarks.recording import record
from excise.attribution import Control, Options
from excise.attribution.batches import Sample, pad
from excise.attribution.lxt_patch import patched
from excise.attribution.registry import METHODS, control, measured
from excise.errors import ExciseError
from excise.models.families import ARCHITECTURES, head_shape
from excise.models.parts import attention_outputs, output_projections
from excise.models.units import UNITS, axis, sites

SOME = ["llama", "gemma2", "phi3", "gpt2", "gpt_neox"]
"""Grouped queries, norms after the writes, fused projections, transposed weights, parallel attention."""


def values(model: Any, method: str, unit: str, **options: Any) -> dict[str, torch.Tensor]:
    with measured(method).measuring(model, Options(unit=unit, **options)) as measure:
        return measure(pad(samples()))


def head_activations(model: Any, sample: Sample) -> list[torch.Tensor]:
    """The output of every head, by layer: ``[tokens, heads, head_dim]``."""
    _, heads, _, size = head_shape(model.config)
    seen: list[torch.Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].reshape(-1, heads, size)))
        for module in attention_outputs(model)
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor([sample.input_ids]))
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_unit_is_a_block_of_channels_of_output_projections(family: str) -> None:
    model = tiny(family)
    _, heads, _, size = head_shape(model.config)
    attention, mlp = attention_outputs(model), output_projections(model)
    expected = {
        "neuron": (24, 1, [(one,) for one in mlp]),
        "head": (heads, size, [(one,) for one in attention]),
        "mlp": (1, 24, [(one,) for one in mlp]),
        "attention": (1, heads * size, [(one,) for one in attention]),
        "layer": (1, heads * size + 24, list(zip(attention, mlp, strict=True))),
    }
    assert tuple(expected) == UNITS
    for unit, (count, width, modules) in expected.items():
        units = axis(model.config, unit)
        assert (units.shape, units.width) == ((3, count), width)
        assert sites(model, unit) == modules
        for module, (_, channels) in zip(modules[0], units.sites, strict=True):
            assert module.weight.shape[0 if family == "gpt2" else 1] == channels
        joined = torch.arange(2 * count * width).view(2, count * width)
        naive = [[sum(row[i * width : (i + 1) * width]) for i in range(count)] for row in joined.tolist()]
        assert units.fold(joined).tolist() == naive
        assert units.fold(joined.numpy()).tolist() == naive


def test_an_unknown_unit_is_named() -> None:
    with pytest.raises(ExciseError, match=r"unknown unit 'heads'. Did you mean 'head'"):
        axis(tiny("llama").config, "heads")


@pytest.mark.parametrize("family", SOME)
def test_heads_by_lrp_are_the_sum_over_channels_and_tokens_of_activation_times_modified_gradient(family: str) -> None:
    model = tiny(family)
    _, heads, _, size = head_shape(model.config)
    for method, rule in (("lrp", "attnlrp"), ("lrp-cp", "cp")):
        ours = values(model, method, "head")["relevance"]
        assert ours.shape == (3, 3, heads)
        names = {id(module): name for name, module in model.named_modules()}
        for row, sample in enumerate(samples()):
            with patched(model, rule) as patch:
                found = record(model, pad([sample]), patch)
            for layer, projection in enumerate(attention_outputs(model)):
                value = found.calls[names[id(projection)]][0]
                assert value.grad is not None
                shares = (value.detach() * value.grad).reshape(-1, heads, size)
                naive = torch.stack([sum(token[head].sum() for token in shares) for head in range(heads)])
                assert error(ours[row, layer], naive) < 1e-9


@pytest.mark.parametrize("family", SOME)
def test_heads_by_gradient_against_finite_differences(family: str) -> None:
    """Scaling one head's output by 1 + e moves the objective by e x (gradient x activation)."""
    from excise.attribution.backward import embed, last_hidden
    from excise.attribution.objectives import differentiated, plain

    model, batch = tiny(family), pad(samples(1))
    _, heads, _, size = head_shape(model.config)
    with measured("gradient").measuring(model, Options(unit="head")) as measure:
        analytic = measure(batch)["relevance"][0]
    step = 1e-3
    for layer, head in ((0, 3), (1, 0), (2, heads - 1)):

        def scaled(factor: float, layer: int = layer, head: int = head) -> float:
            def hook(_: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
                changed = inputs[0].clone()
                changed[..., head * size : (head + 1) * size] *= factor
                return (changed,)

            handle = attention_outputs(model)[layer].register_forward_pre_hook(hook)
            with torch.no_grad():
                hidden = last_hidden(model, batch, embed(model, batch))
                found = differentiated(model, hidden, batch, "continuation", plain)
            handle.remove()
            return float(found)

        numeric = (scaled(1 + step) - scaled(1 - step)) / (2 * step)
        assert numeric == pytest.approx(analytic[layer, head].item(), rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("family", SOME)
def test_heads_by_activation_and_wanda_against_loops(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    model.save_pretrained(tmp_path)
    units = axis(model.config, "head")
    _, heads, _, size = head_shape(model.config)
    absolute = values(model, "activation", "head")["activation"]
    signed = values(model, "mean-activation", "head")["activation"]
    squares = values(model, "wanda", "head")
    assert squares.keys() == {"activation"}
    norms = torch.zeros(3, heads, size, dtype=torch.float64)
    exact = 1e-6 if family == "gemma2" else 1e-12  # the softmax of Gemma 2 is computed in float32
    for row, sample in enumerate(samples()):
        for layer, tokens in enumerate(head_activations(model, sample)):
            for head in range(heads):
                naive = sum(float(token[head, i].abs()) for token in tokens for i in range(size)) / len(tokens)
                assert absolute[row, layer, head] == pytest.approx(naive, rel=exact)
            torch.testing.assert_close(
                signed[row, layer].view(heads, size), sum(tokens) / len(tokens), rtol=exact, atol=exact
            )
            norms[layer] += sum(token.square() for token in tokens) / len(tokens) / 3
    means = {"activation": squares["activation"].mean(0).numpy()}
    scores = measured("wanda").scores(means, tmp_path, units)
    magnitudes = control("magnitude").draw(tmp_path, 0, units)
    for layer, projection in enumerate(attention_outputs(model)):
        weight = projection.weight if family == "gpt2" else projection.weight.T  # [channels, hidden]
        for head in range(heads):
            block = weight[head * size : (head + 1) * size].tolist()
            wanda = sum(
                abs(w) * float(norms[layer, head, i]) ** 0.5 for i, channel in enumerate(block) for w in channel
            )
            assert scores[layer, head] == pytest.approx(wanda, rel=exact)
            norm = sum(w**2 for channel in block for w in channel) ** 0.5
            assert magnitudes[layer, head] == pytest.approx(norm, rel=exact)


@pytest.mark.parametrize("family", SOME)
def test_neurons_add_up_to_their_mlp_heads_to_their_attention_and_both_to_the_layer(
    family: str, tmp_path: Path
) -> None:
    model = tiny(family)
    model.save_pretrained(tmp_path)
    for name, method in METHODS.items():
        if set(method.units) != set(UNITS) or name in ("random", "mean-activation"):
            continue
        scores = {}
        for unit in UNITS:
            units = axis(model.config, unit)
            if isinstance(method, Control):
                scores[unit] = method.draw(tmp_path, 0, units) ** 2  # squared norms add up
            else:
                means = {key: value.mean(0).numpy() for key, value in values(model, name, unit).items()}
                scores[unit] = measured(name).scores(means, tmp_path, units)
            assert scores[unit].shape == units.shape
        # trust-region keeps a row per sample, in float32.
        rtol, atol = (1e-5, 1e-5) if name == "trust-region" else (1e-9, 1e-12)
        for parts, whole in (("neuron", "mlp"), ("head", "attention")):
            np.testing.assert_allclose(scores[parts].sum(1), scores[whole][:, 0], rtol=rtol, atol=atol)
        np.testing.assert_allclose(scores["mlp"] + scores["attention"], scores["layer"], rtol=rtol, atol=atol)


def test_abs_is_taken_of_the_unit_not_of_its_channels() -> None:
    model = tiny("llama")
    signed, absolute = (values(model, "lrp", "head", aggregate=kind)["relevance"] for kind in ("signed", "abs"))
    assert torch.equal(signed.abs(), absolute)


def test_recomputation_gives_the_same_relevance_of_heads() -> None:
    model = tiny("llama")
    plain, recomputed = (values(model, "lrp", "layer", recompute=again)["relevance"] for again in (False, True))
    torch.testing.assert_close(plain, recomputed, rtol=1e-12, atol=1e-12)
