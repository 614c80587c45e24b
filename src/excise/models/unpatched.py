"""Whether a model, or the classes of this process, compute what they seem to: nothing is patched for LRP.

It looks at the marks that a patch leaves, and imports no patch: judging a model does not depend on how units are found.
"""

import sys
from typing import TYPE_CHECKING, Any

from excise.errors import ExciseError

if TYPE_CHECKING:
    from torch import nn

ATTENTION = "excise-lrp"
"""Prefix of the names under which patched attention functions are registered with transformers."""


def is_patched(module: "nn.Module") -> bool:
    """This module's own computation is replaced by ours."""
    return any(hasattr(vars(module).get(slot), "excise_patch") for slot in ("forward", "_old_forward"))


def assert_unpatched(model: Any = None) -> None:
    """Make sure that gradients and dropout are what they seem: to be called before evaluating, or patching, a model.

    Args:
        model: a model to look at; without it only the process is looked at.

    Raises:
        ExciseError: lxt has patched classes of this process, or the model is inside ``patched``.
    """
    from torch import nn

    message = (
        "{} is patched for LRP: its gradients are relevances, and lxt switches dropout off. "
        "Attribution and evaluation run in separate processes; an LRP patch is never put on another."
    )
    suspects = [nn.Dropout, nn.LayerNorm, *({type(module) for module in model.modules()} if model is not None else ())]
    for kind in suspects:
        for attribute in ("forward", "_norm"):
            if getattr(getattr(kind, attribute, None), "__module__", "").startswith("lxt."):
                raise ExciseError(message.format(f"class {kind.__name__}"))
    for name, module in list(sys.modules.items()):
        attention = (
            getattr(module, "eager_attention_forward", None) if name.startswith("transformers.models.") else None
        )
        if getattr(attention, "__module__", "").startswith("lxt."):
            raise ExciseError(message.format(name))
    if model is None:
        return
    for name, part in model.named_modules():
        implementation = getattr(getattr(part, "config", None), "_attn_implementation", None) or ""
        if is_patched(part) or implementation.startswith(ATTENTION):
            raise ExciseError(message.format(name or "this model"))
