"""What must not happen: each is caught, by name."""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from benchmarks.families import FAMILIES, samples, tiny
from benchmarks.gate import error
from excise.attribution import Options
from excise.attribution.backward import relevance
from excise.attribution.batches import pad
from excise.attribution.engine import check_causal, check_finite, measure
from excise.attribution.lxt_patch import patched
from excise.attribution.registry import MEASURED, measured
from excise.errors import ExciseError
from excise.models.parts import output_projections
from excise.models.unpatched import assert_unpatched
from tests.conftest import REPOSITORY


def run(model: Any, method: str = "lrp", **options: Any) -> torch.Tensor:
    with measured(method).measuring(model, Options(**options)) as measuring:
        return next(iter(measuring(pad(samples())).values()))


def whole(model: Any, method: str = "lrp") -> Any:
    return measure(model, measured(method), [pad(samples())], range(1), options=Options(), meta={"method": method})


# --- numbers ------------------------------------------------------------------------------------------------------


def test_float16_is_refused_with_the_reason() -> None:
    with pytest.raises(ExciseError, match=r"float16 is refused.*overflow.*bfloat16"):
        run(tiny("llama", dtype=torch.float16))


def test_float16_of_a_single_parameter_is_refused() -> None:
    model = tiny("llama")
    model.lm_head.half()
    with pytest.raises(ExciseError, match=r"lm_head.weight: float16"):
        run(model)


def test_float16_does_overflow() -> None:
    """The reason given is a real one: the same model in float16 loses relevance to infinity."""
    model = tiny("llama")
    model.lm_head.weight.mul_(2e5).clamp_(-6e4, 6e4)  # representable in float16 themselves
    assert torch.isfinite(run(model)).all()
    values = relevance(model.to(torch.float16), pad(samples()), objective="continuation-sum")
    assert not torch.isfinite(values).all()


@pytest.mark.parametrize("method", MEASURED)
def test_nan_is_named_by_layer_and_sample(method: str) -> None:
    model = tiny("llama")
    model.model.layers[1].mlp.up_proj.weight[3] = float("nan")
    with pytest.raises(ExciseError, match=r"of sample 's7' is nan at layer [012], index"):
        whole(model, method)


def test_infinity_is_named() -> None:
    values = torch.zeros(3, 2, 4)
    values[1, 0, 2] = torch.inf
    with pytest.raises(ExciseError, match=r"x of sample 's9' is inf at layer 0, index 2 \(1 values"):
        check_finite({"x": values}, pad(samples()))


def test_zero_relevance_everywhere_is_refused() -> None:
    model = tiny("llama")
    model.lm_head.weight.zero_()
    with pytest.raises(ExciseError, match="sample 's7': the relevance of every unit is zero"):
        run(model)


def test_a_forward_pass_cut_above_a_layer_is_refused() -> None:
    model = tiny("llama")
    model.model.layers[2].register_forward_pre_hook(lambda _, inputs: (inputs[0].detach().requires_grad_(),))
    with pytest.raises((ExciseError, RuntimeError), match=r"layer 0 got no gradient|not have been used"):
        run(model)


# --- mask, positions, dropout ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_attention_without_its_causal_mask_is_caught(family: str) -> None:
    model = tiny(family, attention="eager")
    AttentionMaskInterface.register("maskless", lambda *_, **__: None)
    AttentionInterface.register("maskless", sys.modules[type(model).__module__].eager_attention_forward)
    model.config._attn_implementation = "maskless"
    with pytest.raises(ExciseError, match=r"depends on a later token.*lost its mask"):
        check_causal(model, pad(samples()))
    with pytest.raises(ExciseError, match="lost its mask"):
        whole(model, "wanda")
    with pytest.raises(ExciseError, match="'maskless' is not covered"):
        whole(model)


def test_relevance_of_padding_is_caught() -> None:
    model = tiny("llama", attention="eager")
    AttentionMaskInterface.register("maskless", lambda *_, **__: None)
    AttentionInterface.register("maskless", sys.modules[type(model).__module__].eager_attention_forward)
    model.config._attn_implementation = "maskless"
    with pytest.raises(ExciseError, match="a padding token has relevance"):
        run(model, "gradient")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_patched_model_keeps_its_mask(family: str) -> None:
    model = tiny(family)
    with patched(model, "attnlrp"):
        check_causal(model, pad(samples()))


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_of_padded_samples_are_their_own(family: str) -> None:
    """Padding is on the right, so each sample starts at position 0; from any other position it would mean another."""
    model, sample, batch = tiny(family), samples()[0], pad(samples())
    assert batch.mask[0].tolist() == [True] * 7 + [False] * 4
    assert batch.position_ids[0, :7].tolist() == list(range(7))
    alone = relevance(model, pad([sample]), objective="last-max")
    # Gemma 2's attention has its softmax in float32, whose sum over more columns some processors round otherwise.
    tolerance = 1e-5 if family == "gemma2" else 1e-9
    assert error(relevance(model, batch, objective="last-max")[:1], alone) < tolerance
    if family in ("opt", "gpt2"):  # learned positions: what left padding without position ids would do
        shifted = dataclasses.replace(pad([sample]), position_ids=pad([sample]).position_ids + 4)
        assert error(relevance(model, shifted, objective="last-max"), alone) > 1e-3


@pytest.mark.parametrize("method", MEASURED)
def test_dropout_in_training_mode_is_caught(method: str) -> None:
    model = tiny("gpt2")
    model.transformer.h[1].attn.resid_dropout.train()
    with pytest.raises(ExciseError, match=r"attn.resid_dropout.*in training mode"):
        whole(model, method)


def test_training_mode_is_caught_by_the_patch_too() -> None:
    with pytest.raises(ExciseError, match="in training mode"):
        run(tiny("opt").train())


# --- the patch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rule", ["attnlrp", "cp"])
def test_the_patch_is_undone(family: str, rule: str) -> None:
    model = tiny(family)
    batch = pad(samples())
    before = relevance(model, batch, objective="continuation")
    implementation = model.config._attn_implementation
    names = set(AttentionInterface._global_mapping) | set(AttentionMaskInterface._global_mapping)
    with patched(model, rule), pytest.raises(ExciseError, match="is patched for LRP"):
        assert_unpatched(model)
    assert_unpatched(model)
    assert_unpatched()
    assert model.config._attn_implementation == implementation
    assert set(AttentionInterface._global_mapping) | set(AttentionMaskInterface._global_mapping) == names
    assert torch.equal(relevance(model, batch, objective="continuation"), before)


def test_the_patch_is_undone_after_an_error() -> None:
    model = tiny("llama")
    with pytest.raises(ZeroDivisionError), patched(model, "attnlrp"):
        _ = 1 / 0
    assert_unpatched(model)


def test_patching_twice_is_refused() -> None:
    model = tiny("llama")
    with patched(model, "attnlrp"), pytest.raises(ExciseError, match="patched for LRP"), patched(model, "cp"):
        pass


@pytest.mark.parametrize("method", ["gradient", "wanda", "activation", "aura"])
def test_methods_without_rules_refuse_a_patched_model(method: str) -> None:
    model = tiny("llama")
    with patched(model, "attnlrp"), pytest.raises(ExciseError, match="patched for LRP"):
        whole(model, method)


def test_two_families_in_one_process_do_not_touch_each_other() -> None:
    models = {family: tiny(family) for family in FAMILIES}
    alone = {family: run(model) for family, model in models.items()}
    plain = {family: run(model, "gradient") for family, model in models.items()}
    llama = models["llama"]
    with patched(llama, "attnlrp"):
        for family, model in models.items():
            if family != "llama":
                assert_unpatched(model)
                assert torch.equal(run(model, "gradient"), plain[family])
                assert torch.equal(run(model), alone[family])


def test_an_unknown_family_is_refused_by_name() -> None:
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    config = GPTNeoConfig(
        vocab_size=61, hidden_size=16, num_layers=2, num_heads=2, attention_types=[[["global"], 2]], window_size=4
    )
    with pytest.raises(ExciseError, match=r"unknown model type 'gpt_neo'.*gpt_neox"):
        run(GPTNeoForCausalLM(config).eval())


class Gate(nn.Module):
    """A module that no rule is known for."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.inner(hidden) * torch.sigmoid(hidden.mean())


def test_an_unknown_part_is_refused_by_name() -> None:
    model = tiny("llama")
    model.model.layers[1].mlp.up_proj = Gate(model.model.layers[1].mlp.up_proj).eval()
    with pytest.raises(ExciseError, match=r"model\.layers\.1\.mlp\.up_proj \(.*Gate\) is not a part of llama"):
        run(model)


def test_a_norm_of_the_same_name_from_elsewhere_is_refused() -> None:
    model = tiny("llama")
    look_alike = type("LlamaRMSNorm", (nn.Module,), {"forward": lambda _, hidden: hidden, "__module__": "elsewhere"})
    model.model.norm = look_alike().eval()
    with pytest.raises(ExciseError, match=r"model\.norm \(elsewhere\.LlamaRMSNorm\)"):
        run(model)


def test_a_part_that_does_not_run_through_its_patch_is_caught() -> None:
    model = tiny("llama")
    layer = model.model.layers[1]
    layer.mlp.forward = lambda hidden: layer.mlp.down_proj(
        nn.functional.silu(layer.mlp.gate_proj(hidden)) * layer.mlp.up_proj(hidden)
    )
    with pytest.raises(ExciseError, match=r"'model\.layers\.1\.mlp\.act_fn' \(and 0 more\) was not used"):
        run(model)


def test_attention_that_goes_past_the_registered_function_is_caught() -> None:
    model = tiny("llama", attention="eager")
    attention = model.model.layers[2].self_attn
    own = type(model.config)(**model.config.to_dict())
    own._attn_implementation = "eager"
    original = type(attention).forward

    def past(*inputs: Any, **options: Any) -> Any:
        attention.config = own
        return original(attention, *inputs, **options)

    attention.forward = past
    with pytest.raises(ExciseError, match=r"'model\.layers\.2\.self_attn' \(and 0 more\) was not used"):
        run(model)


def test_upcast_attention_of_gpt2_is_refused() -> None:
    with pytest.raises(ExciseError, match="reorder_and_upcast_attn"):
        run(tiny("gpt2", reorder_and_upcast_attn=True))


def test_accelerate_hooks_do_not_shadow_the_patch() -> None:
    """A model spread over devices keeps each module's forward inside a hook, where a class patch has no effect."""
    from accelerate import dispatch_model

    plain = run(tiny("llama"))
    spread = dispatch_model(tiny("llama"), device_map={"": "cpu"}, force_hooks=True)
    assert hasattr(spread.model.norm, "_old_forward")
    assert torch.equal(run(spread), plain)
    assert_unpatched(spread)


@pytest.mark.parametrize("method", [method for method in MEASURED if method != "lrp-abs-weights"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "opt", "gpt2", "phi3"])
@pytest.mark.parametrize("recompute", [False, True])
def test_an_offloaded_model_gives_the_same(family: str, method: str, recompute: bool) -> None:
    """Weights that are not there between passes, as offloading leaves them."""
    from accelerate import cpu_offload

    expected = whole(tiny(family), method).totals()
    away = cpu_offload(tiny(family), execution_device=torch.device("cpu"))
    assert output_projections(away)[0].weight.is_meta
    options = Options(recompute=recompute)
    found = measure(away, measured(method), [pad(samples())], range(1), options=options, meta={"method": method})
    for name, value in found.totals().items():
        assert error(value, expected[name]) < 1e-12
    assert_unpatched(away)


def test_weight_scores_of_an_offloaded_model_are_refused() -> None:
    from accelerate import cpu_offload

    with pytest.raises(ExciseError, match="needs the weights in memory"):
        whole(cpu_offload(tiny("llama"), execution_device=torch.device("cpu")), "lrp-abs-weights")


LXT_PATCHED = """
import torch
from benchmarks.agreement import lxt_patch
from benchmarks.families import tiny, samples
from excise.attribution import Options
from excise.attribution.registry import measured
from excise.attribution.batches import pad
from excise.models.unpatched import assert_unpatched
from excise.errors import ExciseError

llama, other = tiny("llama", dtype=torch.float32), tiny("opt")
lxt_patch(llama, "lrp")
for call in (
    lambda: assert_unpatched(),
    lambda: assert_unpatched(llama),
    lambda: measured("lrp").measuring(other, Options()).__enter__(),
    lambda: measured("wanda").measuring(llama, Options()).__enter__(),
):
    try:
        call()
    except ExciseError as error:
        print("caught:", error)
"""


def test_a_process_patched_by_lxt_is_caught_for_evaluation_and_for_any_second_family() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LXT_PATCHED], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout.count("caught: class Dropout is patched for LRP") == 4, done.stdout + done.stderr


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """No test leaves its attention functions behind."""
    yield
    for interface in (AttentionInterface, AttentionMaskInterface):
        interface._global_mapping.pop("maskless", None)
    assert_unpatched()
