"""Fit the output projections of a cut encoder again, in closed form: sequential least squares with error feedback."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from excise.errors import ExciseError
from excise.models.encoder import Encoder
from excise.models.families import architecture
from excise.models.parts import decoder_layers
from excise.models.structure import Structure
from excise.retrieval.moments import Batch
from excise.retrieval.states import State, first_inputs

RIDGE = 0.01
"""Ridge, as a share of the mean diagonal of the Gram matrix."""


def least_squares(dense: Encoder, model: nn.Module, structure: Structure, batches: Sequence[Batch]) -> None:
    """Fit both output projections of every layer of a cut encoder, in place, first layer first.

    With Z = [z, 1] of the model being built (z: what enters the projection), x the residual stream beside it and y what
    the dense projection writes, the targets are T = x_dense + y_dense - x_built, and
    W = (Z'Z + r I)^-1 (Z'T + r W_old) with r = ``RIDGE`` times the mean diagonal of Z'Z: what earlier layers got wrong
    is mended by later ones, and few tokens leave the weights near the old ones. As Kwon et al. 2022 (arXiv 2204.09656)
    tune masks, with whole matrices.

    Args:
        dense: the dense encoder; not changed.
        model: the cut transformer.
        structure: how it was cut.
        batches: token ids of calibration texts.

    Raises:
        ExciseError: the calibration texts have fewer tokens than a projection has inputs.
    """
    family = architecture(dense.model.config)
    tokens = sum(int(mask.sum()) for _, _, mask in batches)
    widest = max(len(row.neurons) for row in structure.layers)
    if tokens <= widest:
        raise ExciseError(
            f"--repair least-squares: {tokens} calibration tokens for {widest} neurons of a layer; give more texts"
        )
    dense_layers, built_layers = decoder_layers(dense.model), decoder_layers(model)
    with torch.no_grad():
        states = [first_inputs(dense, batch) for batch in batches]
        at = 0
        for place, row in enumerate(structure.layers):
            for skipped in range(at, row.layer):
                for state in states:
                    state.dense = dense_layers[skipped](state.dense, **state.keywords)
            _fit_layer(dense_layers[row.layer], built_layers[place], states, family)
            at = row.layer + 1


def _fit_layer(dense: Any, built: Any, states: list[State], family: Any) -> None:
    """Fit one layer, and move all batches behind it."""
    targets = [_dense_layer(dense, state, family) for state in states]
    attention = built.get_submodule(family.attention.output)
    heads = [built.attention.self(state.built, **_attention_keywords(state))[0] for state in states]
    _solve(attention, states, lambda n: heads[n], lambda n: targets[n][0] - states[n].built)
    middle = [built.attention.output(heads[n], state.built) for n, state in enumerate(states)]
    _solve(
        built.get_submodule(family.output),
        states,
        lambda n: built.intermediate(middle[n]),
        lambda n: targets[n][1] - middle[n],
    )
    for n, state in enumerate(states):
        state.built = built.output(built.intermediate(middle[n]), middle[n])


def _attention_keywords(state: State) -> dict[str, Any]:
    return {name: value for name, value in state.keywords.items() if not name.startswith("encoder_")}


def _dense_layer(layer: Any, state: State, family: Any) -> tuple[Tensor, Tensor]:
    """``x + y`` of attention and MLP, before their norms; moves the batch behind the layer."""
    seen: dict[str, Tensor] = {}

    def inputs(_: object, entering: tuple[Tensor, ...]) -> None:
        seen["middle"] = entering[0]

    def outputs(name: str) -> Callable[..., None]:
        def keep(_: object, __: object, leaving: Tensor) -> None:
            seen[name] = leaving

        return keep

    handles = [
        layer.get_submodule(family.inputs[0]).register_forward_pre_hook(inputs),
        layer.get_submodule(family.attention.output).register_forward_hook(outputs("attention")),
        layer.get_submodule(family.output).register_forward_hook(outputs("mlp")),
    ]
    try:
        after = layer(state.dense, **state.keywords)
    finally:
        for handle in handles:
            handle.remove()
    found = state.dense + seen["attention"], seen["middle"] + seen["mlp"]
    state.dense = after
    return found


def _solve(linear: Any, states: list[State], inputs: Callable[[int], Tensor], targets: Callable[[int], Tensor]) -> None:
    """Ridge regression of targets on inputs, both ``[texts, tokens, ...]``, shrinking towards the old weights."""
    old = torch.cat([linear.weight.double(), linear.bias.double()[:, None]], 1).T
    gram = torch.zeros(len(old), len(old), dtype=torch.float64, device=old.device)
    cross = torch.zeros_like(old)
    for n, state in enumerate(states):
        z, target = inputs(n)[state.mask], targets(n)[state.mask]
        z = torch.cat([z, z.new_ones(len(z), 1)], 1)
        gram += (z.T @ z).double()  # multiplied in the model's numbers, added in float64
        cross += (z.T @ target).double()
    ridge = RIDGE * gram.diagonal().mean()
    gram.diagonal().add_(ridge)
    fitted = torch.linalg.solve(gram, cross + ridge * old).T
    linear.weight.copy_(fitted[:, :-1])
    linear.bias.copy_(fitted[:, -1])
