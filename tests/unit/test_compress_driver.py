"""The driver: folders that load as they were computed, in every family; one layer in memory; killed and taken up."""

import json
import multiprocessing
import os
import shutil
import signal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from excise.artefacts import read_json, write_tensors
from excise.compress import driver, measure
from excise.compress.edit import Prune
from excise.compress.patterns import parse
from excise.compress.recipe import Recipe
from excise.compress.streaming import Checkpoint, embed, hollow
from excise.errors import ExciseError
from excise.models.families import ARCHITECTURES
from excise.models.loading import load_model
from excise.models.parts import decoder_layers, linear_maps
from tests.conftest import make_model
from tests.unit.test_evaluation_families import make

CAUSAL = sorted(name for name, family in ARCHITECTURES.items() if family.causal)
WINDOWS = torch.arange(2, 62).reshape(5, 12)
SIDE = ("config.json", "tokenizer.json", "tokenizer_config.json")


def plan(method="wanda", pattern="0.5", **settings):
    group = "row" if method == "wanda" else "matrix"
    recipe = Recipe(method, parse(pattern, group), settings.pop("reconstruct", "none"))
    change = Prune(recipe, settings.pop("scope", "all"))
    return driver.Run(change, WINDOWS if change.needs in driver.CALIBRATED else None, **settings)


def compress(folder, output, run=None, meta=None, done=lambda: None):
    driver.compress(folder, output, run or plan(), meta=meta or {"stage": "test"}, source={"id": "tiny"}, done=done)
    return load_model(output)


