"""Tiny random encoders that the tests of retrieval make."""

import json
from pathlib import Path
from typing import Any

WORDS = [
    "cats",
    "dogs",
    "sleep",
    "bark",
    "all",
    "day",
    "night",
    "rain",
    "falls",
    "over",
    "quiet",
    "streets",
    "people",
    "walk",
    "home",
    "grey",
    "skies",
    "dinner",
]


def make_encoder(folder: Path, *, family: str = "bert", pooling: str = "mean", seed: int = 0, **overrides: Any) -> Path:
    """Save a random encoder of 3 layers x 24 neurons and 4 heads, its word tokenizer, and files of sentence-transformers."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = dict(zip(("pad_token", "cls_token", "sep_token", "unk_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=40, **names).save_pretrained(str(folder))
    settings = {
        "vocab_size": len(vocabulary),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 40,
        "initializer_range": 0.5,
        "pad_token_id": 0,
    }
    torch.manual_seed(seed)
    model = AutoModel.from_config(AutoConfig.for_model(family, **(settings | overrides)))
    for parameter in model.parameters():  # biases and norms begin at 0 and 1, which would hide mistakes
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(str(folder))
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    switches = {
        f"pooling_mode_{name}": name == f"{pooling}_token{'' if pooling == 'cls' else 's'}"
        for name in ("cls_token", "mean_tokens", "max_tokens")
    }
    width = {"word_embedding_dimension": model.config.hidden_size}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(width | switches))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12, "do_lower_case": False}))
    return folder


def some_texts(count: int, *, seed: int = 0, longest: int = 9) -> list[str]:
    """Random texts of 1 to ``longest`` words."""
    import numpy as np

    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(1, longest + 1))) for _ in range(count)]
