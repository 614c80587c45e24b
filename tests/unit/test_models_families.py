"""The table against real models: every path leads somewhere, every shape is what it says."""

import pytest
import torch

from benchmarks.families import FAMILIES, tiny
from excise.errors import ExciseError
from excise.models.families import (
    ARCHITECTURES,
    activations,
    architecture,
    attentions,
    decoder_layers,
    input_projections,
    neuron_shape,
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


def test_gpt2_without_n_inner_has_four_times_the_hidden_size() -> None:
    assert neuron_shape(tiny("gpt2", n_inner=None).config) == (3, 64)


def test_an_unknown_family_is_named_with_the_allowed_ones() -> None:
    class Config:
        model_type = "lama"

    with pytest.raises(ExciseError, match=r"unknown model type 'lama'.*'llama'.*gpt_neox"):
        architecture(Config())


def test_every_family_has_a_gate() -> None:
    assert FAMILIES.keys() == ARCHITECTURES.keys()
