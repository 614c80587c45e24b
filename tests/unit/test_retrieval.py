"""Importance, selection, repair and saving of a smaller encoder, against naive loops."""

import importlib
import json

import numpy as np
import pytest
import torch

from excise.edits.removal import fold_means
from excise.errors import ExciseError
from excise.models.encoder import embed, load_encoder
from excise.models.parts import attention_outputs, output_projections
from excise.models.pooling import pool
from excise.models.structure import Layer, Structure, channels, whole
from excise.retrieval import importance, moments, selection
from excise.retrieval.repair import RIDGE
from excise.retrieval.saving import save, size_info
from excise.retrieval.shrinking import shrink
from tests.unit.encoders import make_encoder, some_texts

TEXTS = [("document", text) for text in some_texts(12, seed=1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder") / "model")


@pytest.fixture
def encoder(folder):
    return load_encoder(folder, dtype="float64")


def inputs(encoder, text, modules, gradient_of=None):
    """What enters some modules for one text ``[tokens, channels]``, and its gradient where one is asked for."""
    seen = []

    def keep(_, entering):
        value = entering[0].detach().requires_grad_() if not seen and gradient_of is not None else entering[0]
        if value.requires_grad and not value.is_leaf:
            value.retain_grad()
        seen.append(value)
        return (value,)

    hooks = [module.register_forward_pre_hook(keep) for module in modules]
    ids = torch.tensor([encoder.tokenizer(text)["input_ids"]])
    states = encoder.model(input_ids=ids).last_hidden_state[0]
    vector = torch.nn.functional.normalize(states.mean(0), dim=-1)
    for hook in hooks:
        hook.remove()
    if gradient_of is not None:
        (vector @ gradient_of).backward()
    return [(value[0], None if value.grad is None else value.grad[0]) for value in seen]


def check_about_mean(encoder, scores, directions):
    """Against the mean over texts of (sum over tokens and channels of (a - mean) g)^2, by loops."""
    for kind, size, found in (("neurons", 1, output_projections), ("heads", 4, attention_outputs)):
        for layer, module in enumerate(found(encoder.model)):
            rows = [inputs(encoder, text, [module], directions[n])[0] for n, (_, text) in enumerate(TEXTS)]
            mean = torch.cat([values for values, _ in rows]).mean(0)
            expected = torch.zeros(module.in_features // size, dtype=torch.float64)
            for values, gradient in rows:
                for unit in range(len(expected)):
                    change = 0.0
                    for token in range(len(values)):
                        for channel in range(unit * size, (unit + 1) * size):
                            change += ((values[token, channel] - mean[channel]) * gradient[token, channel]).item()
                    expected[unit] += change**2 / len(TEXTS)
            torch.testing.assert_close(scores[kind][layer], expected, rtol=1e-9, atol=1e-15)


def test_embedding_importance_is_the_squared_first_order_change_about_the_mean(encoder):
    directions = torch.randn(len(TEXTS), 16, generator=torch.Generator().manual_seed(5)).double()
    check_about_mean(encoder, importance.embedding(encoder, TEXTS, seed=5), directions)


def test_fisher_importance_is_the_squared_gradient_of_the_probability_of_what_was_found(encoder, monkeypatch):
    drawn = []
    real = torch.multinomial

    def keep(chances, count, *, generator):
        drawn.extend(real(chances, count, generator=generator)[:, 0].tolist())
        return torch.tensor(drawn[-len(chances) :])[:, None]

    monkeypatch.setattr(torch, "multinomial", keep)
    scores = importance.fisher(encoder, TEXTS, seed=3)
    vectors = embed(encoder, [text for _, text in TEXTS]).vectors.double()
    directions = []
    for n in range(len(TEXTS)):  # the gradient of log p by autograd
        vector = vectors[n].clone().requires_grad_()
        others = [j for j in range(len(TEXTS)) if j != n]
        log_chances = (vectors[others] @ vector / importance.TEMPERATURE).log_softmax(-1)
        log_chances[others.index(drawn[n])].backward()
        directions.append(vector.grad)
    assert len(set(drawn)) > 3
    assert all(found != n for n, found in enumerate(drawn))
    check_about_mean(encoder, scores, torch.stack(directions))
    with pytest.raises(ExciseError, match="at least 3 texts"):
        importance.fisher(encoder, TEXTS[:2], seed=0)


def test_wanda_is_the_root_mean_square_of_what_a_unit_writes(encoder):
    scores = importance.wanda(encoder, TEXTS, seed=0)
    for kind, size, found in (("neurons", 1, output_projections), ("heads", 4, attention_outputs)):
        for layer, module in enumerate(found(encoder.model)):
            values = torch.cat([inputs(encoder, text, [module])[0][0] for _, text in TEXTS])
            for unit in range(module.in_features // size):
                block = slice(unit * size, (unit + 1) * size)
                written = values[:, block] @ module.weight[:, block].T
                assert float(scores[kind][layer, unit]) == pytest.approx(float(written.square().sum(1).mean().sqrt()))


def test_magnitude_is_the_product_of_the_norms(encoder):
    scores = importance.magnitude(encoder, [], seed=0)
    layer = encoder.model.encoder.layer[1]
    made, read = layer.intermediate.dense.weight, layer.output.dense.weight
    assert float(scores["neurons"][1, 7]) == pytest.approx(float(made[7].norm() * read[:, 7].norm()))
    value, out = layer.attention.self.value.weight, layer.attention.output.dense.weight
    assert float(scores["heads"][1, 2]) == pytest.approx(float(value[8:12].norm() * out[:, 8:12].norm()))


@pytest.mark.parametrize("method", [importance.embedding, importance.fisher, importance.lrp])
def test_padding_and_batches_change_no_score(method, encoder, monkeypatch):
    together = method(encoder, TEXTS, seed=2)
    monkeypatch.setattr(moments, "batches", lambda lengths: [[n] for n in range(len(lengths))])
    for kind, score in method(encoder, TEXTS, seed=2).items():
        torch.testing.assert_close(score, together[kind], rtol=1e-9, atol=1e-15)


def test_the_least_important_go_first_and_every_layer_keeps_some():
    scores = torch.tensor([[1.0, 2, 3, 4], [10, 20, 30, 40]])
    assert selection.kept(scores, 0.5, kind="heads") == [(3,), (1, 2, 3)]
    assert selection.kept(scores, 0.75, kind="heads") == [(3,), (3,)]
    assert selection.kept(scores, 0.5, kind="heads", scope="layer") == [(2, 3), (2, 3)]
    assert selection.kept(torch.ones(2, 4), 0.25, kind="heads") == [(0, 1, 2, 3), (0, 1)]  # ties: earlier ones stay
    assert selection.kept(scores, 0, kind="heads") == [(0, 1, 2, 3)] * 2


@pytest.mark.parametrize("scope", selection.SCOPES)
def test_the_numbers_are_what_was_asked_for(scope):
    scores = torch.rand(6, 128, generator=torch.Generator().manual_seed(0))
    for share in (0.1, 0.5, 0.9, 0.98):
        kept = selection.kept(scores, share, kind="neurons", scope=scope)
        assert len(kept) == 6
        each = [128 - round(share * 128)] * 6
        assert sum(map(len, kept)) == (6 * 128 - round(share * 6 * 128) if scope == "global" else sum(each))
        assert min(map(len, kept)) >= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neurons": 1.0}, "at least 0 and below 1"),
        ({"heads": 0.9}, "every layer keeps at least 1, so at most 0.7500 can"),
        ({"scope": "world"}, "unknown scope 'world'"),
        ({"layers": [3]}, "the model has the layers 0 to 2"),
        ({"layers": []}, "at least one must stay"),
    ],
)
def test_a_share_that_empties_a_layer_is_refused(encoder, options, message):
    scores = importance.random(encoder, [], seed=0)
    with pytest.raises(ExciseError, match=message):
        selection.structure(scores, **options)


def test_layers_are_spread_evenly_and_end_with_the_last():
    assert [selection.evenly(6, n) for n in (1, 2, 3, 6)] == [[5], [2, 5], [1, 3, 5], [0, 1, 2, 3, 4, 5]]
    with pytest.raises(ExciseError, match="7 of 6 layers"):
        selection.evenly(6, 7)


SMALL = Structure(
    (Layer(0, (0, 2), (0, 5, 23)), Layer(1, (3,), tuple(range(20))), Layer(2, (0, 1, 3), (7, 8))), heads=4, neurons=24
)


def test_folded_means_are_units_held_at_their_mean(encoder, folder):
    found = moments.activation_moments(encoder, TEXTS)
    means = [{kind: found[f"{kind}.mean"][layer].flatten() for kind in moments.KINDS} for layer in range(3)]
    small = shrink(encoder, SMALL, repair="mean", texts=TEXTS)
    held = load_encoder(folder, dtype="float64")
    for row, layer in zip(SMALL.layers, held.model.encoder.layer, strict=True):
        kept = {"heads": channels(row.heads, 4), "neurons": list(row.neurons)}
        for kind, module in (("heads", layer.attention.output.dense), ("neurons", layer.output.dense)):

            def hold(_, entering, kept=kept[kind], mean=means[row.layer][kind]):
                value = mean.expand_as(entering[0]).clone()
                value[..., kept] = entering[0][..., kept]
                return (value,)

            module.register_forward_pre_hook(hold)
    texts = some_texts(20, seed=4)
    torch.testing.assert_close(embed(small, texts).vectors, embed(held, texts).vectors, rtol=0, atol=1e-12)


def test_folding_needs_no_cut(encoder, folder):
    ones = {"heads": torch.ones(16).double(), "neurons": torch.ones(24).double()}
    fold_means(encoder.model, whole(encoder.model.config), [ones] * 3)
    assert torch.equal(embed(encoder, ["cats"]).vectors, embed(load_encoder(folder, dtype="float64"), ["cats"]).vectors)


def test_least_squares_solves_what_the_docstring_says(encoder):
    """The first layer's attention, from the normal equations with all tokens at once; later ones from the result."""
    small = shrink(encoder, SMALL, repair="least-squares", texts=TEXTS)
    plain = shrink(encoder, SMALL, repair="none", texts=[])
    kept = channels(SMALL.layers[0].heads, 4)
    layer = encoder.model.encoder.layer[0].attention.output.dense
    z = torch.cat([inputs(encoder, text, [layer])[0][0] for _, text in TEXTS])
    y = z @ layer.weight.T + layer.bias  # x is the same on both sides in the first layer
    Z = torch.cat([z[:, kept], torch.ones(len(z), 1)], 1)
    old = torch.cat([layer.weight[:, kept], layer.bias[:, None]], 1).T
    ridge = RIDGE * (Z.T @ Z).diagonal().mean()
    expected = torch.linalg.solve(Z.T @ Z + ridge * torch.eye(len(kept) + 1).double(), Z.T @ y + ridge * old).T
    fitted = small.model.encoder.layer[0].attention.output.dense
    torch.testing.assert_close(fitted.weight, expected[:, :-1], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(fitted.bias, expected[:, -1], rtol=1e-8, atol=1e-10)
    texts = [text for _, text in TEXTS]
    dense = embed(encoder, texts).vectors
    errors = [float((embed(each, texts).vectors - dense).square().sum()) for each in (small, plain)]
    assert errors[0] < errors[1], errors


def test_least_squares_with_nothing_removed_changes_nothing(encoder):
    same = shrink(encoder, whole(encoder.model.config), repair="least-squares", texts=TEXTS)
    texts = some_texts(10, seed=9)
    torch.testing.assert_close(embed(same, texts).vectors, embed(encoder, texts).vectors, rtol=0, atol=1e-8)


def test_least_squares_needs_more_tokens_than_neurons(encoder):
    with pytest.raises(ExciseError, match="3 calibration tokens for 20 neurons"):
        shrink(encoder, SMALL, repair="least-squares", texts=[("document", "cats")])


SOURCE = {"id": "small", "source": "test"}


def test_a_saved_folder_gives_the_same_embeddings(folder, tmp_path):
    encoder = load_encoder(folder)
    small = shrink(encoder, SMALL, repair="none", texts=[])
    save(small, folder, tmp_path / "small", source=SOURCE, card=["# small"])
    again = load_encoder(tmp_path / "small")
    texts = some_texts(20)
    assert torch.equal(embed(again, texts).vectors, embed(small, texts).vectors)
    assert again.structure == SMALL
    assert json.loads((tmp_path / "small" / "excise.json").read_text())["id"] == "small"
    assert size_info(again)["heads"] == [2, 1, 3]


def test_sentence_transformers_is_led_to_our_module(folder, tmp_path):
    small = shrink(load_encoder(folder), SMALL, repair="none", texts=[])
    save(small, folder, tmp_path / "small", source=SOURCE, card=[])
    name = json.loads((tmp_path / "small" / "modules.json").read_text())[0]["type"]
    module = getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2])
    loaded = module.load(str(tmp_path / "small"))
    features = loaded(loaded.tokenize(["cats sleep", "dogs bark all day"]))
    pooled = pool(features["token_embeddings"], features["attention_mask"], small.pooling)
    assert torch.equal(pooled, embed(small, ["cats sleep", "dogs bark all day"]).vectors)
    with pytest.raises(ExciseError, match="no folder here"):
        module.load("owner/name")


def test_where_the_shape_allows_it_the_folder_is_a_plain_one(folder, tmp_path):
    from transformers import AutoModel

    rows = tuple(Layer(n, (0, 1, 2, 3), (1, 2, 3)) for n in (0, 2))
    encoder = load_encoder(folder)
    small = shrink(encoder, Structure(rows, 4, 24), repair="none", texts=[])
    save(small, folder, tmp_path / "plain", source=SOURCE, card=[])
    assert not (tmp_path / "plain" / "structure.json").exists()
    model = AutoModel.from_pretrained(tmp_path / "plain", add_pooling_layer=False)
    ids = torch.tensor([small.tokenizer("cats sleep")["input_ids"]])
    assert torch.equal(model(input_ids=ids)[0], small.model(input_ids=ids)[0])
    assert (tmp_path / "plain" / "modules.json").read_text() == (folder / "modules.json").read_text()


def test_what_does_not_read_back_gets_no_name(folder, tmp_path, monkeypatch):
    from excise.retrieval import saving

    small = shrink(load_encoder(folder), SMALL, repair="none", texts=[])
    monkeypatch.setattr(saving, "load_encoder", lambda *_, **__: load_encoder(folder))
    with pytest.raises(ExciseError, match="do not read back"):
        save(small, folder, tmp_path / "small", source=SOURCE, card=[])
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_finite_is_not_saved(folder, tmp_path):
    small = shrink(load_encoder(folder), SMALL, repair="none", texts=[])
    small.model.encoder.layer[0].output.dense.bias.data[0] = float("nan")
    with pytest.raises(ExciseError, match="not finite"):
        save(small, folder, tmp_path / "small", source=SOURCE, card=[])


def test_the_stages_from_scores_to_a_smaller_folder(folder, tmp_path, excise):
    texts = tmp_path / "texts.jsonl"
    rows = [{"id": str(n), "text": text} for n, text in enumerate(some_texts(30, seed=3))]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores, small = tmp_path / "scores.safetensors", tmp_path / "small"
    model = ("--model", folder)
    assert "30 texts" in excise("importance", *model, "--texts", texts, "--output", scores)
    first = scores.read_bytes()
    excise("importance", *model, "--texts", texts, "--output", scores)
    assert scores.read_bytes() == first
    options = ("--scores", scores, "--neurons", 0.5, "--heads", 0.5, "--output", small)
    assert "parameters in the layers" in excise(
        "shrink", *model, *options, "--repair", "least-squares", "--texts", texts
    )
    assert sum(size_info(load_encoder(small))["neurons"]) == 36
    excise("embed", "--model", small, "--documents", texts, "--output", tmp_path / "vectors.safetensors")
    assert "no calibration text" in excise("shrink", *model, *options, "--repair", "mean", fails=True)
    assert "unknown repair" in excise("shrink", *model, *options, "--repair", "magic", fails=True)
    assert "it is cut already" in excise(
        "importance", "--model", small, "--method", "random", "--output", scores, fails=True
    )
    other = make_encoder(tmp_path / "other", seed=8)
    assert "made for other weights" in excise("shrink", "--model", other, *options, fails=True)
    assert np.isfinite(embed(load_encoder(small), ["cats"]).vectors.numpy()).all()
