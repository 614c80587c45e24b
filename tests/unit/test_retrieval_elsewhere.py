"""sentence-transformers, as it is installed, opens smaller encoders and gives the same embeddings."""

import json
import os
import subprocess
import sys

import pytest
import torch

from excise.models.encoder import embed, load_encoder
from excise.models.structure import Layer, Structure
from excise.retrieval.saving import save
from excise.retrieval.shrinking import shrink
from tests.unit.encoders import make_encoder, some_texts

ASK = """
import json, sys
from sentence_transformers import SentenceTransformer, __version__
plain, cut, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
models = [SentenceTransformer(plain, device="cpu"), SentenceTransformer(cut, device="cpu", trust_remote_code=True)]
answers = [[[type(module).__name__ for module in model], model.encode(texts).tolist()] for model in models]
print(json.dumps([__version__, *answers]))
"""
PLAIN = Structure(tuple(Layer(n, (0, 1, 2, 3), (1, 2, 3)) for n in (0, 2)), heads=4, neurons=24)
CUT = Structure(tuple(Layer(n, (0, 2)[: n + 1], tuple(range(5 + n))) for n in range(3)), heads=4, neurons=24)
TEXTS = [*some_texts(6, seed=3), " ".join(some_texts(30, seed=4))]  # the last is longer than the model reads


@pytest.mark.parametrize("version", ["3.4.1", "6.2.0"])
def test_it_opens_plain_and_cut_encoders(version, tmp_path):
    folder = make_encoder(tmp_path / "model")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path / "packages"]
    subprocess.run([*pip, f"sentence-transformers=={version}"], check=True)
    path = os.pathsep.join([str(tmp_path / "packages"), *sys.path])
    wanted = []
    for name, structure in (("plain", PLAIN), ("cut", CUT)):
        small = shrink(load_encoder(folder), structure, repair="none", texts=[])
        source = {"id": name, "source": "excise shrink", "base": {}, "settings": {}, "variant": {}}
        save(small, folder, tmp_path / name, source=source, card=[])
        wanted.append(embed(small, TEXTS).vectors)
    found = subprocess.run(
        [sys.executable, "-c", ASK, tmp_path / "plain", tmp_path / "cut", json.dumps(TEXTS)],
        env=os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    installed, *answers = json.loads(found.stdout.splitlines()[-1])
    assert installed == version
    assert [kinds for kinds, _ in answers] == [
        [f, "Pooling", "Normalize"] for f in ("Transformer", "ExciseTransformer")
    ]
    for (_, vectors), expected in zip(answers, wanted, strict=True):
        torch.testing.assert_close(torch.tensor(vectors), expected, atol=1e-6, rtol=0)
