"""Open an encoder, dense or cut, and embed texts with it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excise.artefacts import Json, read_json
from excise.errors import ExciseError, unknown
from excise.models.families import refuse_other_order
from excise.models.files import read_tensors, stored
from excise.models.loading import DTYPES, identity, load_config, load_tokenizer, resolve_device
from excise.models.pooling import Pooling, pool, read_pooling
from excise.models.structure import STRUCTURE_FILE, Structure, cut, from_json

if TYPE_CHECKING:
    from torch import Tensor

BATCH_TOKENS = 2048
"""Tokens of a batch, padding included. Larger batches are no faster on a CPU."""


@dataclass
class Encoder:
    """A model that turns texts into embeddings.

    Attributes:
        model: the transformer, frozen, in eval mode.
        tokenizer: its tokenizer.
        pooling: how its states become embeddings.
        max_length: tokens of a text that are read.
        structure: which units of the dense model it has; None where it is dense.
        info: identity, as artefacts record it.
    """

    model: Any
    tokenizer: Any
    pooling: Pooling
    max_length: int
    structure: Structure | None
    info: Json


@dataclass(frozen=True)
class Embedded:
    """Embeddings of texts, and what was read for them.

    Attributes:
        vectors: ``[texts, hidden]``, float32 (float64 where the model is).
        tokens: of all distinct texts, special ones included.
        shortened: how many distinct texts were cut at the maximal length.
    """

    vectors: "Tensor"
    tokens: int
    shortened: int


def load_encoder(folder: str | Path, *, dtype: str = "float32", device: str = "cpu") -> Encoder:
    """An encoder from a folder of Hugging Face or of ours, with its pooling; runs no code from the folder.

    Args:
        folder: config.json, safetensors, tokenizer, the files of ``models.pooling``; ``structure.json`` if it is cut;
            or static vectors.
        dtype: float32, bfloat16 or float64.
        device: ``auto``, ``cpu``, ``cuda``, ...

    Raises:
        ExciseError: it is no encoder, says something unknown, or its weights do not fit.
    """
    from excise.models.static import is_static, load_static

    folder = Path(folder)
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    if is_static(folder):
        pooling, tokenizer = read_pooling(folder), load_tokenizer(folder)
        table = load_static(folder, dtype).eval().to(resolve_device(device))
        length = min(pooling.max_length or tokenizer.model_max_length, tokenizer.model_max_length)
        return Encoder(table, tokenizer, pooling, length, None, identity(folder, dtype))
    config = load_config(folder)
    refuse_other_order(config, causal=False, where=folder)
    pooling, tokenizer = read_pooling(folder), load_tokenizer(folder)
    path = folder / STRUCTURE_FILE
    structure = from_json(read_json(path), path) if path.is_file() else None
    model = build(folder, config, structure, dtype)
    limit = config.max_position_embeddings
    if config.model_type != "bert":  # their positions begin after the padding's
        limit -= config.pad_token_id + 1
    length = min(pooling.max_length or limit, limit, tokenizer.model_max_length)
    model.eval().requires_grad_(False)
    return Encoder(model.to(resolve_device(device)), tokenizer, pooling, length, structure, identity(folder, dtype))


def refuse_cut(encoder: Encoder, folder: Path) -> None:
    """Refuse what is no dense encoder.

    Raises:
        ExciseError: it was cut, or is static vectors.
    """
    if encoder.structure is not None or not encoder.model.config.num_hidden_layers:
        what = "it is static vectors" if encoder.structure is None else "it is cut already"
        raise ExciseError(f"{folder}: {what}; take the dense encoder")


def build(folder: Path, config: Any, structure: Structure | None, dtype: str) -> Any:
    """The transformer with its weights.

    Raises:
        ExciseError: tensors are missing or have other shapes; only the pooler, which no embedding uses, may be extra.
    """
    import torch
    from transformers import AutoModel

    options = {} if config.model_type not in ("bert", "roberta", "xlm-roberta") else {"add_pooling_layer": False}
    if structure is not None:
        config.num_hidden_layers = structure.layers[-1].layer + 1
    model = AutoModel.from_config(config, dtype=getattr(torch, dtype), **options)
    if structure is not None:
        cut(model, structure)
    prefix = f"{model.base_model_prefix}."
    found = {name.removeprefix(prefix): tensor for name, tensor in read_tensors(stored(folder))}
    wanted = model.state_dict()
    if missing := sorted(wanted.keys() - found.keys()):
        raise ExciseError(
            f"{folder}: the weights lack {len(missing)} tensors of the model ({', '.join(missing[:3])}); they do not "
            "belong to this config.json, or are incomplete"
        )
    extra = [name for name in sorted(found.keys() - wanted.keys()) if not _harmless(name)]
    if extra:
        raise ExciseError(
            f"{folder}: the weights hold {len(extra)} tensors that this model has no place for ({', '.join(extra[:3])})"
        )
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            raise ExciseError(
                f"{folder}: {name} should be {tuple(tensor.shape)}, but the weights hold {tuple(found[name].shape)}"
            )
    model.load_state_dict({name: found[name] for name in wanted})
    return model


def _harmless(name: str) -> bool:
    """Tensors that no embedding depends on: the pooler, heads of pre-training, buffers of old versions."""
    return name.startswith(("pooler.", "cls.", "lm_head.", "classifier.")) or name.endswith(".position_ids")


def tokenised(encoder: Encoder, texts: Sequence[str], kind: str) -> tuple[list[list[int]], int]:
    """Token ids of each text with its prefix, and how many texts were cut at the maximal length."""
    prefix = encoder.pooling.prefixes[kind]
    full = [f"{prefix}{text.lower() if encoder.pooling.lower else text}" for text in texts]
    ids = encoder.tokenizer(full, truncation=True, max_length=encoder.max_length, return_overflowing_tokens=False)
    lists: list[list[int]] = ids["input_ids"]
    long = [place for place, one in enumerate(lists) if len(one) == encoder.max_length]
    whole = encoder.tokenizer([full[place] for place in long], verbose=False)["input_ids"] if long else []
    return lists, sum(len(one) > encoder.max_length for one in whole)


def batches(lengths: Sequence[int], tokens: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Places of texts, longest first, in batches of at most ``tokens`` tokens, padding included.

    The longest text first: if memory is too small it fails at once.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    start = 0
    while start < len(order):
        count = max(1, tokens // lengths[order[start]])
        yield order[start : start + count]
        start += count


def padded(encoder: Encoder, ids: Sequence[Sequence[int]]) -> tuple["Tensor", "Tensor"]:
    """Token ids padded on the right, and the mask: 1 for tokens, 0 for padding, ``[texts, tokens]`` each."""
    import torch

    width = max(map(len, ids))
    fill = encoder.tokenizer.pad_token_id
    device = next(encoder.model.parameters()).device
    rows = torch.tensor([[*one, *[fill] * (width - len(one))] for one in ids], device=device)
    mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in ids], device=device)
    return rows, mask


def forward(encoder: Encoder, rows: "Tensor", mask: "Tensor") -> "Tensor":
    """Embeddings of a padded batch, ``[texts, hidden]``; gradients flow where the caller lets them."""
    states = encoder.model(input_ids=rows, attention_mask=mask).last_hidden_state
    return pool(states, mask, encoder.pooling)


def embed(encoder: Encoder, texts: Sequence[str], kind: str = "document") -> Embedded:
    """Embed texts, sorted by length for speed; the order of the result is that of the texts.

    Equal texts get equal embeddings, to the last bit: they are embedded once. Different batches round differently, and
    would break ties between them at random.

    Args:
        encoder: dense or cut.
        texts: any number, at least one.
        kind: ``query`` or ``document``: which prefix they get.
    """
    import torch

    distinct = list(dict.fromkeys(texts))
    ids, shortened = tokenised(encoder, distinct, kind)
    vectors: dict[str, Tensor] = {}
    with torch.inference_mode():
        for places in batches([len(one) for one in ids]):
            found = forward(encoder, *padded(encoder, [ids[place] for place in places])).cpu()
            vectors |= {distinct[place]: vector for place, vector in zip(places, found, strict=True)}
    stacked = torch.stack([vectors[text] for text in texts])
    return Embedded(stacked if stacked.dtype == torch.float64 else stacked.float(), sum(map(len, ids)), shortened)
