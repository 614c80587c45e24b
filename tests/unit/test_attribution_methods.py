"""Each method against a naive loop in float64."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.families import samples, tiny
from benchmarks.gate import error
from benchmarks.recording import record
from excise.attribution import NEEDS, OBJECTIVES, Options
from excise.attribution.aura import auroc
from excise.attribution.batches import Sample, make_batches, pad, read_reference, shard
from excise.attribution.lxt_patch import patched
from excise.attribution.registry import CONTROLS, MEASURED, METHODS, RANKING, WITH_ERROR, control, measured, refuse_unit
from excise.attribution.scores import standard_error, unit_scores
from excise.attribution.weights import channel_weights
from excise.digest import ROOT
from excise.errors import ExciseError
from excise.models.parts import output_projections
from excise.models.units import UNITS, Axis, axis
from excise.statistics import batch_sums

FAMILIES = ["llama", "phi3", "gpt2", "opt"]
UNUSED = Axis("neuron", 2, 4, (("mlp.down_proj", 4),))
"""For methods whose scores are plain means."""


def values(model: Any, method: str, **options: Any) -> dict[str, torch.Tensor]:
    with measured(method).measuring(model, Options(**options)) as measure:
        return measure(pad(samples()))


def seen(model: Any, sample: Sample) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """MLP inputs and neuron activations of each layer, [tokens, width], from the whole causal model."""
    from excise.models.parts import input_projections

    entering: list[torch.Tensor] = []
    neurons: list[torch.Tensor] = []
    hooks = [
        module.register_forward_pre_hook(
            lambda _, inputs, store=store: store.append(inputs[0].view(-1, inputs[0].shape[-1]))
        )
        for modules, store in (
            ([p[0] for p in input_projections(model)], entering),
            (output_projections(model), neurons),
        )
        for module in modules
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor([sample.input_ids]))
    for hook in hooks:
        hook.remove()
    return entering, neurons


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_methods_against_loops_over_single_samples(family: str) -> None:
    model = tiny(family)
    wanda, activation, signed, aura = (
        values(model, name) for name in ("wanda", "activation", "mean-activation", "aura")
    )
    for row, sample in enumerate(samples()):
        entering, neurons = seen(model, sample)
        for layer in range(3):
            length = len(sample.input_ids)
            squares = sum(token.square() for token in entering[layer]) / length
            torch.testing.assert_close(wanda["input"][row, layer], squares)
            squares = sum(token.square() for token in neurons[layer]) / length
            torch.testing.assert_close(wanda["activation"][row, layer], squares)
            mean = sum(token.abs() for token in neurons[layer]) / len(sample.input_ids)
            torch.testing.assert_close(activation["activation"][row, layer], mean)
            mean = sum(neurons[layer]) / len(sample.input_ids)
            torch.testing.assert_close(signed["activation"][row, layer], mean)
            largest = torch.stack(list(neurons[layer])).max(0).values
            torch.testing.assert_close(aura["maximum"][row, layer], largest)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("family", ["llama", "gemma2", "opt"])
def test_gradient_against_finite_differences(family: str, objective: str) -> None:
    """Scaling one neuron's activations by 1 + e moves the target by e x (gradient x activation)."""
    from excise.attribution.backward import embed, last_hidden
    from excise.attribution.objectives import differentiated, plain

    model, sample = tiny(family), samples()[0]
    batch = pad([sample])
    with measured("gradient").measuring(model, Options(objective=objective)) as measure:
        analytic = measure(batch)["relevance"][0]
    step = 1e-3  # transformers' norms are float32 inside: a smaller one would measure their rounding
    for layer, neuron in ((0, 3), (1, 0), (2, 23)):

        def scaled(factor: float, layer: int = layer, neuron: int = neuron) -> float:
            def hook(_: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
                changed = inputs[0].clone()
                changed[..., neuron] *= factor
                return (changed,)

            handle = output_projections(model)[layer].register_forward_pre_hook(hook)
            with torch.no_grad():
                found = differentiated(model, last_hidden(model, batch, embed(model, batch)), batch, objective, plain)
            handle.remove()
            return float(found)

        numeric = (scaled(1 + step) - scaled(1 - step)) / (2 * step)
        assert numeric == pytest.approx(analytic[layer, neuron].item(), rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("method", ["lrp", "lrp-cp"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_lrp_is_activation_times_modified_gradient(method: str, objective: str) -> None:
    """Against the recorder of the gate: every token's share at the output projection, summed over tokens."""
    model = tiny("llama")
    ours = values(model, method, objective=objective)["relevance"]
    names = {id(module): name for name, module in model.named_modules()}
    for row, sample in enumerate(samples()):
        with patched(model, {"lrp": "attnlrp", "lrp-cp": "cp"}[method]) as patch:
            found = record(model, pad([sample]), patch, objective)
        for layer, projection in enumerate(output_projections(model)):
            value = found.calls[names[id(projection)]][0]
            assert value.grad is not None
            assert error(ours[row, layer], (value.detach() * value.grad)[0].sum(0)) < 1e-9


def test_abs_aggregates_absolute_values_of_samples() -> None:
    model = tiny("llama")
    signed, absolute = (values(model, "lrp", aggregate=kind)["relevance"] for kind in ("signed", "abs"))
    assert torch.equal(signed.abs(), absolute)
    assert (signed < 0).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_absolute_weight_relevance_against_single_sample_weight_gradients(family: str) -> None:
    from excise.models.parts import input_projections

    ours = values(tiny(family), "lrp-abs-weights")["relevance"]
    for row, sample in enumerate(samples()):
        model = tiny(family)
        weights = [projections[-1].weight.requires_grad_() for projections in input_projections(model)]
        with patched(model, "attnlrp") as patch:
            record(model, pad([sample]), patch)
        for layer, weight in enumerate(weights):
            product = (weight * weight.grad).detach()
            product = (product.T if family == "gpt2" else product)[-24:]
            assert error(ours[row, layer], product.abs().sum(1)) < 1e-9


def test_excluded_tokens_do_not_count() -> None:
    """Without the first token, the sums are those of the other tokens; counts say so."""
    model = tiny("llama")
    first = samples(1)[0]
    rest = [token if token != first.input_ids[0] else 3 + (token - 2) % 50 for token in first.input_ids[1:]]
    sample = Sample("x", (first.input_ids[0], *rest), 3)
    all_tokens, without = pad([sample]), pad([sample], excluded=[first.input_ids[0]])
    assert int(without.counted.sum()) == int(all_tokens.counted.sum()) - 1
    with patched(model, "attnlrp") as patch:
        found = record(model, all_tokens, patch)
    value = found.calls["model.layers.1.mlp.down_proj"][0]
    assert value.grad is not None
    with measured("lrp").measuring(model, Options()) as measure:
        assert error(measure(without)["relevance"][0, 1], (value.detach() * value.grad)[0, 1:].sum(0)) < 1e-9
    _, neurons = seen(model, sample)
    with measured("wanda").measuring(model, Options()) as measure:
        torch.testing.assert_close(measure(without)["activation"][0, 1], neurons[1][1:].square().mean(0))
    with measured("activation").measuring(model, Options()) as measure:
        torch.testing.assert_close(measure(without)["activation"][0, 1], neurons[1][1:].abs().mean(0))
    with measured("mean-activation").measuring(model, Options()) as measure:
        torch.testing.assert_close(measure(without)["activation"][0, 1], neurons[1][1:].mean(0))
    with measured("aura").measuring(model, Options()) as measure:
        torch.testing.assert_close(measure(without)["maximum"][0, 1], neurons[1][1:].amax(0))


def test_auroc_against_pairs_and_the_library() -> None:
    from sklearn.metrics import roc_auc_score

    generator = torch.Generator().manual_seed(0)
    positive = torch.randint(5, (6, 2, 3), generator=generator).double().numpy()
    negative = torch.randint(5, (9, 2, 3), generator=generator).double().numpy()
    found = auroc(positive, negative)
    for layer in range(2):
        for neuron in range(3):
            labels = [1] * 6 + [0] * 9
            scores = np.concatenate([positive, negative])[:, layer, neuron].tolist()
            assert found[layer, neuron] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_contrast_of_aura_is_negative_for_experts() -> None:
    rows = np.array([[[1.0, 5.0]], [[2.0, 6.0]]])
    general, behaviour = measured("aura").contrast({"maximum_rows": rows}, {"maximum_rows": np.full((3, 1, 2), 4.0)})
    assert (general - behaviour).tolist() == [[-0.5, 0.5]]


@pytest.mark.parametrize("family", FAMILIES)
def test_wanda_and_magnitude_scores_against_loops_over_weights(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    model.save_pretrained(tmp_path)
    layer, neuron = 1, 5
    generator = torch.Generator().manual_seed(2)
    means = {
        "input": torch.rand(3, 16, generator=generator, dtype=torch.float64),
        "activation": torch.rand(3, 24, generator=generator, dtype=torch.float64),
    }
    rows, column = [], None
    state = model.state_dict()
    match family:
        case "llama":
            prefix = "model.layers.1.mlp."
            rows = [state[f"{prefix}{name}_proj.weight"][neuron] for name in ("gate", "up")]
            column = state[f"{prefix}down_proj.weight"][:, neuron]
        case "phi3":
            fused = state["model.layers.1.mlp.gate_up_proj.weight"]
            rows, column = [fused[neuron], fused[24 + neuron]], state["model.layers.1.mlp.down_proj.weight"][:, neuron]
        case "gpt2":
            rows = [state["transformer.h.1.mlp.c_fc.weight"][:, neuron]]
            column = state["transformer.h.1.mlp.c_proj.weight"][neuron]
        case "opt":
            rows = [state["model.decoder.layers.1.fc1.weight"][neuron]]
            column = state["model.decoder.layers.1.fc2.weight"][:, neuron]
    assert column is not None
    expected = 0.0
    for row in rows:
        for j, weight in enumerate(row.tolist()):
            expected += abs(weight) * means["input"][layer, j].item() ** 0.5
    for weight in column.tolist():
        expected += abs(weight) * means["activation"][layer, neuron].item() ** 0.5
    units = axis(model.config, "neuron")
    arrays = {name: value.numpy() for name, value in means.items()}
    assert measured("wanda").scores(arrays, tmp_path, units)[layer, neuron] == pytest.approx(expected, rel=1e-12)
    norm = sum(weight**2 for row in [*rows, column] for weight in row.tolist()) ** 0.5
    assert control("magnitude").draw(tmp_path, 0, units)[layer, neuron] == pytest.approx(norm, rel=1e-12)


def test_weights_of_a_folder_saved_from_the_bare_model(tmp_path: Path) -> None:
    model = tiny("gpt2")
    model.save_pretrained(tmp_path)
    units = axis(model.config, "layer")
    expected = [site.columns for layer in channel_weights(tmp_path, units) for site in layer]
    assert [tuple(columns.shape) for columns in expected[:2]] == [(16, 16), (16, 24)]
    file = tmp_path / "model.safetensors"
    save_file({name.removeprefix("transformer."): tensor for name, tensor in load_file(file).items()}, file)
    after = [site.columns for layer in channel_weights(tmp_path, units) for site in layer]
    assert all(torch.equal(*pair) for pair in zip(expected, after, strict=True))


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.2.mlp.up_proj.weight"]
    save_file(tensors, file)
    with pytest.raises(ExciseError, match=r"layer 2, mlp.up_proj, found none"):
        list(channel_weights(tmp_path, axis(tiny("llama").config, "neuron")))


def test_random_is_uniform_seeded_and_of_the_models_shape(tmp_path: Path) -> None:
    units = axis(tiny("llama", intermediate_size=2000).config, "neuron")

    def draw(seed: int) -> Any:
        return control("random").draw(tmp_path, seed, units)

    assert draw(0).shape == (3, 2000)
    assert (draw(0) == draw(0)).all()
    assert not (draw(0) == draw(1)).any()
    assert abs(draw(0).mean() - 0.5) < 0.02
    assert abs(draw(0).std() - 12**-0.5) < 0.02
    heads = axis(tiny("llama").config, "head")
    assert control("random").draw(tmp_path, 0, heads).shape == (3, 4)


# --- from sums to scores ------------------------------------------------------------------------------------------


def test_scores_are_pooled_means_with_their_standard_error(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    seeds = [torch.randn(count, 2, 4, generator=generator, dtype=torch.float64) for count in (3, 5)]
    totals = [batch_sums({"relevance": rows}, tokens=1, squares=("relevance",)) for rows in seeds]
    scores = unit_scores(measured("lrp"), totals, tmp_path, UNUSED)
    everything = torch.cat(seeds)
    np.testing.assert_allclose(scores["score"], everything.mean(0), rtol=1e-12)
    np.testing.assert_allclose(scores["by_seed"], torch.stack([rows.mean(0) for rows in seeds]), rtol=1e-12)
    np.testing.assert_allclose(scores["standard_error"], everything.std(0, unbiased=True) / 8**0.5, rtol=1e-12)


def test_standard_error_of_a_constant_is_zero_not_nan() -> None:
    value = np.float64(0.1)
    assert standard_error(value * 3, 3 * value**2 * (1 - 1e-15), samples=3).item() == 0


def test_a_score_that_is_not_finite_is_named(tmp_path: Path) -> None:
    total = batch_sums({"relevance": torch.zeros(2, 3, 4)}, tokens=1, squares=("relevance",))
    total["relevance"][2, 1] = torch.nan
    with pytest.raises(ExciseError, match="layer 2, neuron 1 is nan"):
        unit_scores(measured("lrp"), [total], tmp_path, UNUSED)


# --- batches ------------------------------------------------------------------------------------------------------


def test_batches_are_sorted_by_length_then_id_and_do_not_depend_on_the_order_of_the_file() -> None:
    drawn_samples = [Sample(name, (1,) * length, 1) for name, length in (("b", 5), ("c", 3), ("a", 5), ("d", 9))]
    for order in (drawn_samples, drawn_samples[::-1]):
        assert [batch.ids for batch in make_batches(order, 2)] == [("c", "a"), ("b", "d")]


def test_shards_are_a_partition() -> None:
    for count in (0, 1, 5, 16):
        for shards in (1, 3, 7):
            parts = [list(shard(count, index, shards)) for index in range(shards)]
            assert list(itertools.chain(*parts)) == list(range(count))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no samples in it"),
        ([("a", [1, 2], 1), ("a", [1, 2], 1)], "sample 'a' occurs twice"),
        ([("a", [1, 999], 1)], "sample 'a' has token ids outside"),
        ([("a", [1, 2], 2)], "sample 'a': target_start 2 must be"),
        ([("a", [1, 2], 0)], "sample 'a': target_start 0 must be"),
        ([("a", [1] * 65, 1)], "sample 'a' has 65 tokens; this model has positions for 64"),
    ],
)
def test_a_bad_reference_set_is_refused(rows: list[Any], message: str, tmp_path: Path) -> None:
    from excise.artefacts import write_jsonl

    path = tmp_path / "reference.jsonl"
    write_jsonl(path, {}, [dict(zip(("id", "input_ids", "target_start"), row, strict=True)) for row in rows])
    with pytest.raises(ExciseError, match=message):
        read_reference(path, tiny("llama").config)


def test_a_sample_of_special_tokens_only_is_refused() -> None:
    with pytest.raises(ExciseError, match="sample 'a' consists of special tokens only"):
        pad([Sample("a", (1, 1), 1)], excluded=[1])


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ExciseError, match=r"unknown method 'lpr'. Did you mean 'lrp'"):
        measured("lpr")
    with pytest.raises(ExciseError, match="unknown control 'lrp'"):
        control("lrp")


def test_the_registry_holds_every_method_and_what_is_true_of_it() -> None:
    """Control or candidate, standard errors, what each one needs: read off the entries, and each has its file."""
    signed = ("lrp", "lrp-cp", "lrp-abs-weights")
    assert (*signed, "wanda", "gradient", "trust-region", "activation", "aura", "mean-activation") == MEASURED
    assert CONTROLS == ("magnitude", "random")
    assert (*signed, "gradient", "activation") == WITH_ERROR
    assert set(METHODS) - set(RANKING) == {"mean-activation"}
    for name, method in METHODS.items():
        assert method.name == name
        assert method.needs in NEEDS
        assert set(method.units) <= set(UNITS)
        assert (ROOT / f"{method.module.replace('.', '/')}.py").is_file()
        if name != "lrp-abs-weights" and name != "aura":
            assert method.units == UNITS


@pytest.mark.parametrize(("method", "unit"), [("aura", "head"), ("lrp-abs-weights", "layer")])
def test_a_unit_that_a_method_cannot_score_is_refused(method: str, unit: str) -> None:
    with pytest.raises(ExciseError, match=f"--unit {unit}: {method} scores neuron only. Methods for {unit}: lrp, "):
        refuse_unit(measured(method), unit)
