"""Tiny real models that the tests make themselves."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Before anything imports a numerics library: one thread, so that tests do not fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

REPOSITORY = Path(__file__).parent.parent

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
        status = main([str(argument) for argument in arguments])
        messages = capsys.readouterr().err
        assert status == (1 if fails else 0), messages
        return messages

    return run
