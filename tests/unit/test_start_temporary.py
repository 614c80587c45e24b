"""A folder for temporary files that cannot be used is named before Snakemake stumbles over it."""

import tempfile
from pathlib import Path

import pytest

from excise.errors import ExciseError
from tests.unit.test_start import start


def test_where_no_temporary_file_can_be_made_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    start.check_caches()
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "file")])  # all that Python tries
    with pytest.raises(ExciseError, match="export TMPDIR=FOLDER"):
        start.check_caches()
