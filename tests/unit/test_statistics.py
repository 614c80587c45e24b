"""Sums that add up to the same bits whatever the shards."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from excise.artefacts import write_tensors
from excise.errors import ExciseError
from excise.statistics import Statistics, Sums, batch_sums, merge, refuse_difference

META = {"stage": "attribute", "method": "lrp", "model": {"id": "m"}, "corpus": {"id": "c", "seed": 0}}


def batch(index: int) -> Sums:
    """Values of three samples whose sum depends on the order of addition."""
    generator = torch.Generator().manual_seed(index)
    values = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64) * 10.0 ** (index % 7 - 3)
    return batch_sums({"x": values}, tokens=10 + index, squares=("x",), rows=("x",))


def part(batches: int, chosen: range) -> Statistics:
    statistics = Statistics(dict(META), batches)
    for index in chosen:
        statistics.add(index, batch(index))
    return statistics


def saved(statistics: Statistics, path: Path) -> bytes:
    statistics.write(path)
    return path.read_bytes()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 13])
def test_any_sharding_in_any_order_gives_the_same_bytes(count: int, tmp_path: Path) -> None:
    whole = saved(part(count, range(count)), tmp_path / "whole")
    for shards in range(1, count + 1):
        borders = [range(i * count // shards, (i + 1) * count // shards) for i in range(shards)]
        paths = []
        for number, border in enumerate(borders):
            paths.append(tmp_path / f"{shards}-{number}")
            part(count, border).write(paths[-1])
        for order in itertools.islice(itertools.permutations(paths), 6):
            assert saved(merge(Statistics.read(path) for path in order), tmp_path / "merged") == whole


def test_sums_counts_and_rows_are_those_of_a_plain_loop() -> None:
    totals = part(7, range(7)).totals()
    rows = np.concatenate([batch(index)["x_rows"] for index in range(7)])
    np.testing.assert_allclose(totals["x"], rows.sum(0), rtol=1e-12, atol=0)
    np.testing.assert_allclose(totals["x_squared"], (rows**2).sum(0), rtol=1e-12, atol=0)
    assert (totals["x_rows"] == rows).all()
    assert int(totals["samples"]) == 21
    assert int(totals["tokens"]) == sum(10 + index for index in range(7))


def test_nodes_form_only_of_siblings() -> None:
    statistics = part(8, range(1, 7))
    assert sorted(statistics.nodes) == [(0, 1), (0, 6), (1, 1), (1, 2)]
    assert statistics.missing() == [0, 7]


def test_a_complete_file_says_nothing_of_shards(tmp_path: Path) -> None:
    total = merge([part(5, range(3, 5)), part(5, range(3))])
    total.write(tmp_path / "file")
    again = Statistics.read(tmp_path / "file")
    assert again.missing() == []
    assert again.totals().keys() == {"x", "x_squared", "x_rows", "samples", "tokens"}
    header = (tmp_path / "file").read_bytes()[8:]
    meta = json.loads(json.JSONDecoder().raw_decode(header.decode("latin1"))[0]["__metadata__"]["meta"])
    assert meta["counts"] == {"batches": 5, "samples": 15, "tokens": 60}


def test_a_shard_without_batches_adds_nothing(tmp_path: Path) -> None:
    part(3, range(0)).write(tmp_path / "empty")
    total = merge([Statistics.read(tmp_path / "empty"), part(3, range(3))])
    assert (total.totals()["x"] == part(3, range(3)).totals()["x"]).all()


def test_overlap_is_refused() -> None:
    with pytest.raises(ExciseError, match="batches 2 to 3 would be counted twice"):
        part(8, range(4)).merge(part(8, range(2, 8)))


def test_a_complete_file_cannot_be_added_to(tmp_path: Path) -> None:
    part(2, range(2)).write(tmp_path / "file")
    with pytest.raises(ExciseError, match="counted twice"):
        merge([Statistics.read(tmp_path / "file"), Statistics.read(tmp_path / "file")])


def test_gaps_are_named() -> None:
    with pytest.raises(ExciseError, match=r"2 of 6 batches are missing \(3, 4\)"):
        merge([part(6, range(3)), part(6, range(5, 6))]).totals()


def test_another_corpus_size_is_refused() -> None:
    with pytest.raises(ExciseError, match="4 batches in all, the other 5"):
        part(4, range(2)).merge(part(5, range(2, 5)))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"method": "wanda"}, "method"),
        ({"model": {"id": "other"}}, r"model\.id"),
        ({"corpus": {"id": "d", "seed": 0}}, r"corpus\.id"),
        ({"corpus": {"id": "c", "seed": 1}}, r"corpus\.seed"),
        ({"settings": {"objective": "last-max"}}, r"settings\.objective"),
    ],
)
def test_a_misfit_is_refused_by_name(change: dict[str, object], name: str) -> None:
    other = part(2, range(1, 2))
    other.meta = {**META, **change}
    with pytest.raises(ExciseError, match=f"do not belong together: {name} is"):
        part(2, range(1)).merge(other)


def test_other_sums_are_refused() -> None:
    statistics = part(2, range(1))
    with pytest.raises(ExciseError, match="y only in one"):
        statistics.add(1, {**batch(1), "y": np.zeros(1)})


def test_a_batch_outside_the_corpus_is_refused() -> None:
    with pytest.raises(ExciseError, match="batch 2 is not one of the 2"):
        part(2, range(2)).add(2, batch(2))


def test_files_of_other_stages_are_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", {"stage": "average"}, {"score": torch.zeros(1)})
    with pytest.raises(ExciseError, match="written by excise average"):
        Statistics.read(tmp_path / "file")


def test_ignored_entries_may_differ() -> None:
    refuse_difference({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ignored=("a.c",))
    with pytest.raises(ExciseError, match=r"a\.c is 2 in one, 3 in the other"):
        refuse_difference({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}})
