"""An encoder as one ONNX file, pooling included; it takes its name only when another runtime gives its embeddings."""

import json
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from excise.artefacts import Json, replacing
from excise.errors import ExciseError
from excise.models.encoder import Encoder, forward, padded, tokenised
from excise.models.pooling import pool
from excise.retrieval.saving import CHECKED, size_info

INPUTS = ("input_ids", "attention_mask")
OUTPUTS = ("last_hidden_state", "sentence_embedding")
"""The names that other tools look for."""

TOLERANCE = 1e-5
"""Of an embedding's numbers, relative to its length: the two runtimes add in another order."""

LARGEST = 2**31 - 2**20
"""Bytes of weights that one file can hold (a limit of protobuf), with room for the graph."""


class _Graph(nn.Module):
    """What the file computes: token states ``[texts, tokens, hidden]`` and embeddings ``[texts, hidden]``."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.model, self.pooling = encoder.model, encoder.pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states, pool(states, attention_mask, self.pooling)


def export(encoder: Encoder, output: Path, meta: Json) -> float:
    """Write an encoder as ONNX: any number of texts, any length up to the encoder's.

    Args:
        encoder: dense or cut, float32, on the CPU. Tokenizer and prefixes stay outside the file.
        output: file to write.
        meta: provenance, for the file's metadata (key ``excise``).

    Returns:
        The largest difference between the two runtimes' embeddings, relative to the length of an embedding.

    Raises:
        ExciseError: the packages are missing, the weights are too large for one file, or the embeddings differ.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (torch writes with it)
    except ImportError as error:
        raise ExciseError(f"ONNX: {error}. Install what it needs: pip install 'excise[onnx]'") from error
    size = size_info(encoder)["weight_bytes"]
    if size > LARGEST:
        raise ExciseError(f"{output}: {size / 1e9:.1f} GB of weights; one ONNX file holds 2 GB at most")
    data = _written(encoder, meta)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    apart = 0.0
    for texts in (CHECKED[:1], CHECKED, [" ".join(CHECKED * encoder.max_length)]):
        rows, mask = padded(encoder, tokenised(encoder, texts, "document")[0])
        given = {"input_ids": rows.numpy(), "attention_mask": mask.numpy()}
        found = torch.from_numpy(session.run([OUTPUTS[1]], given)[0])
        with torch.inference_mode():
            wanted = forward(encoder, rows, mask)
        apart = max(apart, float(((found - wanted).abs().amax(1) / wanted.norm(dim=1)).max()))
    if not apart <= TOLERANCE:
        raise ExciseError(
            f"{output}: embeddings in onnxruntime differ from torch's by {apart:.1e} of their length (rounding is "
            f"below {TOLERANCE:g}); nothing is written. Please report this, with the versions of torch, onnx and "
            "onnxruntime"
        )
    with replacing(output) as file:
        file.write(data)
    return apart


def _written(encoder: Encoder, meta: Json) -> bytes:
    """The file's bytes."""
    example = padded(encoder, tokenised(encoder, CHECKED, "document")[0])
    texts, tokens = torch.export.Dim("texts"), torch.export.Dim("tokens", max=encoder.max_length)
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):  # which tell of every node
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter, about itself
        program = torch.onnx.export(
            _Graph(encoder).eval(),
            example,
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_shapes=({0: texts, 1: tokens}, {0: texts, 1: tokens}),
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # noqa: S101 (no file was named)
    program.model.metadata_props["excise"] = json.dumps(meta, sort_keys=True)
    data: bytes = program.model_proto.SerializeToString(deterministic=True)
    return data
