"""An encoder as ONNX gives, in onnxruntime, the embeddings that it gives in torch."""

import json
import logging
import sys

import onnxruntime
import pytest
import torch

from excise.errors import ExciseError
from excise.models.encoder import embed, load_encoder, padded, tokenised
from excise.models.structure import Layer, Structure
from excise.retrieval import exchange
from excise.retrieval.saving import save
from excise.retrieval.shrinking import shrink
from tests.unit.encoders import make_encoder, some_texts

CUT = Structure(tuple(Layer(n, (0, 2)[: n + 1], tuple(range(5 + n))) for n in range(3)), heads=4, neurons=24)
TEXTS = [*some_texts(6, seed=3), " ".join(some_texts(30, seed=4))]  # the last is longer than the model reads


@pytest.fixture
def cut(tmp_path):
    """The folder of an encoder whose layers have other widths each."""
    dense = make_encoder(tmp_path / "model")
    small = shrink(load_encoder(dense), CUT, repair="none", texts=[])
    source = {"id": "cut", "source": "excise shrink", "base": {}, "settings": {}, "variant": {}}
    save(small, dense, tmp_path / "cut", source=source, card=[])
    return tmp_path / "cut"


def test_a_cut_encoder_in_another_runtime(cut, excise, tmp_path):
    outputs = [tmp_path / f"{name}.onnx" for name in "ab"]
    for output in outputs:
        excise("onnx", "--model", cut, "--threads", "1", "--output", output)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    session = onnxruntime.InferenceSession(outputs[0], providers=["CPUExecutionProvider"])
    encoder = load_encoder(cut)
    meta = json.loads(session.get_modelmeta().custom_metadata_map["excise"])
    assert meta["model"]["fingerprint"] == encoder.info["fingerprint"]
    for texts in (TEXTS, TEXTS[:1], TEXTS[-1:]):
        rows, mask = padded(encoder, tokenised(encoder, texts, "document")[0])
        states, vectors = session.run(None, {"input_ids": rows.numpy(), "attention_mask": mask.numpy()})
        assert states.shape == (*rows.shape, vectors.shape[1])
        torch.testing.assert_close(torch.from_numpy(vectors), embed(encoder, texts).vectors, atol=1e-6, rtol=0)


def test_what_differs_is_not_written(cut, tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "TOLERANCE", -1.0)
    (tmp_path / "old.onnx").write_text("old")
    with pytest.raises(ExciseError, match="nothing is written"):
        exchange.export(load_encoder(cut), tmp_path / "old.onnx", {})
    assert (tmp_path / "old.onnx").read_text() == "old"
    assert logging.getLogger("onnxscript").level == logging.ERROR


def test_what_it_needs_is_named(cut, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExciseError, match=r"excise\[onnx\]"):
        exchange.export(load_encoder(cut), tmp_path / "new.onnx", {})
    monkeypatch.undo()
    monkeypatch.setattr(exchange, "LARGEST", 10)
    with pytest.raises(ExciseError, match="2 GB at most"):
        exchange.export(load_encoder(cut), tmp_path / "new.onnx", {})
    assert not (tmp_path / "new.onnx").exists()
