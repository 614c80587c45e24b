"""The hub: its real client against a server on this machine, and its cache folder without any."""

import errno
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

import pytest

from excise.artefacts import read_json, read_jsonl
from excise.data.hub import explained
from excise.errors import ExciseError
from excise.models.loading import fingerprint
from tests.unit.scorers import bert_folder, save_classifier, write_checkpoint
from tests.unit.test_models_files import split

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_verysecrettoken"


def hub_folder(home: Path, kind: str, repository: str, files: dict[str, bytes]) -> None:
    """Lay out a repository as the hub's cache does: refs, snapshots of links, blobs."""
    root = home / "hub" / f"{kind}s--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    for name, data in files.items():
        blob = root / "blobs" / hashlib.sha256(data).hexdigest()
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(data)
        link = root / "snapshots" / COMMIT / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as its client asks for: one open, one gated repository, and no others."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes] = {}  # noqa: RUF012
    asked: list[tuple[str, str | None]] = []  # noqa: RUF012

    def do_HEAD(self):
        self.generate_references()

    def do_GET(self):
        self.generate_references()

    def log_message(self, *_):
        pass

    def generate_references(self):
        self.asked.append((self.path, self.headers.get("Authorization")))
        path = (
            urllib.parse.unquote(self.path)
            .removeprefix("/api/models")
            .removeprefix("/api/datasets")
            .removeprefix("/datasets")
            .lstrip("/")
        )
        owner, name, *rest = path.split("?")[0].split("/")
        repository = f"{owner}/{name}"
        if repository == "me/gated":
            return self.send(403, headers={"X-Error-Code": "GatedRepo"})
        if repository != "me/open":
            return self.send(
                404 if self.headers.get("Authorization") else 401, headers={"X-Error-Code": "RepoNotFound"}
            )
        if rest[:1] in (["revision"], ["resolve"], ["tree"]) and rest[1] not in ("main", COMMIT):
            return self.send(404, headers={"X-Error-Code": "RevisionNotFound"})
        if rest[:1] == ["resolve"]:
            data = self.files.get("/".join(rest[2:]))
            if data is None:
                return self.send(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            return self.send(
                200, data, {"ETag": etag, "X-Repo-Commit": COMMIT, "Content-Type": "application/octet-stream"}
            )
        if rest[:1] == ["tree"]:
            return self.send(200, self.tree("/".join(rest[2:])), {"Content-Type": "application/json"})
        info = {"id": "me/open", "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]}
        return self.send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def tree(self, folder):
        """The entries of a folder, or of all folders if the client asks so."""
        start = f"{folder}/" if folder else ""
        entries = {}
        for name, data in self.files.items():
            if name.startswith(start):
                below = name[len(start) :].split("/")
                if len(below) == 1 or "recursive=true" in self.path.lower():
                    oid = hashlib.sha1(data).hexdigest()  # noqa: S324
                    entries[name] = {"type": "file", "path": name, "size": len(data), "oid": oid}
                else:
                    entries[start + below[0]] = {"type": "directory", "path": start + below[0], "oid": "0" * 40}
        return json.dumps(list(entries.values())).encode()

    def send(self, status, data=b"", headers=()):
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture
def hub():
    """A running server; its address."""
    Hub.files, Hub.asked = {}, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(tmp_path):
    """Run ``excise`` in a process of its own, for the hub's client reads its settings once."""

    def run(*arguments, fails=False, **settings):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-m", "excise", *map(str, arguments)]
        result = subprocess.run(command, env=environment | settings, capture_output=True, text=True, cwd=tmp_path)
        assert result.returncode == (1 if fails else 0), result.stderr
        assert TOKEN not in result.stdout + result.stderr
        return result.stderr

    return run


def test_a_model_from_the_hub_and_again_without_it(hub, run, tiny_model, tmp_path):
    names = ("pytorch_model.bin", "modeling_x.py", "onnx/model.safetensors", "consolidated.safetensors")
    unwanted = dict.fromkeys(names, b"never fetched")
    parts = split(tiny_model, tmp_path / "parts", "model.safetensors-0000{}-of-00002.safetensors")
    Hub.files = {path.name: path.read_bytes() for path in parts.iterdir()} | unwanted
    run("fetch-model", "--source", "me/open", "--output", tmp_path / "one", HF_ENDPOINT=hub, HF_TOKEN=TOKEN)
    assert fingerprint(tmp_path / "one") == fingerprint(tiny_model)
    source = read_json(tmp_path / "one" / "excise.json")
    assert (source["id"], source["source"], source["revision"]) == ("me/open", "hub:me/open", COMMIT)
    assert any(token == f"Bearer {TOKEN}" for _, token in Hub.asked)  # it was used ...
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    fetched = {path.rpartition("/resolve/")[2].partition("/")[2] for path, _ in Hub.asked if "/resolve/" in path}
    assert fetched
    assert not fetched & unwanted.keys()
    # The same by its commit, from the cache alone.
    command = ("fetch-model", "--source", "hub:me/open", "--revision", COMMIT)
    run(*command, "--output", tmp_path / "two", HF_HUB_OFFLINE="1")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_what_the_hub_refuses_is_explained(hub, run, tiny_model):
    Hub.files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    for source, options, message in (
        ("me/gated", (), r"hub:me/gated: access is gated. Accept the licence on its page on the hub (me/gated)"),
        ("me/nothing", (), "there is no such model on the hub, or it is private"),
        ("me/open", ("--revision", "v9"), "hub:me/open at revision v9: there is no such commit, tag or branch"),
        ("hub:me/open/x.gguf", (), "hub:me/open: the repository has no file 'x.gguf'"),
    ):
        said = run(
            "fetch-model", "--source", source, *options, "--output", "out",
            fails=True, HF_ENDPOINT=hub, HF_TOKEN=TOKEN,
        )  # fmt: skip
        assert message in said
        if source != "me/open":
            assert "HF_TOKEN" in said or source.endswith("gguf")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "mamba"}, "unknown model type 'mamba'"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}}, "weights are quantised"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "fp8"}}, "weights are quantised"),
    ],
)
def test_an_unsupported_model_is_refused_before_its_weights_are_fetched(hub, run, config, message):
    Hub.files = {"config.json": json.dumps(config).encode(), "model.safetensors": b"gigabytes"}
    said = run("fetch-model", "--source", "me/open", "--output", "out", fails=True, HF_ENDPOINT=hub)
    assert message in said
    assert not [path for path, _ in Hub.asked if "safetensors" in path]


