"""The notebook on smaller encoders runs, on a tiny one."""

import json

from excise.models.encoder import load_encoder
from excise.models.structure import Layer, Structure
from excise.retrieval.saving import save
from excise.retrieval.shrinking import shrink
from tests.conftest import REPOSITORY, run_notebook
from tests.unit.encoders import make_encoder, some_texts


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    source = REPOSITORY / "examples/search_with_a_smaller_encoder.ipynb"
    model = make_encoder(tmp_path / "inputs/models/all-MiniLM-L6-v2")
    run = tmp_path / "results/retrieve-quick"
    structure = Structure(tuple(Layer(n, (0, 2), tuple(range(9 + n))) for n in range(3)), heads=4, neurons=24)
    small = shrink(load_encoder(model), structure, repair="none", texts=[])
    output = run / "all-MiniLM-L6-v2/retrieval/shrunk/embedding-50"
    output.parent.mkdir(parents=True)
    save(small, model, output, source={"id": "small"}, card=["small"])
    titles = run / "collections/semanlink/documents.jsonl"
    titles.parent.mkdir(parents=True)
    rows = [{"meta": {}}, *({"id": str(n), "text": text} for n, text in enumerate(some_texts(20)))]
    titles.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "examples").mkdir()
    monkeypatch.chdir(tmp_path / "examples")
    run_notebook(source)
    said = capsys.readouterr().out
    assert "queries by small, documents by dense:" in said
    assert "layer 2: 2 of 4 heads, 11 of 24 neurons" in said
