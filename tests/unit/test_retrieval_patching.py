"""Effects of heads, against a whole pass per head and text."""

import json

import pytest
import torch

from excise.models.encoder import load_encoder
from excise.retrieval.patching import head_effects
from tests.unit.encoders import make_encoder, some_texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder") / "model")


def test_an_effect_is_how_far_the_embedding_turns(folder):
    encoder = load_encoder(folder, dtype="float64")
    texts = some_texts(6, seed=2)
    ids = [torch.tensor([encoder.tokenizer(text)["input_ids"]]) for text in texts]

    def vector(one):
        return encoder.model(input_ids=one).last_hidden_state[0].mean(0)

    found = head_effects(encoder, [("document", text) for text in texts])
    for layer, module in enumerate(encoder.model.encoder.layer):
        seen = []
        hook = module.attention.output.dense.register_forward_pre_hook(
            lambda _, entering, seen=seen: seen.append(entering[0][0])
        )
        before = [vector(one) for one in ids]
        hook.remove()
        mean = torch.cat(seen).mean(0)
        for head in range(4):

            def hold(_, entering, head=head, mean=mean):
                values = entering[0].clone()
                values[..., head * 4 : head * 4 + 4] = mean[head * 4 : head * 4 + 4]
                return (values,)

            hook = module.attention.output.dense.register_forward_pre_hook(hold)
            turned = [1 - torch.cosine_similarity(b, vector(one), dim=0) for b, one in zip(before, ids, strict=True)]
            hook.remove()
            assert found[layer, head].item() == pytest.approx(float(sum(turned)) / len(texts), rel=1e-9)


def test_the_stage_ranks_scores_by_the_effects(folder, tmp_path, excise):
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(some_texts(50))))
    for method in ("embedding", "random"):
        options = ("--method", method, "--texts", texts, "--output", tmp_path / f"{method}.safetensors")
        excise("importance", "--model", folder, *options)
    scores = [part for m in ("embedding", "random") for part in ("--scores", tmp_path / f"{m}.safetensors")]
    excise("patch-heads", "--model", folder, "--texts", texts, *scores, "--output", tmp_path / "effects.json")
    body = json.loads((tmp_path / "effects.json").read_text())
    assert body["meta"]["settings"]["number_of_texts"] == 40
    by_method = {row["method"]: row["spearman"] for row in body["rank_correlations"]}
    assert by_method["embedding"] > 0.7 > abs(by_method["random"])
    other = make_encoder(tmp_path / "other", seed=3)
    message = excise("patch-heads", "--model", other, "--texts", texts, *scores, "--output", tmp_path / "e", fails=True)
    assert "no scores of this model's heads" in message
