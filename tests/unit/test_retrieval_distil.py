"""Distillation: the student comes nearer, its structure stays, and a killed run ends in the same bytes."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from excise.errors import ExciseError
from excise.models.encoder import embed, load_encoder
from excise.models.structure import Layer, Structure
from excise.retrieval import distil as module
from excise.retrieval.distil import Training, distil, loss_of, order, rate_at
from excise.retrieval.shrinking import shrink
from excise.retrieval.team import ALONE, Team
from tests.conftest import REPOSITORY
from tests.unit.encoders import make_encoder, some_texts

SMALL = Structure(tuple(Layer(n, (0, 2), tuple(range(12))) for n in range(3)), heads=4, neurons=24)
TEXTS = some_texts(48, seed=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder") / "model")


def trained(folder, path, training, key=None, team=ALONE):
    dense = load_encoder(folder)
    student = shrink(dense, SMALL, repair="none", texts=[])
    ids = [dense.tokenizer(text)["input_ids"] for text in TEXTS]
    losses = distil(
        student, ids, embed(dense, TEXTS).vectors, training, checkpoint=path, key=key or {"run": 1}, team=team
    )
    return student, losses


def test_the_student_comes_nearer_on_texts_that_it_has_not_seen(folder, tmp_path):
    student, losses = trained(folder, tmp_path / "c", Training(epochs=12, batch=8, rate=3e-3))
    new = some_texts(40, seed=77)
    dense = load_encoder(folder)
    before = shrink(dense, SMALL, repair="none", texts=[])
    wanted = embed(dense, new).vectors
    nearness = [float(torch.cosine_similarity(embed(each, new).vectors, wanted).mean()) for each in (before, student)]
    assert nearness[1] > nearness[0] + 0.05
    assert losses[-1] < 0.5 * losses[0]
    assert len(losses) == 12
    assert student.model.encoder.layer[0].output.dense.weight.shape == (16, 12)
    assert torch.equal(student.model.embeddings.word_embeddings.weight, dense.model.embeddings.word_embeddings.weight)


def test_a_killed_run_goes_on_to_the_same_bytes(folder, tmp_path, monkeypatch):
    training = Training(epochs=2, batch=8, every=5)
    whole, _ = trained(folder, tmp_path / "a", training)
    real, steps = module.rate_at, []

    def killed(step, *rest):
        steps.append(step)
        if step == 7:
            raise KeyboardInterrupt
        return real(step, *rest)

    monkeypatch.setattr(module, "rate_at", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(folder, tmp_path / "b", training)
    monkeypatch.setattr(module, "rate_at", lambda step, *rest: steps.append(step) or real(step, *rest))
    resumed, _ = trained(folder, tmp_path / "b", training)
    assert steps == [*range(8), *range(5, 12)]
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True))
    assert not (tmp_path / "b").exists()


TOGETHER = """
import sys
from pathlib import Path

import torch

from excise.retrieval import distil as module
from excise.retrieval.team import joined
from tests.unit.test_retrieval_distil import Training, trained

folder, out = map(Path, sys.argv[1:])
torch.set_num_threads(1)
with joined("cpu") as (team, _):
    training = Training(epochs=2, batch=7, every=5, score=1.0, contrastive=0.1)  # 48 texts: the last step of an epoch has six
    whole, losses = trained(folder, out / "a", training, team=team)
    real, limit = module.rate_at, 8
    module.rate_at = lambda step, *rest: real(step, *rest) if step < limit else 1 / 0
    try:
        trained(folder, out / "b", training, team=team)
    except ZeroDivisionError:
        limit = 100
    resumed, _ = trained(folder, out / "b", training, team=team)
    assert limit == 100
    assert team.size == 2
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    torch.save({"weights": whole.model.state_dict(), "losses": losses}, out / f"{team.rank}.pt")
    if team.rank:
        (out / "b").unlink(missing_ok=True)
    assert team.part([5]) == ([5] if team.rank == 0 else [])
