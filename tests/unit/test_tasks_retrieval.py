"""Ranking, judging and comparing encoders: against loops from the definitions, and trec_eval's ties."""

import json
import math

import numpy as np
import pytest
import torch

from excise.artefacts import read_json
from excise.errors import ExciseError
from excise.tasks.files import read_measurements
from excise.tasks.retrieval import fidelity, judge, rank
from tests.unit.encoders import make_encoder, some_texts


def naive(ranked: list[str], grades: dict[str, int]) -> dict[str, float]:
    """The metrics of one query from their definitions; ``ranked`` best first."""
    gains = [grades.get(name, 0) for name in ranked[:10]]
    ideal = sorted(grades.values(), reverse=True)[:10]
    dcg, best = (sum(gain / math.log2(place + 2) for place, gain in enumerate(row)) for row in (gains, ideal))
    first = next((place for place, name in enumerate(ranked[:10], 1) if name in grades), None)
    found = sum(name in grades for name in ranked[:100])
    return {"ndcg@10": dcg / best, "recall@100": found / len(grades), "mrr@10": 1 / first if first else 0.0}


def test_metrics_are_those_of_the_definitions():
    generator = torch.Generator().manual_seed(0)
    documents = torch.nn.functional.normalize(torch.randn(150, 8, generator=generator), dim=-1)
    vectors = torch.nn.functional.normalize(torch.randn(20, 8, generator=generator), dim=-1)
    names = [f"d{n}" for n in range(150)]
    rows = []
    for n in range(20):
        chosen = torch.randperm(150, generator=generator)[: 1 + n % 12].tolist()
        rows.append({"id": f"q{n}", "relevant": {names[d]: 1 + d % 3 for d in chosen}})
    values = judge(rank(vectors, documents, [row["id"] for row in rows], names), rows)
    for n, row in enumerate(rows):
        order = sorted(range(150), key=lambda d: -float(vectors[n] @ documents[d]))
        for metric, expected in naive([names[d] for d in order], row["relevant"]).items():
            assert values[metric][n] == pytest.approx(expected, abs=1e-6), (metric, n)
    assert values["mrr@10"].min() > 0 or (values["mrr@10"] == 0).any()


def test_ties_are_broken_by_the_larger_id_as_trec_eval_does():
    documents = torch.tensor([[1.0, 0.0]] * 3)
    run = rank(torch.tensor([[1.0, 0.0]]), documents, ["q"], ["a", "c", "b"])
    for name, reciprocal in (("c", 1), ("b", 1 / 2), ("a", 1 / 3)):
        assert judge(run, [{"id": "q", "relevant": {name: 1}}])["mrr@10"][0] == pytest.approx(reciprocal)


def test_all_of_a_tie_at_the_last_rank_are_there():
    documents = torch.cat([torch.ones(99, 1) * 2, torch.ones(5, 1), torch.zeros(3, 1)])
    run = rank(torch.ones(1, 1), documents, ["q"], [f"d{n:03}" for n in range(107)])
    assert len(run["q"]) == 104
    values = judge(run, [{"id": "q", "relevant": {"d099": 1, "d103": 1}}])
    assert values["recall@100"][0] == 0.5  # d103 has the larger id


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(ExciseError, match="embeddings of 2 and 3 numbers"):
        rank(torch.ones(1, 2), torch.ones(1, 3), ["q"], ["d"])
    with pytest.raises(ExciseError, match="not a finite number"):
        rank(torch.full((1, 2), float("nan")), torch.ones(1, 2), ["q"], ["d"])


def test_fidelity_is_the_cosine():
    found = fidelity(torch.tensor([[2.0, 0], [1, 1]]), torch.tensor([[1.0, 0], [1, 0]]))
    np.testing.assert_allclose(found, [1, 2**-0.5])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A collection in which a query's words are in its documents, and a dense encoder."""
    folder = tmp_path_factory.mktemp("collection")
    documents = [{"id": f"d{n}", "text": text} for n, text in enumerate(some_texts(60, seed=1))]
    queries = [{"id": f"q{n}", "text": row["text"], "relevant": {row["id"]: 1}} for n, row in enumerate(documents[:25])]
    for name, rows in (("documents", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    make_encoder(folder / "dense")
    return folder


def test_from_a_collection_to_what_each_variant_keeps(place, tmp_path, excise, capsys):
    data = ("--documents", place / "documents.jsonl", "--queries", place / "queries.jsonl")
    dense = ("--model", place / "dense")
    excise("importance", *dense, "--texts", place / "documents.jsonl", "--output", tmp_path / "s.safetensors")
    models = {"dense": place / "dense"}
    for name, share in (("mild", 0.1), ("harsh", 0.9)):
        models[name] = tmp_path / name
        excise(
            *("shrink", *dense, "--scores", tmp_path / "s.safetensors", "--neurons", share, "--heads", share / 2),
            *("--output", models[name]),
        )
    vectors = {name: tmp_path / f"{name}.safetensors" for name in models}
    files = {name: tmp_path / f"{name}.json" for name in models}
    for name, model in models.items():
        excise("embed", "--model", model, *data, "--output", vectors[name])
        options = ("--vectors", vectors[name], "--dense", vectors["dense"], "--variant", name, "--name", "tiny")
        excise("retrieve", *data, *options, "--output", files[name])
    found = read_measurements(files["dense"])
    assert [one.name for one in found.measurements] == ["tiny", "tiny-asymmetric", "tiny-fidelity"]
    assert found.measurements[0].metrics["mrr@10"].figure > 0.9  # a query is its document
    assert found.measurements[2].metrics["cosine"].figure == pytest.approx(1)
    excise("retention", *files.values(), "--output", tmp_path / "table.json")
    rows = {(row["variant"], row["metric"]): row for row in read_json(tmp_path / "table.json")["rows"]}
    assert len(rows) == 14
    mild, harsh = rows["mild", "tiny-fidelity.cosine"], rows["harsh", "tiny-fidelity.cosine"]
    assert harsh["kept"] < mild["kept"] < 1
    assert mild["interval"][0] <= mild["kept"] <= mild["interval"][1]
    assert not harsh["keeps_enough"]


def test_without_judgements_the_likeness_is_measured(place, tmp_path, excise):
    data = ("--documents", place / "documents.jsonl")
    excise("embed", "--model", place / "dense", *data, "--output", tmp_path / "v.safetensors")
    options = ("--vectors", tmp_path / "v.safetensors", "--variant", "dense", "--output", tmp_path / "m.json")
    assert "nothing to measure" in excise("retrieve", *data, *options, fails=True)
    excise("retrieve", *data, *options, "--dense", tmp_path / "v.safetensors")
    assert [one.name for one in read_measurements(tmp_path / "m.json").measurements] == ["collection-fidelity"]
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "d0", "text": "cats"}\n')
    assert "embeddings of other documents" in excise(
        *("retrieve", "--documents", other, *options, "--dense", tmp_path / "v.safetensors"), fails=True
    )
    unknown = tmp_path / "queries.jsonl"
    unknown.write_text('{"id": "q", "text": "cats", "relevant": {"nowhere": 1}}\n')
    assert "'nowhere' is not searched" in excise("retrieve", *data, "--queries", unknown, *options, fails=True)
