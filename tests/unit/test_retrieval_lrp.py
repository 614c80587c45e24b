"""LRP in encoders: the rules against a BERT written out by hand, conservation, and padding (in test_retrieval)."""

import json

import pytest
import torch

from excise.artefacts import read_tensors
from excise.attribution.lxt_patch import patched
from excise.errors import ExciseError
from excise.models.encoder import load_encoder
from excise.retrieval import importance
from tests.unit.encoders import make_encoder, some_texts

TEXTS = [("document", text) for text in some_texts(6, seed=1)]


@pytest.fixture
def encoder(tmp_path):
    return load_encoder(make_encoder(tmp_path / "model"), dtype="float64")


def norm(module, value):
    """Layer norm whose scale is a constant."""
    centred = value - value.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + module.eps).rsqrt().detach()
    return centred * scale * module.weight + module.bias


def run(encoder, text):
    """Embedding of one text by the rules, and per kind and layer what enters the projection."""
    model, seen = encoder.model, {"heads": [], "neurons": []}

    def entering(kind, value):
        value.retain_grad()
        seen[kind].append(value)
        return value

    ids = torch.tensor(encoder.tokenizer(text)["input_ids"])
    table = model.embeddings
    x = table.word_embeddings.weight[ids] + table.position_embeddings.weight[: len(ids)]
    x = norm(table.LayerNorm, x + table.token_type_embeddings.weight[0]).detach().requires_grad_()
    for layer in model.encoder.layer:
        own, made = layer.attention.self, []
        for head in range(4):
            rows = slice(head * 4, head * 4 + 4)
            q, k, v = (x @ m.weight[rows].T + m.bias[rows] for m in (own.query, own.key, own.value))
            pattern = (q @ k.T / 2).softmax(-1)  # sqrt(4) = 2
            made.append(pattern @ v)
        z = entering("heads", torch.cat(made, -1))
        out = layer.attention.output
        x = norm(out.LayerNorm, x + z @ out.dense.weight.T + out.dense.bias)
        before = x @ layer.intermediate.dense.weight.T + layer.intermediate.dense.bias
        a = entering("neurons", before * (torch.nn.functional.gelu(before) / before).detach())
        x = norm(layer.output.LayerNorm, x + a @ layer.output.dense.weight.T + layer.output.dense.bias)
    return torch.nn.functional.normalize(x.mean(0), dim=-1), seen


def test_scores_are_those_of_a_bert_with_the_rules_written_out(encoder):
    scores = importance.lrp(encoder, TEXTS, seed=5)
    plain = importance.embedding(encoder, TEXTS, seed=5)
    directions = torch.randn(len(TEXTS), 16, generator=torch.Generator().manual_seed(5)).double()
    runs = []
    for (_, text), direction in zip(TEXTS, directions, strict=True):
        vector, seen = run(encoder, text)
        (vector @ direction).backward()
        runs.append(seen)
    for kind, size in (("heads", 4), ("neurons", 1)):
        for layer in range(3):
            values = [one[kind][layer] for one in runs]
            mean = torch.cat([value.detach() for value in values]).mean(0)
            changes = [((value.detach() - mean) * value.grad).sum(0).view(-1, size).sum(1) for value in values]
            expected = torch.stack(changes).square().mean(0)
            torch.testing.assert_close(scores[kind][layer], expected, rtol=1e-7, atol=1e-14)
            assert not torch.allclose(plain[kind][layer], expected, rtol=0.05)


def test_relevance_is_conserved_from_layer_to_layer(encoder):
    """Without biases, and with a constant attention pattern (CP), no layer makes or loses relevance."""
    for name, parameter in encoder.model.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    states, layers = [], encoder.model.encoder.layer

    def keep(_, entering, keywords):
        value = (
            (entering[0] if entering else keywords["hidden_states"]).detach().requires_grad_()
            if not states
            else entering[0]
        )
        value.retain_grad()
        states.append(value)
        return (value, *entering[1:]), keywords

    hooks = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in layers]
    ids = torch.tensor([encoder.tokenizer(TEXTS[0][1])["input_ids"]])
    with patched(encoder.model, "cp") as patch:
        last = encoder.model(input_ids=ids).last_hidden_state
        total = (last[0].mean(0) @ torch.linspace(-1, 2, 16).double()).sum()
        total.backward()
        patch.verify_ran()
    for hook in hooks:
        hook.remove()
    for state in states:
        assert float((state.detach() * state.grad).sum()) == pytest.approx(total.item(), rel=1e-9)
    assert abs(total.item()) > 1e-3


def test_a_part_without_a_rule_is_refused(encoder):
    encoder.model.encoder.layer[1].output.LayerNorm = torch.nn.BatchNorm1d(16).eval().double()
    with pytest.raises(ExciseError, match=r"layer\.1\.output\.LayerNorm .*not a part of bert"):
        importance.lrp(encoder, TEXTS, seed=0)


def test_the_stage_says_which_lxt_made_the_rules(tmp_path, excise):
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, (_, text) in enumerate(TEXTS)))
    folder = make_encoder(tmp_path / "model")
    for method, rules in (("lrp", True), ("embedding", False)):
        output = tmp_path / f"{method}.safetensors"
        excise("importance", "--model", folder, "--method", method, "--texts", texts, "--output", output)
        assert ("lxt" in read_tensors(output)[0]["versions"]) == rules
