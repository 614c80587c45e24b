"""Remove units of an encoder and make up for what they wrote on average."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from excise.models.families import architecture, head_shape
from excise.models.parts import decoder_layers
from excise.models.structure import Structure, channels

if TYPE_CHECKING:
    from torch import Tensor, nn


def fold_means(model: "nn.Module", structure: Structure, means: Sequence[dict[str, "Tensor"]]) -> None:
    """Add what removed units wrote on average to the biases of a dense encoder, in place; to be called before ``cut``.

    bias += W[:, removed] mean(a[removed]), for the neurons of each layer and the channels of its heads.

    Args:
        model: a dense encoder.
        structure: what will stay.
        means: for each layer of the dense model ``heads`` (mean input of the attention's output projection,
            ``[channels]``) and ``neurons`` (of the MLP's, ``[neurons]``), float64.
    """
    import torch

    family = architecture(model.config)
    _, _, _, size = head_shape(model.config)
    layers = decoder_layers(model)
    for row in structure.layers:
        kept = {"heads": channels(row.heads, size), "neurons": list(row.neurons)}
        paths = {"heads": family.attention.output, "neurons": family.output}
        for kind, path in paths.items():
            linear = layers[row.layer].get_submodule(path)
            mean = means[row.layer][kind].clone()
            mean[kept[kind]] = 0
            with torch.no_grad():
                bias = linear.get_parameter("bias")
                bias.add_((linear.get_parameter("weight").double() @ mean.to(bias.device)).to(bias.dtype))
