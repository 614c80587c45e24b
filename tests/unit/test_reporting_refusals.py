"""What the summary and the report refuse to compare, and how they say so."""

import json
from pathlib import Path

import pytest

from excise.artefacts import read_json
from excise.cli import main
from tests.unit.reporting import BASE, MODEL, WORLD, report_command, summary_command


def refused(command: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 1
    assert message in capsys.readouterr().err


def test_summary_refuses_what_cannot_be_compared(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = read_json(results / "variants/lrp-30/evaluation.json")
    world = WORLD[:2]

    def with_change(message: str, **changes: object) -> None:
        bad = tmp_path / "evaluation.json"
        body = {**good, **changes}
        bad.write_text(json.dumps(body), encoding="utf-8")
        command = summary_command(results, world, "--json", str(tmp_path / "s.json"), "--csv", str(tmp_path / "s.csv"))
        command[command.index("--evaluations") + 1] = str(bad)
        refused(command, message, capsys)
        assert not (tmp_path / "s.json").exists()

    with_change("not the same prompts in the same order", prompts=good["prompts"][::-1])
    with_change("not the same prompts in the same order", prompts=good["prompts"][:-1])
    with_change("perplexity protocol differs", perplexity={**good["perplexity"], "protocol": "sliding-2048-512"})
    with_change("perplexity text differs", perplexity={**good["perplexity"], "text": "WikiText2"})
    with_change("model differs", meta={**good["meta"], "model": {**MODEL, "fingerprint": "cd"}})
    with_change(
        "settings of the generation differs", meta={**good["meta"], "generation": {"seed": 1, "num_generations": 2}}
    )
    with_change("more than once", variant="baseline")
    other = {**good["scores"], BASE: {**good["scores"][BASE], "shown_by": "score >= 0.9"}}
    with_change("behaviour differs", scores=other)
    wrong = {**good["scores"], BASE: {**good["scores"][BASE], "share": 0.9}}
    with_change("inconsistent", scores=wrong)
    with_change("behaviour differs", behaviour={"noun": "repetition", "adjective": "repetitive"})
    with_change("made with no unit list", meta={**good["meta"], "selection": None})


def test_bad_commands(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(summary_command(results, WORLD, "--scorer", "detoxify"), "unknown scorer", capsys)
    refused(summary_command(results, WORLD, "--resamples", "10"), "at least 100", capsys)
    refused(summary_command(results, WORLD, "--broken-empty-rise", "-1"), "not negative", capsys)
    swapped = summary_command(results)
    at = swapped.index("--selections")
    swapped[at + 1], swapped[at + 2] = swapped[at + 2], swapped[at + 1]
    refused(swapped, "The order of --evaluations and --selections must be the same", capsys)
    del swapped[at + 1]
    refused(swapped, "9 evaluations but 8 selections", capsys)
    refused(report_command(results, WORLD, "--picture", str(tmp_path / "x.pdf")), "unknown picture format", capsys)
    refused(report_command(results, WORLD[:-1]), "made from other evaluations", capsys)
    (tmp_path / "empty").mkdir()
    refused(
        report_command(results, WORLD, "--timings", str(tmp_path / "empty")),
        "no log in it that says what a stage took",
        capsys,
    )
    short = report_command(results)
    del short[short.index("--scores") + 1]
    refused(short, "9 files for 10 evaluations", capsys)
