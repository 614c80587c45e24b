"""The transformer of a cut encoder, as a module of sentence-transformers; its ``modules.json`` names this class.

sentence-transformers is no dependency: it calls these methods, and nothing of it is imported here.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from excise.errors import ExciseError
from excise.models.encoder import Encoder, load_encoder


class ExciseTransformer(nn.Module):
    """Token states of a cut encoder; pooling and normalisation are modules of their own there."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.auto_model: nn.Module = encoder.model
        self.tokenizer = encoder.tokenizer
        self.max_seq_length = encoder.max_length

    @classmethod
    def load(cls, model_name_or_path: str, **_: Any) -> "ExciseTransformer":
        """Open a folder that excise saved.

        Raises:
            ExciseError: there is no such folder here, or it is none of ours.
        """
        if not Path(model_name_or_path).is_dir():
            raise ExciseError(f"{model_name_or_path}: no folder here; download the model first")
        return cls(load_encoder(model_name_or_path))

    def tokenize(self, texts: list[str], **_: Any) -> dict[str, Tensor]:
        """Token ids and mask of a batch, padded and cut at the maximal length."""
        if self.encoder.pooling.lower:
            texts = [text.lower() for text in texts]
        options = {"padding": True, "truncation": True, "max_length": self.max_seq_length, "return_tensors": "pt"}
        return dict(self.tokenizer(texts, **options))

    preprocess = tokenize
    """Its name in sentence-transformers 5.4 and later."""

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add ``token_embeddings`` ``[texts, tokens, hidden]`` to the features."""
        states = self.auto_model(input_ids=features["input_ids"], attention_mask=features["attention_mask"])
        return features | {"token_embeddings": states.last_hidden_state}

    def get_word_embedding_dimension(self) -> int:
        """Width of the states."""
        return int(self.encoder.model.config.hidden_size)

    get_embedding_dimension = get_word_embedding_dimension

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Refuse: a cut model is saved by excise.

        Raises:
            ExciseError: always.
        """
        raise ExciseError(f"{output_path}: sentence-transformers cannot save a cut encoder; copy its folder instead")
