"""The residual stream of a loaded model, as the sum of what its sources write; places to look at it and change it.

Everything is done with hooks on the model's own modules, in any supported family. With grouped queries, keys and
values are repeated before they leave their projection, so that each query head has a copy of its own.

What a head writes is its slice of the attention output times its columns of the output projection; a bias of that
projection is nobody's, and cancels in every difference. Where a norm follows the attention (Gemma 2 and 3), the head's
write is its share of the normed sum: its output times the scale that the norm has *in that run*. So the writes of one
run add up exactly, and the scale is part of what a write is.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from excise.attribution.norms import NORMS
from excise.circuits.graph import SLOTS, Graph
from excise.errors import ExciseError
from excise.models.families import Architecture, architecture, attention_rows, head_shape, is_parallel, norms_first
from excise.models.parts import (
    attention_outputs,
    attentions,
    decoder_layers,
    final_norm,
    layer_norms,
    output_projections,
)

ROLES = dict(zip(SLOTS, ("query", "key", "value"), strict=True))


class Taps:
    """What a run looks at and changes, in the order of the computation; this one does nothing.

    Tensors have the shape ``[pairs, tokens, ...]``. Those that return a tensor may return another one.
    """

    def residual(self, layer: int, value: torch.Tensor) -> None:
        """What the attention of a layer reads, ``[..., hidden]``, before the norm."""

    def slot(self, layer: int, slot: str, value: torch.Tensor) -> torch.Tensor:
        """Queries, keys or values as the projection made them, ``[..., heads, head_dim]``."""
        return value

    def heads(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """What the heads put out, ``[..., heads, head_dim]``, before the output projection."""
        return value

    def attention_output(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """What all heads of a layer write together, ``[..., hidden]``."""
        return value

    def mlp_input(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """What the MLP of a layer reads, ``[..., hidden]``, before the norm."""
        return value

    def mlp_output(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """What the MLP of a layer writes, ``[..., hidden]``."""
        return value

    def neurons(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """Activations of the MLP's neurons, ``[..., neurons]``: what its output projection reads."""
        return value

    def final(self, value: torch.Tensor) -> torch.Tensor:
        """The residual stream before the final norm, ``[..., hidden]``."""
        return value


@dataclass(frozen=True)
class Layer:
    """The modules of one layer; ``mlp`` are applied one after the other."""

    attention: Any
    projections: dict[str, nn.Module]
    output: Any
    mlp: tuple[Any, ...]
    mlp_output: Any
    norms: dict[str, nn.Module]


