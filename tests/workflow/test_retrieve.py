"""The retrieval room through Snakemake: a folder as BEIR has it, and a folder of documents that nobody judged."""

import json
import random
from pathlib import Path

import pytest

from excise.artefacts import read_json
from excise.data.collections import read_documents
from excise.models.encoder import load_encoder
from excise.tasks.files import read_measurements
from tests.unit.encoders import WORDS, make_encoder
from tests.workflow.conftest import AWKWARD, Experiment


def jsonl(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A tiny encoder, a collection whose queries are words of one document, and documents alone."""
    folder = tmp_path_factory.mktemp("retrieve") / AWKWARD
    encoder = make_encoder(folder / "encoder", max_position_embeddings=80)
    (encoder / "sentence_bert_config.json").write_text('{"max_seq_length": 70}')
    tokenizer = read_json(encoder / "tokenizer_config.json") | {"model_max_length": 80}
    (encoder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    draw = random.Random(1)
    texts = [" ".join(draw.choices(WORDS, k=7)) for _ in range(90)]
    beir = folder / "a bëir's"
    jsonl(beir / "corpus.jsonl", [{"_id": f"d{n}", "text": text} for n, text in enumerate(texts)])
    jsonl(beir / "queries.jsonl", [{"_id": f"q{n}", "text": text[: len(text) // 2]} for n, text in enumerate(texts)])
    (beir / "qrels").mkdir()
    lines = ["query-id\tcorpus-id\tscore", *(f"q{n}\td{n}\t1" for n in range(90))]
    (beir / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    for n in range(6):
        (folder / "own").mkdir(exist_ok=True)
        (folder / "own" / f"{n}.txt").write_text(" ".join(draw.choices(WORDS, k=5)))
    rows = [{"sentence1": texts[n], "sentence2": texts[n + 1], "label": n % 5} for n in range(60, 80)]
    jsonl(folder / "alike.jsonl", rows)
    (folder / "own" / "twin.txt").write_text(texts[3])  # a calibration text, if it is drawn
    config = {
        "experiment": AWKWARD,
        "device": "cpu",
        "models": {"tiny": {"source": "encoder"}},
        "retrieval": {
            "rounds": 2,
            "collections": {
                "judged": {"source": "a bëir's", "calibration_documents": 40, "tuning_fraction": 0.3},
                "own": {"source": "own", "format": "documents"},
                "paired": {"source": "alike.jsonl", "format": "pairs"},
            },
            "variants": {
                "trained": {"remove": [0.5], "repair": "least-squares", "distil": {"epochs": 1, "batch": 8}},
                "layers": {"kind": "layers", "keep": [2]},
            },
        },
        "evaluation": {"resamples": 200},
    }
    return Experiment(folder, config)


def test_from_two_folders_to_a_report(experiment):
    result = experiment.snakemake()
    assert result.returncode == 0, result.stderr[-6000:]
    room = experiment.run_folder / "retrieval"
    trained = read_measurements(room / "variants" / "trained-50" / "judged.json")
    assert [one.name for one in trained.measurements] == ["judged", "judged-asymmetric", "judged-fidelity"]
    assert (trained.about.series, trained.about.size, trained.about.share) == ("trained", 50, 0.5)
    assert [one.name for one in read_measurements(room / "variants" / "dense" / "own.json").measurements] == [
        "own-fidelity"
    ]
    cost = read_measurements(room / "cost" / "layers-2.json")
    assert cost.about.share == pytest.approx(1 / 3)
    assert cost.measurements[0].metrics.keys() == {"query_ms", "documents_ms", "megabytes", "layer_millions"}
    summary = read_json(room / "summary.json")
    assert summary["goal"]["metric"] == "cost.documents_ms"
    assert list(summary["goal"]["within"]) == ["judged.ndcg@10"]
    kept = {(row["variant"], row["metric"]) for row in read_json(room / "retention.json")["rows"]}
    assert ("trained-50", "judged-asymmetric.ndcg@10") in kept
    assert ("layers-2", "own-fidelity.cosine") in kept
    assert ("trained-50", "paired.spearman") in kept
    assert not any(metric.startswith("cost") for _, metric in kept)
    assert load_encoder(room / "distilled" / "trained-50").structure is not None
    page = (room / "report.html").read_text()
    assert "trained-50" in page
    assert "spearman kept, %" in page
    calibration = {row["text"] for row in read_documents(folder_of(experiment, "judged") / "calibration.jsonl")[1]}
    own = {row["text"] for row in read_documents(folder_of(experiment, "own") / "documents.jsonl")[1]}
    assert not calibration & own


def folder_of(experiment: Experiment, collection: str) -> Path:
    return experiment.folder / "results" / AWKWARD / "collections" / collection


def test_without_judgements_the_likeness_decides(experiment):
    """Nothing is run: what would be, is asked for."""
    own = {"source": "own", "format": "documents", "calibration_documents": 3}
    retrieval = experiment.config["retrieval"] | {"collections": {"own": own}}
    other = Experiment(experiment.folder, experiment.config | {"experiment": "own", "retrieval": retrieval})
    result = other.snakemake("--dry-run")
    assert result.returncode == 0, result.stderr[-6000:]
    assert "--lower cost.documents_ms --within 'own-fidelity.cosine=-5% surely'" in result.stdout


def test_a_budget_of_time_is_spent_by_a_table_of_this_machine(experiment):
    """Planned only: how much time a tiny encoder saves is chance."""
    variants = {"budget": {"time": [0.6], "repair": "mean"}, "plain": {"remove": [0.5]}}
    retrieval = experiment.config["retrieval"] | {"variants": variants}
    other = Experiment(experiment.folder, experiment.config | {"experiment": "budget", "retrieval": retrieval})
    result = other.snakemake("--dry-run")
    assert result.returncode == 0, result.stderr[-6000:]
    commands = [line for line in result.stdout.splitlines() if "excise shrink" in line]
    assert len(commands) == 2
    spent = next(line for line in commands if "--name budget" in line)
    assert "--time 0.6 --repair mean" in spent
    assert "/latency.json" in spent
    assert "--neurons" not in spent
    assert not any("--latency" in line for line in commands if line != spent)
    assert result.stdout.count("excise encoder-latency") == 1
