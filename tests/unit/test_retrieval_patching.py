"""Effects of heads and neurons, against a whole pass per head and text."""

import json

import pytest
import torch

from excise.errors import ExciseError
from excise.models.encoder import load_encoder
from excise.models.parts import attention_outputs, output_projections
from excise.retrieval.patching import drawn_units, unit_effects
from tests.unit.encoders import make_encoder, some_texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder") / "model")


KINDS = {"heads": (attention_outputs, 4), "neurons": (output_projections, 1)}


@pytest.mark.parametrize("kind", KINDS)
def test_an_effect_is_how_far_the_embedding_turns(folder, kind):
    encoder = load_encoder(folder, dtype="float64")
    texts = some_texts(6, seed=2)
    ids = [torch.tensor([encoder.tokenizer(text)["input_ids"]]) for text in texts]
    modules, size = KINDS[kind]

    def vector(one):
        return encoder.model(input_ids=one).last_hidden_state[0].mean(0)

    units = [(layer, unit) for layer in range(3) for unit in range(4)]
    found = iter(unit_effects(encoder, [("document", text) for text in texts], kind, units))
    for module in modules(encoder.model):
        seen = []
        hook = module.register_forward_pre_hook(lambda _, entering, seen=seen: seen.append(entering[0][0]))
        before = [vector(one) for one in ids]
        hook.remove()
        mean = torch.cat(seen).mean(0)
        for unit in range(4):
            block = slice(unit * size, (unit + 1) * size)

            def hold(_, entering, block=block, mean=mean):
                values = entering[0].clone()
                values[..., block] = mean[block]
                return (values,)

            hook = module.register_forward_pre_hook(hold)
            turned = [1 - torch.cosine_similarity(b, vector(one), dim=0) for b, one in zip(before, ids, strict=True)]
            hook.remove()
            assert next(found).item() == pytest.approx(float(sum(turned)) / len(texts), rel=1e-9)


def test_neurons_are_drawn_from_all_layers_once_each(folder):
    encoder = load_encoder(folder)
    assert list(drawn_units(encoder, neurons=0, seed=0)) == ["heads"]
    assert drawn_units(encoder, neurons=0, seed=0)["heads"] == [(n // 4, n % 4) for n in range(12)]
    drawn = drawn_units(encoder, neurons=30, seed=0)["neurons"]
    assert len(set(drawn)) == 30
    assert {layer for layer, _ in drawn} == {0, 1, 2}
    assert drawn != drawn_units(encoder, neurons=30, seed=1)["neurons"]
    assert drawn_units(encoder, neurons=72, seed=0)["neurons"] == [(n // 24, n % 24) for n in range(72)]
    with pytest.raises(ExciseError, match="73 neurons to measure: the encoder has 72"):
        drawn_units(encoder, neurons=73, seed=0)


def test_the_stage_ranks_scores_by_the_effects(folder, tmp_path, excise):
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(some_texts(50))))
    for method in ("embedding", "random"):
        options = ("--method", method, "--texts", texts, "--output", tmp_path / f"{method}.safetensors")
        excise("importance", "--model", folder, *options)
    scores = [part for m in ("embedding", "random") for part in ("--scores", tmp_path / f"{m}.safetensors")]
    options = ("--texts", texts, *scores, "--neurons", 20)
    excise("patch-units", "--model", folder, *options, "--output", tmp_path / "effects.json")
    body = json.loads((tmp_path / "effects.json").read_text())
    assert body["meta"]["settings"]["number_of_texts"] == 40
    by_method = {(row["method"], row["units"]): row["spearman"] for row in body["rank_correlations"]}
    for kind, count in (("heads", 12), ("neurons", 20)):
        assert by_method["embedding", kind] > 0.7 > abs(by_method["random", kind])
        assert len(body["units"][kind]) == count
    other = make_encoder(tmp_path / "other", seed=3)
    message = excise("patch-units", "--model", other, *options, "--output", tmp_path / "e", fails=True)
    assert "no scores of this model's units" in message
