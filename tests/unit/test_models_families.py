"""The table against real models: every path leads somewhere, every shape is what it says."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from benchmarks.families import FAMILIES, tiny
from excise.errors import ExciseError
from excise.models.families import (
    ARCHITECTURES,
    architecture,
    attention_rows,
    head_shape,
    is_parallel,
    neuron_shape,
    norms_first,
)
from excise.models.parts import (
    activations,
    attention_outputs,
    attentions,
    decoder_layers,
    embedding,
    final_norm,
    input_projections,
    layer_norms,
    linear_maps,
    output_projections,
)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_paths_and_shapes(family: str) -> None:
    model = tiny(family)
    layers, neurons = neuron_shape(model.config)
    row = architecture(model.config)
    assert (layers, neurons) == (3, 24)
    for found in (decoder_layers, activations, attentions, output_projections, input_projections):
        assert len(found(model)) == layers
    for projections in input_projections(model):
        for projection in projections:
            assert projection.weight.shape[1 if row.transposed else 0] == neurons * row.fused
    for projection in output_projections(model):
        assert projection.weight.shape[0 if row.transposed else 1] == neurons


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_the_input_of_the_output_projection_is_act_times_up(family: str) -> None:
    """Rows of gate and up and the column of the output projection are indeed one and the same neuron."""
    model = tiny(family)
    row = architecture(model.config)
    seen = []
    output_projections(model)[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    entering = []
    input_projections(model)[0][0].register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    with torch.no_grad():
        model(input_ids=torch.tensor([[3, 4, 5]]))
        blocks = [
            block
            for projection in input_projections(model)[0]
            for block in projection(entering[0]).chunk(row.fused, dim=-1)
        ]
        expected = activations(model)[0](blocks[0])
        expected = expected * blocks[1] if row.gated else expected
    torch.testing.assert_close(seen[0], expected)


def _attention_inputs(model: Any, ids: list[int]) -> tuple[Tensor, Tensor]:
    """What enters the first attention, and the output of its heads ``[tokens, heads, head_dim]``."""
    entering, heads = [], []
    path = attention_rows(model.config)["value"].path
    hooks = [
        decoder_layers(model)[0].get_submodule(path).register_forward_pre_hook(lambda _, x: entering.append(x[0])),
        attention_outputs(model)[0].register_forward_pre_hook(lambda _, x: heads.append(x[0])),
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    _, count, _, size = head_shape(model.config)
    return entering[0][0], heads[0].reshape(len(ids), count, size)


def _values(model: Any, entering: Tensor) -> Tensor:
    """The value of every query head, ``[tokens, heads, head_dim]``: each key-value head serves a group of them."""
    _, heads, grouped, _ = head_shape(model.config)
    rows = attention_rows(model.config)["value"]
    made = decoder_layers(model)[0].get_submodule(rows.path)(entering)
    return torch.stack([made[:, list(rows.heads[head * grouped // heads])] for head in range(heads)], dim=1)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_heads_are_blocks_of_the_input_of_the_output_projection(family: str) -> None:
    """A token that is alone sees itself only: each head returns its value."""
    model = tiny(family)
    layers, heads, grouped, size = head_shape(model.config)
    assert (layers, heads, grouped) == (3, 4, 4 if family in ("opt", "gpt2", "gpt_neox") else 2)
    assert size == FAMILIES[family].get("head_dim", 4)
    entering, output = _attention_inputs(model, [7])
    torch.testing.assert_close(output, _values(model, entering))


@pytest.mark.parametrize("part", ["query", "key"])
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_head_without_query_or_key_looks_everywhere_alike(family: str, part: str) -> None:
    """With rows of zeros its scores are zero: the last of three tokens gets the mean of the values, in this head only."""
    model = tiny(family)
    _, heads, grouped, _ = head_shape(model.config)
    _, before = _attention_inputs(model, [3, 9, 5])
    rows = attention_rows(model.config)[part]
    projection = decoder_layers(model)[0].get_submodule(rows.path)
    index = list(rows.heads[1])
    weight = projection.weight.T if architecture(model.config).transposed else projection.weight
    weight[index] = 0
    if projection.bias is not None:
        projection.bias[index] = 0
    entering, after = _attention_inputs(model, [3, 9, 5])
    expected = _values(model, entering).mean(0)
    touched = [1] if part == "query" else [head for head in range(heads) if head * grouped // heads == 1]
    assert touched == ([1] if part == "query" or grouped == heads else [2, 3])
    for head in range(heads):
        if head in touched:
            torch.testing.assert_close(after[-1, head], expected[head])
            assert not torch.allclose(before[-1, head], expected[head])
        elif family != "olmo2":  # its norm of queries and keys is over all heads
            torch.testing.assert_close(after[-1, head], before[-1, head])


OTHER_ORDERS: list[tuple[str, dict[str, object]]] = [
    *((family, {}) for family in ARCHITECTURES),
    ("opt", {"do_layer_norm_before": False}),
    ("gpt_neox", {"use_parallel_residual": False}),
]


@pytest.mark.parametrize(("family", "changes"), OTHER_ORDERS)
def test_a_layer_is_the_sum_of_its_two_writes(family: str, changes: dict[str, object]) -> None:
    """Norms, order and residual stream are what the table says."""
    model = tiny(family, **changes)
    entering: dict[str, Tensor] = {}
    leaving: dict[str, Tensor] = {}
    norms = layer_norms(model, 1)
    watched = {"layer": decoder_layers(model)[1], **norms, "a": attention_outputs(model)[1]}
    for name, module in {**watched, "m": output_projections(model)[1]}.items():
        module.register_forward_pre_hook(lambda _, x, name=name: entering.__setitem__(name, x[0]))
        module.register_forward_hook(
            lambda _, x, y, name=name: leaving.__setitem__(name, y[0] if isinstance(y, tuple) else y)
        )
    with torch.no_grad():
        model(input_ids=torch.tensor([[3, 4, 5]]))
    for found in (entering, leaving):  # OPT's MLP works on a flat list of tokens
        found.update({name: value.reshape(3, -1) for name, value in found.items()})
    start = entering["layer"]
    attention, mlp = leaving.get("attention_write", leaving["a"]), leaving.get("mlp_write", leaving["m"])
    assert norms_first(model.config) == (changes != {"do_layer_norm_before": False})
    assert is_parallel(model.config) == (family == "gpt_neox" and not changes)
    if not norms_first(model.config):
        torch.testing.assert_close(entering["attention"], start + attention)
        torch.testing.assert_close(entering["mlp"], leaving["attention"] + mlp)
        torch.testing.assert_close(leaving["layer"], leaving["mlp"])
        return
    torch.testing.assert_close(leaving["layer"], start + attention + mlp)
    assert ("attention" in norms) == ("mlp" in norms) == (family != "olmo2")
    assert len(norms) == {"gemma2": 4, "gemma3_text": 4}.get(family, 2)
    if family != "olmo2":
        torch.testing.assert_close(entering["attention"], start)
        torch.testing.assert_close(entering["mlp"], start if is_parallel(model.config) else start + attention)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_linear_maps_are_all_of_a_layer_in_order(family: str) -> None:
    model = tiny(family)
    maps = linear_maps(model, 2)
    kinds = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    named = {name: module for name, module in decoder_layers(model)[2].named_modules() if isinstance(module, kinds)}
    assert maps == named  # nothing left out
    called: list[str] = []
    for name, module in maps.items():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        model(input_ids=torch.tensor([[3, 4, 5]]))
    early = len({rows.path for rows in attention_rows(model.config).values()})
    assert sorted(called[:early]) == sorted(list(maps)[:early])  # query, key and value in no order
    assert set(called[early:]) == set(list(maps)[early:])
    assert list(maps)[-1] == architecture(model.config).output


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_embedding_final_norm_and_biases(family: str) -> None:
    model = tiny(family)
    assert embedding(model) is model.get_input_embeddings()
    states = []
    final_norm(model).register_forward_hook(lambda _, __, output: states.append(output))
    with torch.no_grad():
        last = model.base_model(input_ids=torch.tensor([[3, 4, 5]])).last_hidden_state
    if family != "opt":  # the tiny one projects once more
        torch.testing.assert_close(states[0], last)
    row = architecture(model.config)
    for bias, modules in ((row.bias, output_projections(model)), (row.attention.bias, attention_outputs(model))):
        wanted = getattr(model.config, bias) if isinstance(bias, str) else bias
        assert all((module.bias is not None) == wanted for module in modules)


def test_a_model_without_a_norm_after_its_last_layer_is_refused() -> None:
    with pytest.raises(ExciseError, match=r"final_layer_norm is NoneType, not LayerNorm"):
        final_norm(tiny("opt", do_layer_norm_before=False))


def test_without_a_size_of_its_own_a_head_is_its_share_of_the_hidden_size() -> None:
    config = tiny("mistral").config
    config.head_dim = None
    assert head_shape(config) == (3, 4, 2, 4)


def test_gpt2_without_n_inner_has_four_times_the_hidden_size() -> None:
    assert neuron_shape(tiny("gpt2", n_inner=None).config) == (3, 64)


def test_an_unknown_family_is_named_with_the_allowed_ones() -> None:
    class Config:
        model_type = "lama"

    with pytest.raises(ExciseError, match=r"unknown model type 'lama'\. Allowed: .*gpt_neox.*llama"):
        architecture(Config())


def test_every_family_has_a_gate() -> None:
    assert FAMILIES.keys() == ARCHITECTURES.keys()
