"""The rules of LRP as a patch of one loaded model, checked part by part and undone at the end.

Relevance by LRP is activation x *modified* gradient (Achtibat et al. 2024, "AttnLRP", ICML): each rule changes how
gradients pass one kind of module, and nothing changes in the forward pass. The rules themselves are lxt's
(``lxt.efficient.rules``); how they are put in place is ours. lxt replaces methods of classes for the whole process,
has no undo, and only warns of a patch that did not take. Here the methods of this model's own modules are replaced,
the attention function is registered through transformers' ``AttentionInterface``, and every module of the model must
be accounted for: a norm, an activation, an attention, a linear map, or a container in the family's row of the table.

==================  =============================================  ===========================================
part                ``attnlrp`` (Achtibat et al. 2024)             ``cp`` (Ali et al. 2022, as lxt does it)
==================  =============================================  ===========================================
linear map          gradient (LRP-0; no epsilon)                   the same
norm                variance a constant (identity rule)            the same
activation          output / input (identity rule, eq. 9)          gate: a constant; ungated: identity rule
gate x up           half to each factor (uniform rule, eq. 7)      all to up
attention           q, k: a quarter each; v: half (eq. 7)          q, k: constants (softmax detached); v: all
soft-capping        identity rule                                  identity rule
==================  =============================================  ===========================================

Two more rules are for circuits, where attention heads count (Jafari et al. 2025, "RelP", arXiv:2508.21258): norms,
activations and gate x up as in ``attnlrp``, and attention as in ``cp`` (``relp``), or with its plain gradient
(``relp-qk``), without which no relevance reaches queries and keys.

The half for gate x up is applied where neuron relevance is read, at the input of the output projection
(``backward.relevance``): so one rule serves separate and fused gates.
"""

import contextlib
import importlib
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from excise.attribution.norms import NORMS
from excise.attribution.objectives import Elementwise
from excise.errors import ExciseError, unknown
from excise.models.families import architecture
from excise.models.parts import activations, attentions
from excise.models.unpatched import ATTENTION, assert_unpatched, is_patched


@dataclass(frozen=True)
class Rule:
    """One column of the table.

    Attributes:
        attention: the function of ``lxt.efficient.patches`` that wraps an attention function; None: plain gradient.
        constant_gate: a gate is a constant, and up gets all; else identity rule, and half to each.
    """

    attention: str | None
    constant_gate: bool = False


RULES = {
    "attnlrp": Rule("wrap_attention_forward"),
    "cp": Rule("cp_wrap_attention_forward", constant_gate=True),
    "relp": Rule("cp_wrap_attention_forward"),
    "relp-qk": Rule(None),
}

Function = Callable[..., Any]


def _lxt() -> tuple[types.ModuleType, types.ModuleType]:
    """``lxt.efficient.rules`` and ``.patches``.

    lxt 2.1 imports its maps for BERT and ViT along with everything else, and these two need functions that
    transformers 5 no longer has, or torchvision; they are stood in for while lxt is imported.
    """
    names = {"lxt.efficient.models.bert": "modeling_bert", "lxt.efficient.models.vit_torch": "vision_transformer"}
    absent = {name: attribute for name, attribute in names.items() if name not in sys.modules}
    for name, attribute in absent.items():
        stub = types.ModuleType(name)
        vars(stub).update({attribute: types.ModuleType(f"{name}.{attribute}"), "attnLRP": {}, "cp_LRP": {}})
        sys.modules[name] = stub
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'zennit'")  # for vision models
            return importlib.import_module("lxt.efficient.rules"), importlib.import_module("lxt.efficient.patches")
    finally:
        for name in absent:
            del sys.modules[name]


class Patch:
    """A patch in force: what was replaced, and what of it has run.

    Attributes:
        elementwise: how an element-wise function outside the model's modules is to be applied.
        halve: the gradient is halved below the input of the output projections (uniform rule for gate x up).
    """

    def __init__(self, elementwise: Elementwise, halve: bool) -> None:
        self.elementwise, self.halve = elementwise, halve
        self.expected: dict[int, str] = {}
        self.ran: set[int] = set()

    def verify_ran(self) -> None:
        """Check, after a forward pass, that every patched part was called through its patch.

        Raises:
            ExciseError: one was not: its relevance would be a plain gradient. Names it.
        """
        missing = [name for key, name in self.expected.items() if key not in self.ran]
        if missing:
            raise ExciseError(
                f"the LRP patch of {missing[0]!r} (and {len(missing) - 1} more) was not used by the forward pass: "
                "relevance would silently be wrong. This model does something that the rules do not know."
            )


