"""Files: whole or not at all, readable errors, and provenance that repeats."""

import json
import os
import resource
import signal
import subprocess
import sys

import pytest
import torch

from excise import digest as digests
from excise.artefacts import (
    read_json,
    read_jsonl,
    read_tensors,
    replacing,
    write_json,
    write_jsonl,
    write_tensors,
)
from excise.errors import ExciseError
from excise.progress import Progress


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {}, {"value": 1})
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert read_json(path)["value"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_write_left_goes_with_the_next_and_a_living_one_stays(tmp_path):
    path = tmp_path / "a.json"
    script = (
        "import os, signal, sys\n"
        "from excise.artefacts import replacing\n"
        "with replacing(sys.argv[1]) as file:\n"
        "    file.write(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, path], check=False).returncode == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    start = left.name.rpartition("-")[0]
    others = {
        tmp_path / f"{start}-{os.getppid()}.tmp",
        tmp_path / ".a.json.elsewhere-1.tmp",
        tmp_path / ".b.json.x.tmp",
    }
    for other in others:
        other.touch()
    write_json(path, {}, {"value": 1})
    assert set(tmp_path.iterdir()) == {path, *others}


def test_a_disk_that_fills_up_while_writing_is_an_error_and_keeps_the_old_file(tmp_path):
    """A limit on the size of files makes the operating system fail the write half-way, as a full disk does."""
    path = tmp_path / "a.json"
    write_json(path, {}, {"value": 1})
    script = (
        "import resource, sys\n"
        "from excise.artefacts import write_json\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "write_json(sys.argv[1], {}, {'value': 'x' * 100_000})\n"
    )
    result = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)
    assert "cannot be written (File too large)" in result.stderr
    assert read_json(path)["value"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ExciseError, match="cannot be written"):
        write_json(tmp_path / "file" / "a.json", {}, {})


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ExciseError, match="not a finite number"):
        write_json(tmp_path / "a.json", {}, {"value": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_jsonl_round_trip_and_files_from_elsewhere(tmp_path):
    path = tmp_path / "ü 'x.jsonl"
    rows = [{"id": "é", "text": "line\u2028separator"}, {"id": "b", "text": "x"}]
    write_jsonl(path, {"stage": "t"}, rows)
    assert read_jsonl(path, ["id"]) == ({"stage": "t"}, rows)
    path.write_text('{"id": 1}\n\n{"id": 2}\n')
    assert read_jsonl(path) == ({}, [{"id": 1}, {"id": 2}])
    assert read_jsonl(path, keep=lambda index: index == 1) == ({}, [{"id": 2}])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": 1}\n{"id": \n', "line 2 is not valid JSON"),
        ('{"id": 1}\n[1]\n', "line 2: expected a JSON object, found list"),
        ('{"id": 1}\n{"key": 1}\n', "line 2 lacks id; it has key"),
        ('{"meta": 5}\n{"id": 1}\n', "line 1: meta must be a JSON object, found int"),
        ('{"id": 1}\n{"id": "\\ud83d"}\n', "line 2 is not valid JSON .half a character"),
        ('{"id": 1}\n' + '{"id": ' * 100_000, "line 2 is not valid JSON .nested too deeply"),
    ],
)
def test_a_broken_jsonl_line_is_named(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(ExciseError, match=message):
        read_jsonl(path, ["id"])
    with pytest.raises(ExciseError, match=message):
        read_jsonl(path, ["id"], keep=lambda index: index == 0)


@pytest.mark.parametrize("value", ["null", "true", '"0.5"', "NaN", "1e999", "[1]"])
def test_what_must_be_a_number_is_one(tmp_path, value):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"meta": {{}}}}\n{{"score": 1}}\n{{"score": {value}}}\n')
    with pytest.raises(ExciseError, match=r"a\.jsonl: line 3: score .* is not a finite number"):
        read_jsonl(path, numbers=("score",))
    path.write_text('{"score": 1}\n{}\n')
    with pytest.raises(ExciseError, match="line 2 lacks score"):
        read_jsonl(path, numbers=("score",))


def test_a_byte_order_mark_is_passed_over_and_other_encodings_are_named(tmp_path):
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / f"{encoding}.jsonl").write_text('{"meta": {"a": 1}}\n{"id": 1}\n', encoding)
        (tmp_path / f"{encoding}.json").write_text('{"id": 1}', encoding)
    assert read_jsonl(tmp_path / "utf-8-sig.jsonl") == ({"a": 1}, [{"id": 1}])
    assert read_json(tmp_path / "utf-8-sig.json") == {"id": 1}
    with pytest.raises(ExciseError, match="not UTF-8 text"):
        read_jsonl(tmp_path / "utf-16.jsonl")
    with pytest.raises(ExciseError, match="not UTF-8 text"):
        read_json(tmp_path / "utf-16.json")


def test_tensors_round_trip_and_foreign_or_cut_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    tensors = {"x": torch.arange(6, dtype=torch.float64).view(2, 3).T}
    write_tensors(path, {"a": 1}, tensors)
    meta, read = read_tensors(path)
    assert meta == {"a": 1}
    assert torch.equal(read["x"], tensors["x"])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ExciseError, match="not a readable safetensors"):
        read_tensors(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ExciseError, match="not written by excise"):
        read_tensors(path)
    with pytest.raises(ExciseError, match="no such file"):
        read_tensors(tmp_path / "none")


def test_the_digest_follows_imports_and_notices_edits(tmp_path, monkeypatch):
    (tmp_path / "stages").mkdir()
    files = {
        "stages/one.py": "def run():\n    from excise.used import f\n",
        "used.py": "from excise import deep\n",
        "deep.py": "",
        "other.py": "",
        "plugin.py": "import excise.other\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(digests, "ROOT", tmp_path)

    def fresh(*modules):
        for function in (digests._imports, digests.sources, digests.digest):
            function.cache_clear()
        return digests.digest(*modules)

    plain, with_plugin = fresh("stages.one"), fresh("stages.one", "plugin")
    assert [path.name for path in digests.sources("stages.one")] == ["deep.py", "one.py", "used.py"]
    (tmp_path / "other.py").write_text("changed = 1\n")
    assert fresh("stages.one") == plain
    assert fresh("stages.one", "plugin") != with_plugin
    (tmp_path / "deep.py").write_text("changed = 1\n")
    assert fresh("stages.one") != plain
    for function in (digests._imports, digests.sources, digests.digest):
        function.cache_clear()


def test_a_template_belongs_to_what_renders_it():
    names = {path.name for path in digests.sources("stages.report")}
    assert {"report.html", "behaviour.html", "style.css"} <= names
    assert "report.html" not in {path.name for path in digests.sources("stages.summary")}


def test_sparse_progress_lines_say_how_far_and_how_long(caplog):
    caplog.set_level("INFO")
    now = [0.0]
    with Progress(10, "prompts", "generating", clock=lambda: now[0]) as progress:
        for _ in range(10):
            now[0] += 4
            progress.advance()
    lines = [record.message for record in caplog.records]
    assert lines == [
        "generating: 4 of 10 prompts, about 24 s left",
        "generating: 8 of 10 prompts, about 8 s left",
        "generating: 10 prompts in 40.0 s",
    ]


def test_help_is_quick_and_loads_no_numerics():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "excise", "--help"], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert not loaded & {"torch", "transformers", "numpy", "scipy", "matplotlib", "sklearn"}
    assert after.ru_utime - before.ru_utime < 0.5
    assert json.dumps("fetch-model")[1:-1] in result.stdout
