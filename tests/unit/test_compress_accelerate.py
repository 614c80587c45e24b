"""2:4 on a GPU: which maps have the pattern is checked on any machine; without a GPU nothing is pretended."""

import pytest
import torch

from excise.artefacts import read_json
from excise.compress.semi_structured import breaks, convert, maps_of
from excise.errors import ExciseError
from tests.unit.test_evaluation_families import make


def test_groups_that_keep_too_many_are_counted():
    torch.manual_seed(0)
    weight = torch.randn(5, 12) * (torch.rand(5, 12) < 0.5)
    naive = sum(
        sum(float(weight[row, start + k] != 0) for k in range(4)) > 2 for row in range(5) for start in (0, 4, 8)
    )
    assert breaks(weight) == naive > 0
    assert breaks(torch.tensor([[1.0, 1, 0, 0, 0, 2, 0, 2], [0, 0, 0, 0, 1, 0, 0, 0]])) == 0
    assert breaks(torch.zeros(3, 6)) == 3  # no kernel for a remainder


def test_the_stage_checks_anywhere_and_refuses_to_time_without_a_gpu(tiny_model, tmp_path, excise):
    half, figures = tmp_path / "half", tmp_path / "figures.json"
    excise("compress", tiny_model, "--method", "magnitude", "--pattern", "2:4", "--scope", "mlp", "--output", half)
    assert [path for _, path, count in maps_of(half) if not count] == 2 * [
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ]
    assert "6 of 14 maps keep 2 of every 4" in excise("accelerate", half, "--check-only", "--output", figures)
    found = read_json(figures)
    assert (found["maps"], found["fitting"]) == (14, 6)
    message = excise("accelerate", tiny_model, "--check-only", "--output", figures, fails=True)
    assert "no map keeps 2 of every 4 inputs (layer 0, self_attn.q_proj: " in message
    if not torch.cuda.is_available():
        assert "PyTorch sees no GPU" in excise("accelerate", half, "--output", figures, fails=True)


def test_what_the_kernel_does_not_read_is_named():
    with pytest.raises(ExciseError, match=r"layer 0, attn\.c_attn: weights are stored inputs first"):
        convert(make("gpt2"), {(0, "attn.c_attn")})
    with pytest.raises(ExciseError, match=r"layer 1, mlp\.up_proj: PyTorch cannot convert it"):
        convert(make("llama").bfloat16(), {(1, "mlp.up_proj")})  # on the CPU