def tensors(folder):
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module", params=CAUSAL)
def family(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "model"
    make(request.param).float().save_pretrained(folder)
    return folder


def naive_wanda(model, windows):
    """Wanda with the whole model in memory: each layer on the inputs that the pruned layers before it give."""
    for number in range(len(decoder_layers(model))):
        maps = linear_maps(model, number)
        sums = {name: torch.zeros(()) for name in maps}

        def noting(name, sums=sums):
            def note(_, given):
                sums[name] = sums[name] + given[0].reshape(-1, given[0].shape[-1]).double().square().sum(0)

            return note

        hooks = [module.register_forward_pre_hook(noting(name)) for name, module in maps.items()]
        for window in windows:
            model(input_ids=window[None], use_cache=False)
        for hook in hooks:
            hook.remove()
        for name, module in maps.items():
            conv = type(module).__name__ == "Conv1D"
            weight = module.weight.T if conv else module.weight
            order = (weight.abs() * sums[name].sqrt()).argsort(dim=1, stable=True)[:, : weight.shape[1] // 2]
            pruned = weight.scatter(1, order, 0.0)
            module.weight.copy_(pruned.T if conv else pruned)
    return model


def test_every_family_equals_the_whole_model_in_memory(family, tmp_path):
    with torch.no_grad():
        expected = naive_wanda(load_model(family), WINDOWS)
    found = compress(family, tmp_path / "out")
    for (name, ours), theirs in zip(found.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_reload_gives_the_logits_of_the_run(tiny_model, tmp_path, monkeypatch):
    states = []
    monkeypatch.setattr(
        driver, "forward", lambda *given: states.append(measure.forward(*given)) or states[-1], raising=True
    )
    model = compress(tiny_model, tmp_path / "out", plan("sparsegpt", "2:4"))
    with torch.inference_mode():
        for window, last in zip(WINDOWS, states[-1], strict=True):
            expected = model.lm_head(model.model.norm(last[None]))
            assert torch.equal(model(input_ids=window[None]).logits, expected)


@pytest.mark.parametrize("method", ["random", "magnitude", "sparsegpt", "alps"])
def test_only_the_maps_change_and_counts_are_exact(method, tiny_model, tmp_path):
    compress(tiny_model, tmp_path / "out", plan(method, "2:4"))
    before, after = tensors(tiny_model), tensors(tmp_path / "out")
    manifest = read_json(tmp_path / "out" / driver.MANIFEST)
    assert before.keys() == after.keys()
    rows = {f"model.layers.{row['layer']}.{row['map']}.weight": row for row in manifest["rows"]}
    assert len(rows) == 14
    for name, tensor in before.items():
        if name not in rows:
            assert torch.equal(tensor, after[name])
            continue
        assert ((after[name] == 0).reshape(-1, 4).sum(1) == 2).all()
        assert rows[name]["zeros"] == rows[name]["zeros_made"] == rows[name]["weights"] // 2
    assert manifest["total"]["zeros_made"] * 2 == manifest["total"]["weights"]
    assert all(("error" in row) == (method in ("sparsegpt", "alps")) for row in manifest["rows"])
    for name in SIDE:
        assert (tmp_path / "out" / name).read_bytes() == (tiny_model / name).read_bytes()


def test_stored_dtype_stays_and_zeros_that_were_there_are_told_apart(tiny_model, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(tiny_model, folder)
    halves = {name: tensor.bfloat16() for name, tensor in tensors(folder).items()}
    halves["model.layers.0.self_attn.q_proj.weight"][:, :4] = 0
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    compress(folder, tmp_path / "out", plan("alps", "0.5"))
    assert {tensor.dtype for tensor in tensors(tmp_path / "out").values()} == {torch.bfloat16}
    row = read_json(tmp_path / "out" / driver.MANIFEST)["rows"][0]
    assert row["zeros_before"] == 64
    assert row["zeros_made"] + row["zeros_before"] == row["zeros"] == 128


def test_scope_and_one_shot(tiny_model, tmp_path):
    before = tensors(tiny_model)
    for scope, part in (("attention", "self_attn"), ("mlp", "mlp")):
        compress(tiny_model, tmp_path / scope, plan(scope=scope))
        after = tensors(tmp_path / scope)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {name for name in before if f".{part}." in name}
    compress(tiny_model, tmp_path / "sequential", plan())
    compress(tiny_model, tmp_path / "one-shot", plan(sequential=False))
    one, other = tensors(tmp_path / "sequential"), tensors(tmp_path / "one-shot")
    for name in one:  # the first layer is the same, the second one sees other inputs
        if ".layers.0." in name:
            assert torch.equal(one[name], other[name])
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("scope", ["all", "attention"])
def test_a_pass_that_only_measures_ends_before_the_last_map(family, scope):
    checkpoint = Checkpoint(family)
    model = hollow(checkpoint, torch.float32)
    hidden, calls = embed(model, WINDOWS, checkpoint)
    layer = decoder_layers(model)[0]
    driver.fill(layer, checkpoint.read(checkpoint.of_layer(0)), torch.float32, torch.device("cpu"))
    maps = Prune(Recipe("wanda", parse("0.5", "row")), scope).maps(model, 0)
    ran = []
    hooks = [part.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, part in maps.items()]
    whole, after = measure.measure(layer, maps, hidden, calls[0], gram=True)
    assert after.shape == hidden.shape
    every, ran[:] = list(ran), []
    short, nothing = measure.measure(layer, maps, hidden, calls[0], gram=True, outputs=False)
    for hook in hooks:
        hook.remove()
    assert nothing is None
    assert len(ran) == len(every) - len(WINDOWS)  # one map a window is not multiplied
    assert whole.keys() == short.keys() == maps.keys()
    for name in maps:
        assert torch.equal(whole[name].gram, short[name].gram)
        assert whole[name].tokens == short[name].tokens == WINDOWS.numel()


def deep(folder, layers):
    return make_model(folder, num_hidden_layers=layers)


def test_one_layer_is_in_memory_whatever_the_depth(tmp_path, monkeypatch):
    loaded = []

    def counting(model, *rest):
        result = driver_one_layer(model, *rest)
        loaded.append(sum(not p.is_meta for layer in decoder_layers(model) for p in layer.parameters()))
        return result

    def measuring(layer, *rest, **named):
        loaded.append(sum(not p.is_meta for p in layer.parameters()))
        return measure.measure(layer, *rest, **named)

    driver_one_layer = driver._one_layer
    monkeypatch.setattr(driver, "_one_layer", counting)
    monkeypatch.setattr(driver, "measure", measuring)
    compress(deep(tmp_path / "deep", 7), tmp_path / "out")
    assert loaded == [9, 0] * 7  # nine tensors of one layer while it is measured, none after


@pytest.mark.parametrize("method", ["wanda", "magnitude"])
def test_a_killed_run_goes_on_to_the_same_bytes(method, tmp_path):
    folder = deep(tmp_path / "deep", 4)
    compress(folder, tmp_path / "whole", plan(method))

    def killed():
        states = []

        def write(*given):
            states.append(given)
            if len(states) == 3:  # the third layer's shard is written, its state is not
                os.kill(os.getpid(), signal.SIGKILL)
            write_tensors(*given)

        driver.write_tensors = write  # in the child alone
        compress(folder, tmp_path / "again", plan(method))

    child = multiprocessing.get_context("fork").Process(target=killed)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not (tmp_path / "again").exists()
    begun = []
    compress(folder, tmp_path / "again", plan(method), done=lambda: begun.append(1))
    assert len(begun) == 2
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")
    assert not list(tmp_path.glob(".again*"))


def test_an_unfinished_folder_of_other_settings_is_begun_again(tiny_model, tmp_path):
    def stop():
        raise KeyboardInterrupt

    begun = []
    with pytest.raises(KeyboardInterrupt):
        compress(
            tiny_model, tmp_path / "out", meta={"seed": 1}, done=lambda: begun.append(1) or len(begun) < 2 or stop()
        )
    compress(tiny_model, tmp_path / "out", meta={"seed": 2}, done=lambda: begun.append(1))
    assert len(begun) == 4


def test_layers_are_called_as_the_model_calls_them(tmp_path):
    """Gemma 3 gives its layers masks and rotary embeddings by their type."""
    folder = tmp_path / "gemma"
    whole = make("gemma3_text").float()
    whole.config.layer_types = ["sliding_attention", "full_attention"]
    whole.save_pretrained(folder)
    checkpoint = Checkpoint(folder)
    _, calls = embed(hollow(checkpoint, torch.float32), WINDOWS, checkpoint)
    masks = [named["attention_mask"] for _, named in calls]
    assert not torch.equal(*[named["position_embeddings"][0] for _, named in calls])
    assert masks[0] is not masks[1]


def test_refusals(tiny_model, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_model, folder)
    with pytest.raises(ExciseError, match="16 inputs, which 3 does not divide"):
        compress(tiny_model, tmp_path / "out", plan(pattern="1:3"))
    with pytest.raises(ExciseError, match="unknown scope 'heads'"):
        plan(scope="heads")
    stored = tensors(folder)
    stored["model.layers.1.mlp.down_proj.weight"][0, 0] = torch.nan
    save_file(stored, folder / "model.safetensors")
    with pytest.raises(ExciseError, match=r"layer 1, mlp\.down_proj: a weight or a calibration input is not finite"):
        compress(folder, tmp_path / "out")
    del stored["model.layers.1.mlp.down_proj.weight"]
    save_file(stored, folder / "model.safetensors")
    with pytest.raises(ExciseError, match=r"nothing for layers\.1\.mlp\.down_proj\.weight"):
        compress(folder, tmp_path / "out2")
    config = json.loads((tiny_model / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(ExciseError, match="quantised"):
        compress(folder, tmp_path / "out3")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(ExciseError, match="was not made by excise"):
        compress(tiny_model, tmp_path / "mine")
    compress(tiny_model, tmp_path / "half", plan("magnitude", "2:4"))
    with pytest.raises(ExciseError, match="every weight that the pattern prunes is zero already"):
        compress(tmp_path / "half", tmp_path / "again", plan("magnitude", "2:4"))


def test_the_index_is_as_transformers_writes_it(tiny_model, tmp_path):
    compress(tiny_model, tmp_path / "out")
    index = read_json(tmp_path / "out" / "model.safetensors.index.json")
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors(tiny_model).values())
    for name, shard in index["weight_map"].items():
        assert name in load_file(tmp_path / "out" / shard)


def test_the_stage(tiny_model, tmp_path, words, excise):
    text = tmp_path / "text.txt"
    text.write_text(" ".join(words * 200))
    options = ["--calibration", text, "--windows", 4, "--seqlen", 32, "--threads", 1]
    said = excise("compress", tiny_model, "--pattern", "2:4", *options, "--output", tmp_path / "out")
    assert "1920 of 3840 weights pruned" in said
    assert "128 calibration tokens for maps of up to 24 inputs" in said
    meta = read_json(tmp_path / "out" / driver.MANIFEST)["meta"]
    assert meta["settings"]["pattern"] == "2 of 4 kept"
    assert meta["calibration"]["windows"] == 4
    with safe_open(tmp_path / "out" / "model-00001-of-00003.safetensors", "pt") as file:
        assert all(".layers.0." in name for name in file.keys())  # noqa: SIM118
    for broken, message in (
        (["--method", "wanda"], "--calibration: this method measures"),
        (["--group", "layer", *options], "alps prunes each matrix by itself"),
        (["--reconstruct", "ols", *options], "'ols' is not one of none, obs, least-squares"),
        ([*options, "--windows", 10**6], "windows of 32; give a"),
        ([*options, "--device", "mps"], "no float64"),
        ([*options, "--seqlen", 512], "more than the model's 256 positions"),
    ):
        assert message in excise("compress", tiny_model, *broken, "--output", tmp_path / "no", fails=True)
