"""A made-up world of known effects, summarised and reported once for all tests of the reporting."""

from pathlib import Path

import pytest

from excise.cli import main
from excise.reporting.summary import Summary, read_summary
from tests.unit.reporting import make_world, report_command, summary_command


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the world's results; do not write into it."""
    made = make_world(tmp_path_factory.mktemp("a world 'quoted' ü"))
    assert main(summary_command(made)) == 0
    assert main(report_command(made)) == 0
    return made


@pytest.fixture(scope="session")
def summary(results: Path) -> Summary:
    """Its summary."""
    return read_summary(results / "summary.json")
