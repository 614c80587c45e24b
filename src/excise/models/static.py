"""One vector per token in place of an encoder: a table that is looked up, its rows averaged over the tokens of a text.

The cheapest peer of a smaller encoder: what it keeps, no pruned encoder may fall below. The folder holds the table as
``model.safetensors``, and a ``config.json`` that says so.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from excise.artefacts import Json, parse_json
from excise.errors import ExciseError
from excise.models.files import read_tensors, stored

STATIC = "excise-static"
"""``model_type`` of such a folder."""


class StaticVectors(nn.Module):
    """A table of token vectors, called as a transformer is.

    Args:
        vectors: ``[vocabulary, hidden]``; those of special tokens are 0, so that they change no direction of a mean.
    """

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors, requires_grad=False)
        self.config: Any = SimpleNamespace(
            hidden_size=vectors.shape[1], vocab_size=len(vectors), model_type=STATIC, num_hidden_layers=0
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:  # noqa: ARG002 (pooling masks)
        """The vectors of the tokens as ``last_hidden_state`` ``[texts, tokens, hidden]``."""
        return SimpleNamespace(last_hidden_state=self.vectors[input_ids])

    def as_config(self) -> Json:
        """What ``config.json`` holds."""
        return {key: getattr(self.config, key) for key in ("model_type", "hidden_size", "vocab_size")}


def is_static(folder: Path) -> bool:
    """Whether a folder holds static vectors."""
    path = folder / "config.json"
    if not path.is_file():
        return False
    found = parse_json(path.read_text("utf-8"), f"{path} is")
    return isinstance(found, dict) and found.get("model_type") == STATIC


def load_static(folder: Path, dtype: str) -> StaticVectors:
    """The table of a folder.

    Raises:
        ExciseError: the weights hold something else.
    """
    found = dict(read_tensors(stored(folder)))
    if found.keys() != {"vectors"} or found["vectors"].ndim != 2:
        raise ExciseError(f"{folder}: expected one tensor 'vectors' of two dimensions, found {', '.join(found)}")
    return StaticVectors(found["vectors"].to(getattr(torch, dtype)))