@contextlib.contextmanager
def patched(model: Any, rule: str) -> Iterator[Patch]:
    """Put the rules in place for the duration of the block.

    Args:
        model: a causal language model of a supported family, in eval mode.
        rule: one of ``RULES``.

    Raises:
        ExciseError: the model or a part of it is not covered, or is patched already.
    """
    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    assert_unpatched(model)
    parts = survey(model)
    rules, patches = _lxt()
    # A constant gate takes no share, so under CP there is nothing to halve.
    gated, constant_gate = architecture(model.config).gated, RULES[rule].constant_gate
    patch = Patch(elementwise=rules.identity_rule_implicit, halve=gated and not constant_gate)
    with contextlib.ExitStack() as undo:
        for name, module in parts["norm"].items():
            _override(module, NORMS[type(module).__name__], patch, name, undo)
        constant = gated and constant_gate
        for name, module in parts["activation"].items():
            function = _plain_forward(module)

            def activation(_: nn.Module, value: torch.Tensor, function: Function = function) -> Any:
                if constant:
                    return function(rules.stop_gradient(value))
                return rules.identity_rule_implicit(function, value)

            _override(module, activation, patch, name, undo)
        wrapper = RULES[rule].attention
        wrap = getattr(patches, wrapper) if wrapper is not None else _unwrapped
        _patch_attention(model, rule, wrap, rules.identity_rule_implicit, parts["attention"], patch, undo)
        _verify(parts)
        yield patch


def _unwrapped(function: Function) -> Function:
    """Attention with its plain gradient."""
    return function


def _plain_forward(module: nn.Module) -> Function:
    """The module's own forward; under accelerate's hooks the one that they wrap."""
    forward: Function = vars(module).get("_old_forward", module.forward)
    return forward


def _override(module: nn.Module, function: Function, patch: Patch, name: str, undo: contextlib.ExitStack) -> None:
    """Replace one module's forward by ``function(module, *inputs)`` until ``undo`` closes."""
    # accelerate's hooks call _old_forward, and keep it: there, and not in forward, is where the computation sits.
    slot = "_old_forward" if "_old_forward" in vars(module) else "forward"
    before = vars(module).get(slot)

    def forward(*inputs: torch.Tensor) -> Any:
        patch.ran.add(id(module))
        return function(module, *inputs)

    vars(forward)["excise_patch"] = True
    setattr(module, slot, forward)
    patch.expected[id(module)] = name
    undo.callback(delattr, module, slot) if before is None else undo.callback(setattr, module, slot, before)


def survey(model: Any) -> dict[str, dict[str, nn.Module]]:
    """Account for every module of a model.

    Returns:
        The modules that a rule is needed for, by kind (norm, activation, attention) and name.

    Raises:
        ExciseError: a module is of a kind that no rule is known for, or is in training mode, or float16. Names it.
    """
    from transformers.pytorch_utils import Conv1D

    family = architecture(model.config)
    kinds = {id(module): "activation" for module in activations(model)}
    kinds |= {id(module): "attention" for module in attentions(model)}
    linear = (nn.Linear, nn.Embedding, nn.Dropout, nn.ModuleList, Conv1D)
    parts: dict[str, dict[str, nn.Module]] = {"norm": {}, "activation": {}, "attention": {}}
    for name, module in model.named_modules():
        kind = type(module)
        where = f"{name or 'the model'} ({kind.__module__}.{kind.__qualname__})"
        if module.training:
            raise ExciseError(f"{where} is in training mode: dropout would be random. Call model.eval() first.")
        if id(module) in kinds:
            parts[kinds[id(module)]][name] = module
        elif kind.__name__ == family.norm and _official(kind, model):
            parts["norm"][name] = module
        elif kind not in linear and not (kind.__name__ in family.parts and _official(kind, model)):
            raise ExciseError(
                f"{where} is not a part of {model.config.model_type} that LRP has a rule for; its relevance would be "
                "wrong. Use another method (wanda, gradient, activation), or a model without it."
            )
    for name, parameter in model.named_parameters():
        refuse_float16(parameter.dtype, name)
    for name in parts["attention"]:
        config = model.config
        if getattr(config, "reorder_and_upcast_attn", False):
            raise ExciseError(f"{name}: reorder_and_upcast_attn bypasses the attention function that LRP patches")
    return parts


