"""What a backward pass under the rules of LRP leaves behind at every module of a model."""

import contextlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

from excise.attribution.backward import embed, last_hidden
from excise.attribution.batches import Batch
from excise.attribution.lxt_patch import Patch
from excise.attribution.objectives import differentiated
from excise.models.parts import output_projections


@dataclass
class Attention:
    """One call of an attention function: tensors with their gradients, and its options."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor
    mask: torch.Tensor | None
    options: dict[str, Any]


@dataclass
class Record:
    """Everything a backward pass leaves behind.

    Attributes:
        objective: what was differentiated.
        embeddings: the token embeddings, with gradient.
        calls: module name -> (input, output), with gradients where they have one.
        positions: outputs of position embeddings, with gradients.
        attention: one entry a layer.
    """

    objective: torch.Tensor
    embeddings: torch.Tensor
    calls: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    positions: list[torch.Tensor] = field(default_factory=list)
    attention: list[Attention] = field(default_factory=list)


def share(tensor: torch.Tensor) -> torch.Tensor:
    """Relevance = activation x gradient; zero where no gradient arrives."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.detach() * tensor.grad


def record(model: Any, batch: Batch, patch: Patch, target: str = "continuation") -> Record:
    """Run a patched model forward and backward, with the gate x up rule, and keep what passes each module."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    found = Record(torch.tensor(0.0), embed(model, batch).requires_grad_())
    halves = {id(module) for module in output_projections(model)} if patch.halve else set()
    name_of_attention = model.config._attn_implementation
    inner = ALL_ATTENTION_FUNCTIONS[name_of_attention]

    def attention(module: nn.Module, query: Any, key: Any, value: Any, mask: Any = None, **options: Any) -> Any:
        # Views of their own, so that their gradients are those at the border of the attention function.
        query, key, value = (keep(tensor.view_as(tensor)) for tensor in (query, key, value))
        output, weights = inner(module, query, key, value, mask, **options)
        output = keep(output.view_as(output))
        found.attention.append(Attention(query, key, value, output, mask, {"module": module, **options}))
        return output, weights

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.requires_grad:
            tensor.retain_grad()
        return tensor

    with contextlib.ExitStack() as stack:
        AttentionInterface.register(name_of_attention, attention)
        stack.callback(AttentionInterface.register, name_of_attention, inner)
        for name, module in model.named_modules():
            if isinstance(module, nn.Embedding) and module is not model.get_input_embeddings():

                def position(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
                    found.positions.append(output.detach().requires_grad_())
                    return found.positions[-1]

                stack.callback(module.register_forward_hook(position).remove)
            elif not list(module.children()) and not isinstance(module, nn.Embedding | nn.Dropout):

                def call(_: nn.Module, inputs: Any, output: Any, name: str = name) -> Any:
                    if isinstance(output, torch.Tensor):
                        found.calls[name] = (inputs[0], keep(output))
                    return output

                def before(_: nn.Module, inputs: Any) -> Any:
                    if not isinstance(inputs[0] if inputs else None, torch.Tensor):
                        return None
                    own = keep(inputs[0].view_as(inputs[0]))
                    return (own, *inputs[1:])

                def halve(_: nn.Module, inputs: Any) -> Any:
                    return (inputs[0].detach() / 2 + inputs[0] / 2,)  # the same value, half the gradient

                if id(module) in halves:
                    stack.callback(module.register_forward_pre_hook(halve).remove)
                stack.callback(module.register_forward_pre_hook(before).remove)
                stack.callback(module.register_forward_hook(call).remove)
        hidden = last_hidden(model, batch, found.embeddings)
        found.objective = differentiated(model, hidden, batch, target, patch.elementwise)
        found.objective.backward()  # type: ignore[no-untyped-call]
    return found


def absorbed(model: Any, found: Record) -> float:
    """Relevance that ends in biases and position embeddings rather than in the tokens."""
    total = sum(float(share(tensor).sum()) for tensor in found.positions)
    for name, (_, output) in found.calls.items():
        bias = getattr(model.get_submodule(name), "bias", None)
        if bias is not None and output.grad is not None:
            total += float((output.grad * bias).sum())
    return total
