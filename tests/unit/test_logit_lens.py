"""Which tokens a neuron speaks for."""

import json

import pytest
import torch
import transformers

from excise.errors import ExciseError
from excise.logit_lens import promoted
from excise.models.loading import identity, load_model, load_tokenizer
from excise.models.parts import final_norm


def tiny(kind, **more):
    torch.manual_seed(0)
    common = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, **more}
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **common))
    for name, parameter in model.named_parameters():
        if "norm" in name or "ln_" in name:  # gains and biases that do something
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("kind", ["llama", "gemma2", "opt", "gpt2", "gpt_neox"])
def test_the_tokens_are_those_of_the_column_through_norm_and_head(kind):
    width = {"opt": {"ffn_dim": 24, "word_embed_proj_dim": 16}, "gpt2": {"n_inner": 24}}.get(
        kind, {"intermediate_size": 24}
    )
    more = {"head_dim": 4, "num_key_value_heads": 2} if kind == "gemma2" else {}
    model = tiny(kind, **width, **more)
    speaks_for, against = promoted(model, [(0, 3), (1, 23)], 5)
    column = {
        "llama": lambda layer, i: model.model.layers[layer].mlp.down_proj.weight[:, i],
        "gemma2": lambda layer, i: model.model.layers[layer].mlp.down_proj.weight[:, i],
        "opt": lambda layer, i: model.model.decoder.layers[layer].fc2.weight[:, i],
        "gpt2": lambda layer, i: model.transformer.h[layer].mlp.c_proj.weight[i],
        "gpt_neox": lambda layer, i: model.gpt_neox.layers[layer].mlp.dense_4h_to_h.weight[:, i],
    }[kind]
    head = model.get_output_embeddings().weight.detach().double()
    norm = final_norm(model)
    for row, (layer, neuron) in enumerate([(0, 3), (1, 23)]):
        write = column(layer, neuron).detach().double()
        if hasattr(norm, "bias"):  # LayerNorm removes the mean
            write = write - write.mean()
        gain = norm.weight.detach().double() + (kind == "gemma2")
        # The scale of a norm is positive and its bias is nothing that the neuron says: neither can change the order.
        logits = [float(sum(head[token][d] * gain[d] * write[d] for d in range(16))) for token in range(40)]
        order = sorted(range(40), key=lambda token: -logits[token])
        assert speaks_for[row] == order[:5]
        assert against[row] == order[::-1][:5]


def test_a_model_without_a_final_norm_is_refused():
    model = tiny("llama", intermediate_size=24)
    model.model.norm = torch.nn.Identity()
    with pytest.raises(ExciseError, match=r"model\.norm is Identity, not LlamaRMSNorm"):
        promoted(model, [(0, 0)], 1)


def test_the_stage_writes_words(excise, tiny_model, tmp_path):
    neurons = [{"layer": 1, "neuron": 5, "rank": 1}, {"layer": 0, "neuron": 7, "rank": 2}]
    body = {"meta": {"model": identity(tiny_model, "float32")}, "name": "some", "method": "random", "scale": 0.0}
    body |= {"unit": "neuron", "ablation": "zero"}
    body |= {"layers": 2, "units_per_layer": 24, "rows": neurons}
    selection, output = tmp_path / "s.json", tmp_path / "lens.json"
    selection.write_text(json.dumps(body))
    excise("logit-lens", "--model", tiny_model, "--units", selection, "--neurons", 1, "--tokens", 3, "--output", output)
    (row,) = json.loads(output.read_text())["neurons"]
    ((tokens,), _) = promoted(load_model(tiny_model, device="cpu"), [(1, 5)], 3)
    tokenizer = load_tokenizer(tiny_model)
    assert (row["layer"], row["neuron"], row["rank"]) == (1, 5, 1)
    assert row["for"] == [tokenizer.decode([token]) for token in tokens]
    body["meta"]["model"]["fingerprint"] = "0" * 64
    selection.write_text(json.dumps(body))
    assert "made for" in excise(
        "logit-lens", "--model", tiny_model, "--units", selection, "--output", output, fails=True
    )
