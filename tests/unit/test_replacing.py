"""A folder that excise did not make is never replaced: what is in it may exist only once."""

import json
import os
import shutil

import pytest

from tests.unit.test_edits_ablation import selection


@pytest.fixture
def neurons(tmp_path, tiny_model):
    path = tmp_path / "units.json"
    path.write_text(json.dumps(selection((0, 1), model=tiny_model)))
    return path


def test_a_folder_of_the_user_is_not_replaced(excise, tmp_path, tiny_model, neurons):
    thesis = tmp_path / "mine" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("all of it")
    for command in (("apply", neurons, tiny_model), ("fetch-model", "--source", tiny_model)):
        message = excise(*command, "--output", thesis.parent, fails=True)
        assert "was not made by excise" in message
        message = excise(*command, "--output", thesis, fails=True)
        assert "was not made by excise" in message
    assert thesis.read_text() == "all of it"
    assert [entry.name for entry in thesis.parent.iterdir()] == ["thesis.txt"]


def test_the_unpruned_model_is_not_replaced_by_the_pruned_one(excise, tmp_path, tiny_model, neurons):
    model = tmp_path / "models" / "own"
    shutil.copytree(tiny_model, model)
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    for output in (model, model.parent, tmp_path / "models" / "." / "own"):
        assert "the unpruned model is in there" in excise("apply", neurons, model, "--output", output, fails=True)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def test_what_excise_made_and_an_empty_folder_are_replaced(excise, tmp_path, tiny_model, neurons):
    (tmp_path / "out").mkdir()
    for _ in range(2):
        excise("apply", neurons, tiny_model, "--output", tmp_path / "out")
        excise("fetch-model", "--source", tiny_model, "--output", tmp_path / "fetched")
    assert (tmp_path / "out" / "units.json").is_file()
    assert (tmp_path / "fetched" / "excise.json").is_file()


def test_others_may_read_an_exported_model_as_far_as_the_umask_lets_them(excise, tmp_path, tiny_model, neurons):
    before = os.umask(0o027)
    try:
        excise("apply", neurons, tiny_model, "--output", tmp_path / "out")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {0o640}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


def test_a_model_that_is_not_there_is_said_to_be_missing(excise, tmp_path, neurons):
    message = excise("apply", neurons, tmp_path / "nowhere", "--output", tmp_path / "out", fails=True)
    assert "there is no such folder" in message