def test_without_the_hub(run):
    said = run("fetch-model", "--source", "me/open", "--output", "out", fails=True, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in said
    assert "login node" in said
    said = run("fetch-text", "--source", "me/open", "--output", "o", fails=True, HF_ENDPOINT="http://127.0.0.1:9")
    assert "no network, or the hub is down" in said


def test_one_file_of_a_data_set(hub, run, tmp_path):
    Hub.files = {"en/part 1.jsonl": b'{"text": "one"}\n{"text": "two"}\n'}
    command = ("fetch-text", "--source", "hub:me/open/en/part 1.jsonl", "--output", "t.jsonl")
    run(*command, HF_ENDPOINT=hub)
    meta, rows = read_jsonl(tmp_path / "t.jsonl")
    assert [row["text"] for row in rows] == ["one", "two"]
    assert meta["settings"]["source"] == "hub:me/open/en/part 1.jsonl"
    assert meta["settings"]["revision"] == COMMIT
    before = (tmp_path / "t.jsonl").read_bytes()
    run(*command, HF_HUB_OFFLINE="1")
    assert (tmp_path / "t.jsonl").read_bytes() == before


def parquet(rows):
    import io

    import pyarrow
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


def test_data_sets_in_the_hubs_cache(run, tmp_path):
    card = b"""---
configs:
- config_name: wikitext-2-raw-v1
  data_files: [{split: test, path: wikitext-2-raw-v1/test-*}, {split: train, path: wikitext-2-raw-v1/train-*}]
- config_name: other
  data_files: [{split: test, path: other/test-*}]
---
"""
    lines = ["", " = Title = \n", "", " Words . \n"]
    hub_folder(
        tmp_path / "home",
        "dataset",
        "Salesforce/wikitext",
        {
            "README.md": card,
            "wikitext-2-raw-v1/test-0.parquet": parquet([{"text": line} for line in lines]),
            "wikitext-2-raw-v1/train-0.parquet": parquet([{"text": "training"}]),
            "other/test-0.parquet": parquet([{"text": "other"}]),
        },
    )
    records = [
        {"challenging": mark, "prompt": {"text": text, "toxicity": 0.5}, "continuation": {"text": " x"}}
        for text, mark in (("a", True), ("b", False), ("c", None))
    ]
    hub_folder(tmp_path / "home", "dataset", "me/prompts", {"data.jsonl": "\n".join(map(json.dumps, records)).encode()})
    command = ("fetch-text", "--source", "Salesforce/wikitext", "--output", "t.jsonl", "--subset")
    run(*command, "wikitext-2-raw-v1", "--label", "WikiText2", HF_HUB_OFFLINE="1")
    meta, rows = read_jsonl(tmp_path / "t.jsonl")
    assert [row["text"] for row in rows] == lines
    assert (meta["label"], meta["settings"]["revision"]) == ("WikiText2", COMMIT)
    assert (meta["settings"]["subset"], meta["settings"]["split"]) == ("wikitext-2-raw-v1", "test")
    assert "not the raw test split" in run(*command, "other", "--label", "WikiText2", fails=True, HF_HUB_OFFLINE="1")
    said = run(*command, "wikitext-2", fails=True, HF_HUB_OFFLINE="1")
    assert "wikitext-2-raw-v1" in said  # the ones there are
    assert "nosplit" in run(*command, "other", "--split", "nosplit", fails=True, HF_HUB_OFFLINE="1")

    command = ("fetch-prompts", "--source", "me/prompts", "--only", "challenging", "--output", "p.jsonl")
    run(*command, HF_HUB_OFFLINE="1")
    meta, rows = read_jsonl(tmp_path / "p.jsonl")
    assert [(row["text"], row["toxicity"]) for row in rows] == [("a", 0.5)]
    assert meta["settings"]["revision"] == COMMIT


def test_a_data_set_from_the_hub_and_again_without_it(hub, run, tmp_path):
    card = b"---\nconfigs:\n- config_name: raw\n  data_files: [{split: test, path: raw/test-*}]\n- config_name: other\n"
    Hub.files = {
        "README.md": card + b"  data_files: [{split: test, path: other/test-*}]\n---\n",
        "raw/test-0.parquet": parquet([{"text": "one"}, {"text": ""}, {"text": "three"}]),
        "other/test-0.parquet": parquet([{"text": "other"}]),
    }
    command = ("fetch-text", "--source", "me/open", "--subset", "raw", "--output")
    run(*command, "one.jsonl", HF_ENDPOINT=hub)
    meta, rows = read_jsonl(tmp_path / "one.jsonl")
    assert [row["text"] for row in rows] == ["one", "", "three"]
    assert meta["settings"]["revision"] == COMMIT
    assert not [path for path, _ in Hub.asked if "other" in path and "parquet" in path]
    run(*command, "two.jsonl", HF_HUB_OFFLINE="1")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    run(*command, "three.jsonl", "--limit", 1, HF_ENDPOINT=hub)
    assert [row["text"] for row in read_jsonl(tmp_path / "three.jsonl")[1]] == ["one"]


@pytest.fixture
def judge(tmp_path):
    """The files of a small classifier."""
    base = bert_folder(tmp_path / "base", ["cat", "rain"])
    save_classifier(tmp_path / "judge", base, ["neutral", "toxic"])
    return tmp_path / "judge"


@pytest.fixture
def generations(tmp_path):
    rows = [{"id": f"p{n}", "draw": 0, "completion": text} for n, text in enumerate(("the cat", "rain", ""))]
    (tmp_path / "generations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "generations.jsonl"


def test_a_classifier_is_fetched_and_then_scores_without_the_hub(hub, run, judge, generations, tmp_path):
    Hub.files = {path.name: path.read_bytes() for path in judge.iterdir()}
    score = ("score", "--generations", generations, "--scorer")
    said = run(*score, "hf:me/open", "--output", "none.jsonl", fails=True, HF_HUB_OFFLINE="1")
    assert "scorer hf:me/open: cannot be loaded" in said
    assert "Run excise fetch-scorer once where there is a network (a login node) with the same HF_HOME" in said
    run("fetch-scorer", "--scorer", "hf:me/open", "--output", "s/open.json", HF_ENDPOINT=hub, HF_TOKEN=TOKEN)
    assert any(token == f"Bearer {TOKEN}" for _, token in Hub.asked)
    fetched = (tmp_path / "s/open.json").read_text()
    assert str(tmp_path) not in fetched
    assert TOKEN not in fetched
    asked = len(Hub.asked)
    run(*score, "hf:me/open", "--output", "hub.jsonl", HF_ENDPOINT=hub, HF_HUB_OFFLINE="1")
    assert len(Hub.asked) == asked
    meta, rows = read_jsonl(tmp_path / "hub.jsonl")
    assert meta["scorer"] == json.loads(fetched)["scorer"]
    assert (meta["scorer"]["revision"], meta["scorer"]["label"]) == (COMMIT, "toxic")
    run(*score, f"hf:{judge}", "--output", "folder.jsonl")
    assert rows == read_jsonl(tmp_path / "folder.jsonl")[1]


def test_detoxify_is_fetched_and_then_scores_without_a_network(hub, run, judge, generations, tmp_path):
    """Its tokenizer comes from the hub; its weights are where torch keeps what it downloaded."""
    from detoxify.detoxify import MODEL_URLS

    base = tmp_path / "base"
    Hub.files = {path.name: path.read_bytes() for path in base.iterdir()}
    places = {"TORCH_HOME": str(tmp_path / "torch"), "HF_ENDPOINT": hub}
    score = ("score", "--generations", generations, "--scorer", "detoxify-original", "--output")
    fetch = ("fetch-scorer", "--scorer", "detoxify-original", "--output", "detoxify.json")
    said = run(*score, "none.jsonl", fails=True, HF_HUB_OFFLINE="1", **places)  # no connection is tried
    assert "HF_HUB_OFFLINE is set, and there is no toxic_original-c1212f89.ckpt here" in said
    assert "Run excise fetch-scorer once" in said
    assert "--checkpoint FOLDER" in said
    weights = tmp_path / "torch/hub/checkpoints" / MODEL_URLS["original"].rsplit("/", 1)[1]
    weights.parent.mkdir(parents=True)
    write_checkpoint(weights, base, "me/open")
    assert "Run excise fetch-scorer once" in run(*score, "none.jsonl", fails=True, HF_HUB_OFFLINE="1", **places)
    run(*fetch, **places)
    asked = len(Hub.asked)
    run(*score, "scores.jsonl", HF_HUB_OFFLINE="1", **places)
    assert len(Hub.asked) == asked > 0
    meta, rows = read_jsonl(tmp_path / "scores.jsonl")
    assert len(rows) == 3
    assert meta["scorer"] == json.loads((tmp_path / "detoxify.json").read_text())["scorer"]
    assert not (tmp_path / "none.jsonl").exists()


def test_a_scorer_that_is_not_to_be_had(hub, run):
    for scorer, message in (
        ("hf:me/gated", "gated"),
        ("hf:me/nothing", "not a valid model identifier"),
        ("hf:me/open@v9", "v9 is not a valid git identifier"),
    ):
        said = run("fetch-scorer", "--scorer", scorer, "--output", "out", fails=True, HF_ENDPOINT=hub)
        assert f"scorer {scorer}: cannot be loaded" in said
        assert message in said
        assert "HF_TOKEN" in said


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch, excise):
    import datasets
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "rows").mkdir()
    parquet.write_table(pyarrow.table({"text": ["a", "b"]}), tmp_path / "rows/test-00000.parquet")
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file/cache")
    said = excise("fetch-text", "--source", tmp_path / "rows", "--output", tmp_path / "o.jsonl", fails=True)
    assert "the cache cannot be written" in said
    assert "HF_DATASETS_CACHE" in said


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_an_error_of_the_disk_is_explained_and_others_are_not(number):
    with pytest.raises(ExciseError, match="HF_HOME=FOLDER"), explained("me/x"):
        raise OSError(number, os.strerror(number), "/some/file")
    with pytest.raises(OSError, match="odd"), explained("me/x"):
        raise OSError(errno.EIO, "odd")
