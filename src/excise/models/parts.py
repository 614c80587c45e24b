"""The modules of a loaded model by their role, found through the table of families."""

from typing import TYPE_CHECKING

from excise.errors import ExciseError
from excise.models.families import architecture

if TYPE_CHECKING:
    from torch import nn


def decoder_layers(model: "nn.Module") -> list["nn.Module"]:
    """The decoder layers, first to last."""
    return list(model.get_submodule(architecture(model.config).layers).children())


def _in_layers(model: "nn.Module", path: str) -> list["nn.Module"]:
    return [layer.get_submodule(path) for layer in decoder_layers(model)]


def output_projections(model: "nn.Module") -> list["nn.Module"]:
    """For each layer the projection whose input is the neuron activations, ``[..., neurons]``."""
    return _in_layers(model, architecture(model.config).output)


def input_projections(model: "nn.Module") -> list[tuple["nn.Module", ...]]:
    """For each layer the projections whose output rows are the neurons."""
    paths = architecture(model.config).inputs
    return [tuple(layer.get_submodule(path) for path in paths) for layer in decoder_layers(model)]


def activations(model: "nn.Module") -> list["nn.Module"]:
    """For each layer the module that applies the MLP's activation function."""
    return _in_layers(model, architecture(model.config).activation)


def attentions(model: "nn.Module") -> list["nn.Module"]:
    """For each layer the attention module."""
    return _in_layers(model, architecture(model.config).attention.module)


def attention_outputs(model: "nn.Module") -> list["nn.Module"]:
    """For each layer the projection whose input is the output of all heads, ``[..., heads * head_dim]``."""
    return _in_layers(model, architecture(model.config).attention.output)


def linear_maps(model: "nn.Module", layer: int) -> dict[str, "nn.Module"]:
    """Every linear map of a layer that may be pruned, by its path inside the layer, in the order of the computation.

    Query, key, value (one, where the family fuses them), the attention's output projection, the MLP's input
    projections, its output projection.
    """
    family = architecture(model.config)
    attention = family.attention
    paths = (attention.query, attention.key, attention.value, attention.output, *family.inputs, family.output)
    module = decoder_layers(model)[layer]
    return {path: module.get_submodule(path) for path in dict.fromkeys(paths)}


def layer_norms(model: "nn.Module", layer: int) -> dict[str, "nn.Module"]:
    """The norms of a layer that the family has: ``attention``, ``mlp``, ``attention_write``, ``mlp_write``.

    Norms of queries and keys inside the attention module are not among them.
    """
    norms, module = architecture(model.config).norms, decoder_layers(model)[layer]
    paths = {name: getattr(norms, name) for name in ("attention", "mlp", "attention_write", "mlp_write")}
    return {name: module.get_submodule(path) for name, path in paths.items() if path is not None}


def final_norm(model: "nn.Module") -> "nn.Module":
    """The norm between the last layer and the head.

    Raises:
        ExciseError: this model has none there (OPT 350M), or something else.
    """
    family = architecture(model.config)
    parent, _, name = family.norms.final.rpartition(".")
    found: nn.Module | None = getattr(model.get_submodule(parent), name)
    if type(found).__name__ != family.norm or found is None:
        raise ExciseError(
            f"{family.norms.final} is {type(found).__name__}, not {family.norm}: this model has no norm after its last "
            "layer"
        )
    return found


def embedding(model: "nn.Module") -> "nn.Module":
    """The token embeddings."""
    return model.get_submodule(architecture(model.config).embedding)
