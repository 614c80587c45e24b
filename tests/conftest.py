"""Which tests run, side by side with which; tiny real models that the tests make themselves."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.slurm.cluster import missing

# Before anything imports a numerics library: one thread, so that tests do not fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

REPOSITORY = Path(__file__).parent.parent

SLURM = Path(__file__).parent / "slurm"
REQUIRED = "EXCISE_TEST_SLURM"
"""Set in continuous integration: the tests with a real Slurm must run."""
LACKING = missing()
LEFT_OUT = None if REQUIRED in os.environ else LACKING or "they start daemons as root and take ten minutes"
"""Why the tests with a real Slurm are left out."""
collect_ignore = [] if LEFT_OUT is None else [str(SLURM)]


def pytest_configure() -> None:
    """Refuse to leave out what must run."""
    if LEFT_OUT is None and LACKING is not None:
        raise pytest.UsageError(f"tests/slurm must run ({REQUIRED} is set), but cannot: {LACKING}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What shares a finished run or a model, a file, or a cluster, a folder, stays in one process (``make test`` runs several).

    pytest-xdist's own groups (3.8.0) are not seen by pytest 9.2: it spreads the tests without a word.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return path.rpartition("/")[0] if path.startswith("tests/slurm/") else path

    return Together(config, log)


LONGEST = ("slurm", "test_chains.py", "test_workflow.py", "test_readme.py", "workflow")
"""Folders and files of the tests that take longest, longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The fast ones first; where several processes share them the longest, so that none works alone in the end."""

    def place(item: pytest.Item) -> int:
        names = {item.path.name, item.path.parent.name}
        return next((number for number, name in enumerate(LONGEST) if name in names), len(LONGEST))

    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=place)
    else:
        items.sort(key=lambda item: place(item) < len(LONGEST))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say in the last lines what was left out, and how to run it."""
    asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    if LEFT_OUT and any(SLURM.is_relative_to(path) or path.is_relative_to(SLURM) for path in asked):
        terminalreporter.section("left out: tests with a real Slurm")
        terminalreporter.write_line(f"The tests in tests/slurm did not run: {LEFT_OUT}.")
        terminalreporter.write_line("To run them, on Debian or Ubuntu, as root and in a container if you like:")
        terminalreporter.write_line("  xargs -a tests/slurm/packages.txt apt-get install -y --no-install-recommends")
        terminalreporter.write_line(f"  {REQUIRED}=1 make test")


def clone_into(folder: Path) -> Path:
    """Copy what git tracks, or would, as it stands in the working tree."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, tracked):
        source, target = REPOSITORY / name, folder / name
        if source.is_file() or source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return folder


TEXT = (
    "the cat sat on a mat and looked at rain falling over quiet streets while people walked home "
    "under grey skies thinking of dinner friends letters books rivers mountains trains and music "
)
WORDS = TEXT.split()


@pytest.fixture(scope="session")
def words() -> list[str]:
    """A small vocabulary to write texts from."""
    return WORDS


def make_tokenizer(folder: Path) -> int:
    """Save a small byte-level BPE tokenizer; returns its vocabulary size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 8, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.save_pretrained(str(folder))
    return len(fast)


def make_model(folder: Path, *, seed: int = 0, **overrides: Any) -> Path:
    """Save a random two-layer Llama with its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.4,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    config = LlamaConfig(vocab_size=make_tokenizer(folder), **(settings | overrides))
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random two-layer Llama (2 x 24 neurons) with a tokenizer; do not write into it."""
    return make_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with other weights."""
    return make_model(tmp_path_factory.mktemp("other") / "model", seed=1)


@pytest.fixture
def excise(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run ``excise ARGUMENTS...`` in this process; returns its messages, fails the test when it fails."""
    from excise.cli import main

    def run(*arguments: object, fails: bool = False) -> str:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as error:  # a wrong command line
            status = error.code
        messages = capsys.readouterr().err
        assert status in ((1, 2) if fails else (0,)), messages
        return messages

    return run


def run_notebook(source: Path) -> dict[str, Any]:
    """Run the code of a notebook, which is kept without outputs; what its variables are in the end."""
    notebook = nbformat.read(source, as_version=4)
    nbformat.validate(notebook)
    variables: dict[str, Any] = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            exec(compile(cell.source, source.name, "exec"), variables)  # noqa: S102 (the repository's own notebook)
    return variables