def refuse_float16(dtype: torch.dtype, where: str) -> None:
    """Refuse float16.

    Raises:
        ExciseError: the dtype is float16.
    """
    if dtype == torch.float16:
        raise ExciseError(
            f"{where}: float16 is refused: gradients of logits overflow its range of 65,504 and relevance becomes "
            "infinite or zero. Use --dtype bfloat16 (same size, range of float32) or float32."
        )


def _official(kind: type, model: Any) -> bool:
    """A class of torch itself or of the modeling file of the model's family, not a look-alike from elsewhere."""
    return kind.__module__ in {_modeling(model).__name__, "torch.nn.modules.normalization"}


def _modeling(model: Any) -> types.ModuleType:
    """The module of the model's family in transformers."""
    return sys.modules[type(model).__module__]


# --- attention --------------------------------------------------------------------------------------------------


def _patch_attention(
    model: Any,
    rule: str,
    wrap: Callable[[Function], Function],
    identity_rule: Elementwise,
    attention: dict[str, nn.Module],
    patch: Patch,
    undo: contextlib.ExitStack,
) -> None:
    """Give the model an attention function of its own: the one it used, wrapped by lxt, and with the same mask.

    The name registered with transformers is unique to this patch, so other models are not touched.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    implementation = model.config._attn_implementation
    modeling = _modeling(model)
    if implementation not in ("eager", "sdpa"):
        raise ExciseError(f"attention implementation {implementation!r} is not covered; use eager or sdpa")
    if getattr(model.config, "attn_logit_softcapping", None) is not None:
        if implementation != "eager":
            raise ExciseError(f"soft-capped attention needs the eager implementation, not {implementation!r}")
        function = wrap(softcapped_attention(modeling, identity_rule))
    elif implementation == "eager":
        function = wrap(modeling.eager_attention_forward)
    else:
        function = wrap(modeling.ALL_ATTENTION_FUNCTIONS[implementation])

    def forward(module: nn.Module, *inputs: Any, **options: Any) -> Any:
        patch.ran.add(id(module))
        return function(module, *inputs, **options)

    name = f"{ATTENTION}-{rule}-{id(patch)}-{implementation}"
    AttentionInterface.register(name, forward)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    undo.callback(AttentionInterface._global_mapping.pop, name)
    undo.callback(AttentionMaskInterface._global_mapping.pop, name)
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    for config in configs.values():
        undo.callback(setattr, config, "_attn_implementation", config._attn_implementation)
        config._attn_implementation = name
    patch.expected |= {id(module): part for part, module in attention.items()}


def softcapped_attention(modeling: types.ModuleType, identity_rule: Elementwise) -> Function:
    """The family's eager attention with ``cap * tanh(score / cap)`` under the identity rule.

    The capping sits inside the family's function; here it is taken out of it: scores are capped by the rule,
    and handed to the same masking, softmax and product.
    """

    def forward(
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float,
        softcap: float | None = None,
        **_: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if softcap is None:
            raise ExciseError("the attention module did not pass its soft-capping on")
        keys = modeling.repeat_kv(key, module.num_key_value_groups)
        values = modeling.repeat_kv(value, module.num_key_value_groups)
        scores = query @ keys.transpose(2, 3) * scaling  # [samples, heads, queries, keys]
        scores = identity_rule(lambda score: torch.tanh(score / softcap) * softcap, scores)
        if attention_mask is not None:
            scores = scores + attention_mask
        weights = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1).to(query.dtype)
        return (weights @ values).transpose(1, 2).contiguous(), weights

    return forward


# --- guards -----------------------------------------------------------------------------------------------------


def _verify(parts: dict[str, dict[str, nn.Module]]) -> None:
    """Check that the patch is in place on every part that needs it.

    Raises:
        ExciseError: it is not; names the part.
    """
    for name, module in {**parts["norm"], **parts["activation"]}.items():
        if not is_patched(module):
            raise ExciseError(f"the LRP patch of {name!r} did not take")
    for name, module in parts["attention"].items():
        config: Any = module.config
        if not config._attn_implementation.startswith(ATTENTION):
            raise ExciseError(f"the LRP patch of {name!r} did not take")
