"""Static vectors: the recipe against a loop, and a folder that opens as any encoder."""

import numpy as np
import pytest
import torch

from excise.artefacts import read_json
from excise.errors import ExciseError
from excise.models.encoder import embed, load_encoder
from excise.models.static import StaticVectors
from excise.retrieval.static import static
from tests.unit.encoders import make_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder") / "model")


def test_the_table_is_what_the_recipe_says(folder):
    encoder = load_encoder(folder, dtype="float64")
    size = encoder.model.config.vocab_size
    rows = []
    for token in range(size):
        states = encoder.model(input_ids=torch.tensor([[1, token, 2]])).last_hidden_state[0]
        rows.append(states.mean(0).detach().numpy())
    centred = np.array(rows) - np.mean(rows, axis=0)
    odds = np.array([1 / (rank + 2) for rank in range(size)])
    expected = centred * (1e-4 / (1e-4 + odds / odds.sum()))[:, None]
    expected[[0, 1, 2, 3]] = 0  # special tokens
    np.testing.assert_allclose(static(encoder).model.vectors.numpy(), expected, atol=1e-12)


def test_a_text_is_the_direction_of_the_sum_of_its_tokens(folder, tmp_path, excise):
    excise("static-encoder", "--model", folder, "--name", "table", "--output", tmp_path / "static")
    encoder = load_encoder(tmp_path / "static")
    assert isinstance(encoder.model, StaticVectors)
    words = ["cats", "sleep", "night"]
    table = encoder.model.vectors
    summed = sum(table[encoder.tokenizer.convert_tokens_to_ids(word)] for word in words)
    expected = torch.nn.functional.normalize(summed, dim=0)
    torch.testing.assert_close(embed(encoder, [" ".join(words), "dogs"]).vectors[0], expected)
    assert encoder.info["variant"]["series"] == "table"
    assert read_json(tmp_path / "static" / "config.json")["model_type"] == "excise-static"
    cut = ("--model", tmp_path / "static", "--keep-layers", "1", "--output", tmp_path / "x")
    assert "static vectors" in excise("shrink", *cut, fails=True)


def test_a_tokenizer_with_another_frame_is_refused(folder):
    encoder = load_encoder(folder)
    encoder.tokenizer = lambda _: {"input_ids": [1]}
    with pytest.raises(ExciseError, match="one special token before a text and one after it"):
        static(encoder)