"""


def torchrun(*arguments):
    program = Path(sys.executable).parent / "torchrun"
    command = [program, "--standalone", "--nproc-per-node", 2, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, check=False)


def test_two_processes_train_as_one_does_and_go_on_to_the_same_bytes(folder, tmp_path):
    (tmp_path / "together.py").write_text(TOGETHER)
    result = torchrun(tmp_path / "together.py", folder, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    alone, losses = trained(folder, tmp_path / "c", Training(epochs=2, batch=7, score=1.0, contrastive=0.1))
    assert first["losses"] == second["losses"] == pytest.approx(losses, rel=1e-5)
    assert all(torch.equal(first["weights"][name], tensor) for name, tensor in second["weights"].items())
    wanted = embed(alone, TEXTS).vectors  # not the weights: keys have a bias that does nothing, which Adam moves
    alone.model.load_state_dict(first["weights"])
    torch.testing.assert_close(embed(alone, TEXTS).vectors, wanted, atol=1e-4, rtol=0)
    before = load_encoder(folder).model.state_dict()["encoder.layer.0.output.LayerNorm.weight"]
    assert not torch.equal(first["weights"]["encoder.layer.0.output.LayerNorm.weight"], before)


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def test_the_loss_is_that_of_a_loop_over_texts():
    generator = torch.Generator().manual_seed(3)
    student, teacher = (torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    training = Training(score=0.7, contrastive=0.3)
    each = []
    for n, vector in enumerate(student):
        found = [cosine(vector, other) for other in teacher]
        wanted = [cosine(teacher[n], other) for other in teacher]
        score = sum((a - b) ** 2 for a, b in zip(found, wanted, strict=True)) / 6
        contrastive = math.log(sum(math.exp(one / 0.05) for one in found)) - found[n] / 0.05
        each.append(1 - found[n] + 0.7 * score + 0.3 * contrastive)
    assert float(loss_of(student, teacher, range(6), training)) == pytest.approx(sum(each), rel=1e-12)
    parts = [float(loss_of(student[own], teacher, own, training)) for own in ([0, 3], [1, 2, 4, 5])]
    assert sum(parts) == pytest.approx(sum(each), rel=1e-12)
    plain = float(loss_of(student, teacher, range(6), Training()))
    assert plain == pytest.approx(sum(1 - cosine(a, b) for a, b in zip(student, teacher, strict=True)), rel=1e-12)


def test_terms_that_compare_texts_are_refused_where_they_cannot():
    with pytest.raises(ExciseError, match="batch must be 2 or more"):
        Training(batch=1, score=1.0)
    with pytest.raises(ExciseError, match="0 or more"):
        Training(contrastive=-1.0)


def test_processes_that_see_different_checkpoints_are_refused(monkeypatch):
    def gather(steps, step):
        steps[:] = [step, 0]

    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    with pytest.raises(ExciseError, match="different steps"):
        Team(0, 2).check_same(5)
    Team(0, 2).check_same(0)


def test_a_checkpoint_of_another_run_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "rate_at", lambda step, *_: 1e-4 if step < 6 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trained(folder, tmp_path / "c", Training(batch=8, every=5))
    with pytest.raises(ExciseError, match="the checkpoint of another run"):
        trained(folder, tmp_path / "c", Training(batch=8, every=5), key={"run": 2})


def test_every_text_is_seen_once_an_epoch_and_the_rate_rises_and_falls():
    lengths = [3, 9, 4, 4, 8, 3, 5]
    training = Training(batch=3, seed=1)
    batches = order(lengths, 0, training)
    assert sorted(place for batch in batches for place in batch) == list(range(7))
    assert batches == order(lengths, 0, training)
    assert [order(lengths, epoch, training) for epoch in range(1, 5)].count(batches) < 4
    rates = [rate_at(step, 100, training) for step in range(100)]
    assert max(rates) == training.rate == rates[4]
    assert rates[:5] == sorted(rates[:5])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert 0 < rates[99] < 0.02 * training.rate
    with pytest.raises(ExciseError, match="must be above 0"):
        Training(rate=0)


def test_the_stage_trains_what_shrink_made(folder, tmp_path, excise):
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(TEXTS)))
    scores, teacher = tmp_path / "s.safetensors", tmp_path / "t.safetensors"
    excise("importance", "--model", folder, "--method", "random", "--output", scores)
    shares = ("--neurons", 0.5, "--heads", 0.5)
    excise("shrink", "--model", folder, "--scores", scores, *shares, "--output", tmp_path / "small")
    excise("embed", "--model", folder, "--documents", texts, "--output", teacher)
    options = ("--model", tmp_path / "small", "--texts", texts, "--teacher", teacher, "--output", tmp_path / "trained")
    assert "mean loss per epoch" in excise("distil", *options, "--epochs", 1)
    first = (tmp_path / "trained" / "model.safetensors").read_bytes()
    excise("distil", *options, "--epochs", 1)
    assert (tmp_path / "trained" / "model.safetensors").read_bytes() == first
    assert load_encoder(tmp_path / "trained").structure == load_encoder(tmp_path / "small").structure
    together = [*options[:-1], tmp_path / "together", "--epochs", 1, "--threads", 1, "--log", tmp_path / "log"]
    result = torchrun("--no-python", "--", Path(sys.executable).parent / "excise", "distil", *together)
    assert result.returncode == 0, result.stderr[-3000:]
    assert (tmp_path / "log").read_text().count("mean loss per epoch") == 1
    assert json.loads((tmp_path / "together" / "excise.json").read_text())["settings"]["processes"] == 2
    small, alone, both = (embed(load_encoder(tmp_path / n), TEXTS).vectors for n in ("small", "trained", "together"))
    assert (both - alone).abs().max() < 0.01 * (small - alone).abs().max()
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "1", "text": "cats"}\n')
    assert "embeddings of other documents" in excise("distil", *options, "--texts", other, fails=True)