class Stream:
    """A model, its graph, and the modules where the residual stream is read and written.

    Args:
        model: a causal language model of a supported family, frozen and in eval mode.

    Raises:
        ExciseError: circuits cannot be found in this family; says why.
    """

    def __init__(self, model: Any) -> None:
        refuse_family(model.config)
        family = architecture(model.config)
        layers, self.heads, self.key_value_heads, self.head_dim = head_shape(model.config)
        self.model = model
        self.graph = Graph(layers, self.heads, is_parallel(model.config))
        self.rows = {slot: attention_rows(model.config)[role] for slot, role in ROLES.items()}
        self.transposed = family.transposed
        self.final_norm: Any = final_norm(model)
        self.layers = [
            Layer(
                attention=attention,
                projections={slot: layer.get_submodule(rows.path) for slot, rows in self.rows.items()},
                output=output,
                mlp=tuple(layer.get_submodule(path) for path in _mlp_path(family)),
                mlp_output=mlp_output,
                norms=layer_norms(model, index),
            )
            for index, (layer, attention, output, mlp_output) in enumerate(
                zip(
                    decoder_layers(model),
                    attentions(model),
                    attention_outputs(model),
                    output_projections(model),
                    strict=True,
                )
            )
        ]

    # --- weights ------------------------------------------------------------------------------------------------

    def weight(self, module: Any) -> torch.Tensor:
        """Of a linear map, ``[outputs, inputs]``."""
        weight: torch.Tensor = module.weight
        return weight.T if self.transposed else weight

    def of_heads(self, slot: str, value: torch.Tensor) -> torch.Tensor:
        """The rows of a projection's ``value`` that make one slot, ``[heads, head_dim, ...]``; a view if it can be."""
        ranges = self.rows[slot].heads
        first, last = ranges[0].start, ranges[-1].stop
        if last - first == len(ranges) * self.head_dim:
            return value[first:last].view(len(ranges), self.head_dim, *value.shape[1:])
        return value[torch.tensor([list(rows) for rows in ranges], device=value.device)]

    def project(self, layer: int, slot: str, normed: torch.Tensor) -> torch.Tensor:
        """Queries, keys or values of each head from an input of its own.

        Args:
            layer: the layer.
            slot: ``q``, ``k`` or ``v``.
            normed: ``[pairs, tokens, heads, hidden]``, after the norm.

        Returns:
            ``[pairs, tokens, heads, head_dim]``.
        """
        projection: Any = self.layers[layer].projections[slot]
        weight = self.of_heads(slot, self.weight(projection))
        grouped = _grouped(normed, len(weight))
        made = torch.einsum("btkgd,ked->btkge", grouped, weight)
        if projection.bias is not None:
            made = made + self.of_heads(slot, projection.bias)[:, None]
        return made.flatten(2, 3)

    def pulled_back(self, layer: int, slot: str, gradient: torch.Tensor) -> torch.Tensor:
        """Gradient at each head's normed input, ``[..., heads, hidden]``, from that at its queries, keys or values."""
        weight = self.of_heads(slot, self.weight(self.layers[layer].projections[slot]))
        grouped = _grouped(gradient, len(weight))
        return torch.einsum("btkge,ked->btkgd", grouped, weight).flatten(2, 3)

    def norm_attention(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """The norm before the attention; its hooks are passed by."""
        normed: torch.Tensor = self.layers[layer].norms["attention"].forward(value)
        return normed

    def head_writes(self, layer: int, heads: torch.Tensor) -> torch.Tensor:
        """What each head writes to the residual stream, ``[pairs, tokens, heads, hidden]``.

        Args:
            layer: the layer.
            heads: outputs of all heads of one run, ``[pairs, tokens, heads, head_dim]``.
        """
        parts = self.layers[layer]
        weight = self.weight(parts.output).reshape(-1, self.heads, self.head_dim)
        written = torch.einsum("bthe,dhe->bthd", heads, weight)
        if "attention_write" not in parts.norms:
            return written
        total = written.sum(2) if parts.output.bias is None else written.sum(2) + parts.output.bias
        return written * scale(parts.norms["attention_write"], total)[:, :, None]

    def mlp_write(self, layer: int, value: torch.Tensor) -> torch.Tensor:
        """What the MLP of a layer writes for what it reads, ``[..., hidden]``; hooks on its norms are passed by."""
        parts = self.layers[layer]
        value = parts.norms["mlp"].forward(value)
        for module in parts.mlp:
            value = module(value)
        return parts.norms["mlp_write"].forward(value) if "mlp_write" in parts.norms else value

    # --- hooks --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def tapped(self, taps: Taps, pairs: int) -> Iterator[None]:
        """Let ``taps`` look at and change every run inside the block; keys and values are ungrouped there.

        Args:
            taps: what to call.
            pairs: how many prompts the runs have.
        """
        with contextlib.ExitStack() as undo:
            for index, layer in enumerate(self.layers):
                self._tap_layer(index, layer, taps, pairs, undo)
            hook = self.final_norm.register_forward_pre_hook(lambda _, inputs: (taps.final(inputs[0]), *inputs[1:]))
            undo.callback(hook.remove)
            yield

    def _tap_layer(self, index: int, layer: Layer, taps: Taps, pairs: int, undo: contextlib.ExitStack) -> None:
        def observe(_: nn.Module, inputs: Any) -> None:
            taps.residual(index, inputs[0])

        def heads(_: nn.Module, inputs: Any) -> Any:
            value = inputs[0].unflatten(-1, (self.heads, self.head_dim))
            return (taps.heads(index, value).flatten(-2),)

        def attention_output(_: nn.Module, __: Any, value: torch.Tensor) -> torch.Tensor:
            return taps.attention_output(index, value)

        def mlp_input(_: nn.Module, inputs: Any) -> Any:
            value = inputs[0]  # OPT's has all tokens of all prompts in one dimension
            return (taps.mlp_input(index, value.view(pairs, -1, value.shape[-1])).view(value.shape),)

        def neurons(_: nn.Module, inputs: Any) -> Any:
            value = inputs[0]
            return (taps.neurons(index, value.view(pairs, -1, value.shape[-1])).view(value.shape),)

        def mlp_output(_: nn.Module, __: Any, value: torch.Tensor) -> torch.Tensor:
            return taps.mlp_output(index, value.view(pairs, -1, value.shape[-1])).view(value.shape)

        hooks = [
            layer.norms["attention"].register_forward_pre_hook(observe),
            layer.output.register_forward_pre_hook(heads),
            layer.norms.get("attention_write", layer.output).register_forward_hook(attention_output),
            layer.norms["mlp"].register_forward_pre_hook(mlp_input),
            layer.mlp_output.register_forward_pre_hook(neurons),
            layer.norms.get("mlp_write", layer.mlp_output).register_forward_hook(mlp_output),
        ]
        for path in dict.fromkeys(rows.path for rows in self.rows.values()):
            made = [slot for slot in SLOTS if self.rows[slot].path == path]

            def slots(_: nn.Module, __: Any, value: torch.Tensor, made: Sequence[str] = made) -> torch.Tensor:
                return self._retapped(index, made, value, taps)

            hooks.append(layer.projections[made[0]].register_forward_hook(slots))
        for hook in hooks:
            undo.callback(hook.remove)
        for name, ungrouped in (("num_key_value_groups", 1), ("num_key_value_heads", self.heads)):
            if hasattr(layer.attention, name):
                undo.callback(setattr, layer.attention, name, getattr(layer.attention, name))
                setattr(layer.attention, name, ungrouped)

    def _retapped(self, layer: int, slots: Sequence[str], value: torch.Tensor, taps: Taps) -> torch.Tensor:
        """The output of a projection, taken apart into slots of all heads, tapped, and joined in the same layout."""
        parts = []
        for slot in slots:
            ranges = self.rows[slot].heads
            columns = torch.tensor([list(rows) for rows in ranges], device=value.device)
            repeated = value[..., columns].repeat_interleave(self.heads // len(ranges), dim=-2)
            parts.append(taps.slot(layer, slot, repeated))
        if architecture(self.model.config).attention.layout == "interleaved":
            return torch.stack(parts, dim=-2).flatten(-3)
        return torch.cat([part.flatten(-2) for part in parts], dim=-1)


def _grouped(value: torch.Tensor, groups: int) -> torch.Tensor:
    """``[pairs, tokens, heads, n]`` -> ``[pairs, tokens, groups, heads per group, n]``."""
    return value.reshape(*value.shape[:2], groups, -1, value.shape[-1])


def _mlp_path(family: Architecture) -> tuple[str, ...]:
    """The MLP as modules to be applied one after the other: one module, or its three parts (OPT)."""
    parent = family.output.rpartition(".")[0]
    return (parent,) if parent else (*family.inputs, family.activation, family.output)


def scale(norm: Any, value: torch.Tensor) -> torch.Tensor:
    """What a root-mean-square norm multiplies ``value`` by, entry by entry: its weight / root mean square."""
    with torch.enable_grad():
        probe = value.detach().requires_grad_()
        frozen = NORMS[type(norm).__name__](norm, probe)  # linear in its input: the gradient of its sum is the scale
        (found,) = torch.autograd.grad(frozen.sum(), probe)
    return found


def refuse_family(config: Any) -> None:
    """Refuse a model whose heads cannot be told apart in the residual stream.

    Raises:
        ExciseError: it is one; says why.
    """
    family = architecture(config)
    reason = None
    if not family.causal:
        reason = "it is an encoder: there is no next token to measure"
    elif family.norms.attention is None:
        reason = "its queries and keys are normed over all heads at once, so one head's input moves every head"
    elif not norms_first(config):
        reason = "its norms come after the residual sum, so nothing that a head writes stays as it is"
    elif getattr(config, "reorder_and_upcast_attn", False) or getattr(config, "add_cross_attention", False):
        reason = "reorder_and_upcast_attn and add_cross_attention are not covered"
    if reason is not None:
        raise ExciseError(f"circuits of a {config.model_type} model like this one cannot be found: {reason}")


def logits_of(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Logits of normed states ``[..., hidden]``, soft-capped where the family does it."""
    logits: torch.Tensor = model.get_output_embeddings()(hidden)
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap
