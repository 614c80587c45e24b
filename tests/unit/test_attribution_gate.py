"""Families x checks (benchmarks.gate), and a proof that each check can fail."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from benchmarks import gate
from benchmarks.agreement import MAPS, METHODS
from excise.attribution import lxt_patch
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("check", gate.CHECKS)
@pytest.mark.parametrize("family", gate.FAMILIES)
def test_gate(family: str, check: str) -> None:
    error = gate.CHECKS[check](family)
    if error is None:
        assert (family, check) == ("gemma2", "eager = sdpa")
        return
    assert error <= gate.TOLERANCES.get(check, gate.TOLERANCE)


@pytest.mark.parametrize("family", ["llama", "gemma", "olmo2", "gpt_neox"])
def test_a_norm_left_as_it_is_breaks_the_gate(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {name: lambda module, hidden: type(module).forward(module, hidden) for name in lxt_patch.NORMS}
    monkeypatch.setattr(lxt_patch, "NORMS", plain)
    assert gate.check_conservation(family) > 1e-3
    assert gate.check_rules(family) > 1e-3


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2"])
@pytest.mark.parametrize("rule", ["wrap_attention_forward", "cp_wrap_attention_forward"])
def test_attention_left_as_it_is_breaks_the_gate(family: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, patches = lxt_patch._lxt()
    monkeypatch.setattr(patches, rule, lambda function: function)
    if rule.startswith("cp"):
        assert gate.check_conservation(family) > 1e-3
    else:
        assert gate.check_rules(family) > 1e-3


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_an_activation_left_as_it_is_breaks_the_gate(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rules, _ = lxt_patch._lxt()
    monkeypatch.setattr(rules, "identity_rule_implicit", lambda function, value: function(value))
    if family == "opt":  # relu: its gradient is the identity rule already
        assert gate.check_rules(family) < 1e-8
    else:
        assert gate.check_rules(family) > 1e-3


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_a_product_left_as_it_is_breaks_the_gate(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = lxt_patch.Patch.__init__

    def whole(self: lxt_patch.Patch, elementwise: Any, halve: bool) -> None:
        original(self, elementwise, halve=False)

    monkeypatch.setattr(lxt_patch.Patch, "__init__", whole)
    assert gate.check_rules(family) > 1e-3
    assert gate.check_leak(family) > 1e-3


def test_weight_sum_of_up_is_half_of_the_neuron_relevance() -> None:
    """METHODS: row sums of up and of gate are the relevance of their outputs, each half of the neuron's."""
    model, batch = gate.tiny("llama", mlp_bias=False), gate.pad(gate.samples())
    projections = [layer.mlp for layer in model.model.layers]
    with lxt_patch.patched(model, "attnlrp") as patch:
        weights = [(mlp.up_proj.weight.requires_grad_(), mlp.gate_proj.weight.requires_grad_()) for mlp in projections]
        gate.record(model, batch, patch)
        model.requires_grad_(False)
        neurons = gate.relevance(
            model, batch, objective="continuation", elementwise=patch.elementwise, halve=patch.halve
        ).sum(0)
    for pair, expected in zip(weights, neurons, strict=True):
        for weight in pair:
            assert gate.error((weight * weight.grad).sum(1).detach() * 2, expected) < 1e-8


@pytest.mark.parametrize(("family", "method"), [("llama", "lrp"), ("gemma3_text", "lrp-cp"), ("gpt2", "lrp")])
def test_agreement_with_lxt(family: str, method: str) -> None:
    """In a process of its own: lxt's patch has no undo."""
    assert family in MAPS
    assert method in METHODS
    command = [sys.executable, "-m", "benchmarks.agreement", "--family", family, "--method", method]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_documentation_has_the_table_of_every_family_and_check() -> None:
    text = (REPOSITORY / "docs" / "attribution.md").read_text(encoding="utf-8")
    assert "| family | " + " | ".join(gate.CHECKS) + " |" in text
    for family in gate.FAMILIES:
        assert f"\n| {family} | " in text


def test_float32_agrees_with_float64() -> None:
    results = []
    for dtype in (torch.float32, torch.float64):
        model = gate.tiny("llama", dtype=dtype)
        with gate.measured("lrp").measuring(model, gate.Options()) as measure:
            results.append(measure(gate.pad(gate.samples()))["relevance"])
    assert results[0].dtype == torch.float64
    assert gate.error(*results) < 1e-5


def test_bfloat16_is_close() -> None:
    results = []
    for dtype in (torch.bfloat16, torch.float64):
        model = gate.tiny("llama", dtype=dtype)
        with gate.measured("lrp").measuring(model, gate.Options()) as measure:
            results.append(measure(gate.pad(gate.samples()))["relevance"])
    assert gate.error(*results) < 0.1
