"""What the summary and the report refuse to compare, and how they say so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from excise.artefacts import read_json
from excise.cli import main
from tests.unit.reporting import MODEL, WORLD, report_command, summary_command


def refused(command: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 1
    assert message in capsys.readouterr().err


def test_summary_refuses_what_cannot_be_compared(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, world = results / "variants/lrp-30/measurements.json", WORLD[:2]

    def with_change(message: str, change: Callable[[Any, dict[str, Any]], object]) -> None:
        body = read_json(source)
        change(body, {one["name"]: one for one in body["measurements"]})
        bad = tmp_path / "measurements.json"
        bad.write_text(json.dumps(body), encoding="utf-8")
        command = summary_command(results, world, "--json", str(tmp_path / "s.json"), "--csv", str(tmp_path / "s.csv"))
        command[command.index(str(source))] = str(bad)
        refused(command, message, capsys)
        assert not (tmp_path / "s.json").exists()

    def reversed_prompts(_: Any, by: dict[str, Any]) -> None:
        by["toxicity"]["items"] = by["toxicity"]["items"][::-1]

    def setting(name: str, key: str, value: object) -> Callable[[Any, dict[str, Any]], object]:
        return lambda _, by: by[name]["settings"].update({key: value})

    with_change("toxicity: not the same items in the same order", reversed_prompts)
    with_change("wikipedia: setting protocol differs", setting("wikipedia", "protocol", "sliding-2048-512"))
    with_change("toxicity: setting threshold differs: 0.9 against 0.5", setting("toxicity", "threshold", 0.9))
    with_change("toxicity: setting noun differs: repetition", setting("toxicity", "noun", "repetition"))
    with_change("toxicity: setting generation differs", setting("toxicity", "generation", {"seed": 1}))
    with_change("model differs", lambda body, _: body["meta"].update(model={**MODEL, "fingerprint": "cd"}))
    with_change("is given more than once", lambda body, _: body.update(variant="baseline", about={"kind": "baseline"}))
    with_change("was measured of one of them only", lambda body, _: body["measurements"].pop())
    with_change("inconsistent", lambda _, by: by["toxicity"]["metrics"]["share"].update(figure=0.9))
    with_change("not a file of measurements", lambda body, _: body.pop("measurements"))


def test_bad_commands(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(summary_command(results, WORLD, "--lower", "detoxify.share"), "unknown metric", capsys)
    refused(summary_command(results, WORLD, "--within", "a.b=+5 %"), "say with --lower or --raise", capsys)
    more = ("--lower", "toxicity.share", "--within", "wikipedia.perplexity=5 %")
    refused(summary_command(results, WORLD, *more), "'5 %' is not a budget; write a sign and a number", capsys)
    with pytest.raises(SystemExit, match="2"):
        main(summary_command(results, WORLD, "--resamples", "10"))
    assert "argument --resamples: '10' is less than the minimum of 100" in capsys.readouterr().err
    refused(summary_command(results, WORLD, "--broken-empty-rise", "-1"), "not negative", capsys)
    refused(summary_command(results, WORLD[1:]), "exactly one variant must be the baseline", capsys)
    refused(report_command(results, WORLD[:-1]), "made from other measurements", capsys)
    refused(report_command(results, WORLD, "--picture", "picture.pdf"), "unknown picture format", capsys)
    (tmp_path / "empty").mkdir()
    refused(
        report_command(results, WORLD, "--timings", str(tmp_path / "empty")),
        "no log in it that says what a stage took",
        capsys,
    )

    def without(option: str) -> list[str]:
        command = report_command(results)
        del command[command.index(option) + 1]
        return command

    refused(without("--scores"), "the scores that it was judged by are not among the files of --scores", capsys)
    refused(without("--generations"), "the generations that it was judged by are not among", capsys)
    strange = tmp_path / "strange.json"
    strange.write_bytes((results / "units/lrp-30.json").read_bytes() + b"\n")
    command = report_command(results)
    command[command.index("--units") + 1] = str(strange)
    refused(command, "strange.json: no variant of", capsys)
    old = tmp_path / "old.json"
    old.write_text('{"meta": {}, "primary": "x"}', encoding="utf-8")
    assert main(["show", str(old)]) == 1
    assert "not a summary of this version of excise (goal: " in capsys.readouterr().err
