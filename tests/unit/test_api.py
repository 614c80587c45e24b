"""Pruning a model in memory from a unit list, as a user's own program does it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import excise
from excise.artefacts import write_json
from excise.errors import ExciseError
from excise.models.loading import identity
from tests.conftest import REPOSITORY, run_notebook
from tests.unit.test_data_hub import hub_folder


@pytest.fixture
def neurons(tiny_model, tmp_path):
    body = {
        "name": "lrp",
        "method": "lrp",
        "scale": 0.0,
        "unit": "neuron",
        "ablation": "zero",
        "layers": 2,
        "units_per_layer": 24,
    }
    body["rows"] = [{"layer": 0, "neuron": 3}, {"layer": 1, "neuron": 20}]
    path = tmp_path / "units.json"
    write_json(path, {"model": identity(tiny_model, "float32")}, body)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prunes_as_apply_does_and_restores_to_the_bit(excise, tiny_model, neurons, tmp_path, dtype):
    from excise import prune, restore

    excise("apply", neurons, tiny_model, "--output", tmp_path / "applied")
    wanted = AutoModelForCausalLM.from_pretrained(tmp_path / "applied", dtype=dtype).state_dict()
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    undo = prune(model, neurons)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name
    assert not torch.equal(model.model.layers[0].mlp.down_proj.weight, before["model.layers.0.mlp.down_proj.weight"])
    restore(undo)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_other_weights_are_refused_and_left_alone(tiny_model, other_model, neurons):
    model = AutoModelForCausalLM.from_pretrained(other_model)
    before = model.model.layers[0].mlp.down_proj.weight.clone()
    with pytest.raises(ExciseError, match="not for the model given"):
        excise.prune(model, neurons)
    assert torch.equal(model.model.layers[0].mlp.down_proj.weight, before)
    excise.prune(model, neurons, folder=tiny_model)  # the caller's word


def test_a_model_from_the_hubs_cache_is_recognised_without_the_hub(tiny_model, neurons, tmp_path):
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    hub_folder(tmp_path / "home", "model", "me/open", files)
    program = (
        "from transformers import AutoModelForCausalLM; import excise, sys\n"
        "model = AutoModelForCausalLM.from_pretrained('me/open')\n"
        "excise.prune(model, sys.argv[1])\n"
        "assert not model.model.layers[1].mlp.up_proj.weight[20].any()\n"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program, neurons], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_the_notebook_runs(tiny_model, neurons, tmp_path, monkeypatch, capsys):
    source = REPOSITORY / "examples/prune_a_model.ipynb"
    for made, name in (
        (tiny_model, "inputs/models/SmolLM2-135M-Instruct"),
        (neurons, "results/demo/SmolLM2-135M-Instruct/units/lrp-300.json"),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).symlink_to(made)
    (tmp_path / "examples").mkdir()
    monkeypatch.chdir(tmp_path / "examples")
    variables = run_notebook(source)
    original, pruned = re.findall(r"^(?:original|pruned): +(.+)$", capsys.readouterr().out, re.MULTILINE)
    assert original != pruned
    assert variables["model"].model.layers[0].mlp.down_proj.weight[:, 3].any()


def test_importing_excise_imports_no_torch():
    loaded = "import excise, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0
    assert Path(excise.__file__).name == "__init__.py"
