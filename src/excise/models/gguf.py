"""Turn a GGUF file into a plain Hugging Face folder of safetensors."""

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

from excise.artefacts import Json
from excise.errors import ExciseError, unknown
from excise.models.families import architecture
from excise.models.loading import DTYPES, refuse_incomplete

logger = logging.getLogger(__name__)

SENTENCE = "The quick brown fox jumps over the lazy dog, and 12 friends watch: it's fine."


def convert(path: Path, folder: Path, *, dtype: str = "float32") -> Json:
    """Unpack the quantised weights and write config, weights and tokenizer; the same file gives the same bytes.

    The quantisation stays in the values: what is lost by it is not brought back.

    Args:
        path: the GGUF file.
        folder: an existing folder to write into.
        dtype: of the written weights.

    Returns:
        What is worth knowing about the tokenizer: its special tokens, and whether it puts one first by itself.

    Raises:
        ExciseError: the file is not readable, its family is not supported, or its tokenizer does not work.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise ExciseError(f"{path.name}: not a GGUF file (it does not start with GGUF)")
    held = _numbers(path)
    transformers_logging.disable_progress_bar()
    names = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar cannot be switched off
            tokenizer = AutoTokenizer.from_pretrained(**names)
            loaded, loading = AutoModelForCausalLM.from_pretrained(
                **names, dtype=getattr(torch, dtype), output_loading_info=True
            )
    except (ValueError, KeyError, TypeError, NotImplementedError, OSError) as error:
        raise ExciseError(f"{path.name}: cannot be converted: {' '.join(str(error).split())[:400]}") from error
    architecture(loaded.config)
    refuse_incomplete(loading, path.name)
    taken = sum(parameter.numel() for parameter in loaded.parameters())
    if taken != held:
        raise ExciseError(
            f"{path.name}: its tensors hold {held} numbers, of which transformers takes {taken}: what it drops "
            "(biases, factors of rotary embeddings) would change the model. Give it as a Hugging Face folder instead."
        )
    # The loaded model counts as quantised and refuses to be saved; a fresh one that takes over its tensors does not.
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    _save(folder, model, tokenizer)
    return _check_tokenizer(folder, tokenizer.encode(SENTENCE), path.name, config.vocab_size)


def _numbers(path: Path) -> int:
    """How many numbers the tensors of a GGUF file hold.

    Raises:
        ExciseError: the file cannot be read, or is one part of several, of which the others would be filled with
            random numbers.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        parts = reader.get_field("split.count")
        count = 1 if parts is None else int(parts.contents())
    except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
        raise ExciseError(f"{path.name}: not a readable GGUF file ({error}); fetch or copy it again") from error
    if count > 1:
        raise ExciseError(
            f"{path.name}: one of {count} parts of a model. Make one file of them with llama.cpp: "
            "llama-gguf-split --merge FIRST-PART.gguf WHOLE.gguf"
        )
    return sum(int(tensor.n_elements) for tensor in reader.tensors)


def _save(folder: Path, model: Any, tokenizer: Any) -> None:
    """Write both, readable for whoever may read the folder.

    Raises:
        ExciseError: the weights cannot be written.
    """
    from safetensors import SafetensorError

    try:
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
    except SafetensorError as error:
        raise ExciseError(f"the converted weights cannot be written ({error}); is the disk full?") from error
    for made in folder.glob("*.safetensors"):
        made.chmod((folder / "config.json").stat().st_mode)  # safetensors creates them for the owner alone


def _check_tokenizer(folder: Path, expected: list[int], name: str, vocabulary: int) -> Json:
    from excise.models.loading import load_tokenizer

    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(SENTENCE)
    if ids != expected:
        raise ExciseError(f"{name}: the saved tokenizer gives other token ids than the one in the file")
    bare = tokenizer.encode(SENTENCE, add_special_tokens=False)
    if not 5 < len(bare) < len(SENTENCE) or max(ids) >= vocabulary or tokenizer.unk_token_id in bare:
        raise ExciseError(f"{name}: its tokenizer does not work: {SENTENCE!r} becomes {ids}")
    if tokenizer.decode(bare).strip() != SENTENCE:
        raise ExciseError(f"{name}: its tokenizer does not give a sentence back: {tokenizer.decode(bare)!r}")
    return {
        "bos_token": tokenizer.bos_token,
        "eos_token": tokenizer.eos_token,
        "pad_token": tokenizer.pad_token,
        "adds_bos": ids[: len(ids) - len(bare)] == [tokenizer.bos_token_id] if len(ids) > len(bare) else False,
    }
