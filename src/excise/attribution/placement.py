"""Models larger than one device: layers spread over a node's accelerators, the rest offloaded."""

import logging
from pathlib import Path
from typing import Any

import torch

from excise.architectures import architecture
from excise.errors import unknown
from excise.resources.models import DTYPES, load_config

logger = logging.getLogger(__name__)

SPREAD = "spread"
"""Name of the placement that accelerate chooses: all accelerators first, then main memory, then disk."""


def load_spread(folder: str | Path, *, dtype: str) -> Any:
    """A causal language model over all devices of this machine, in eval mode with frozen parameters.

    Args:
        folder: a Hugging Face folder with config.json and safetensors.
        dtype: one of ``DTYPES``.

    Raises:
        ExciseError: no such model, an unsupported family, or an unknown dtype.
    """
    from transformers import AutoModelForCausalLM

    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    architecture(load_config(folder))
    model = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=getattr(torch, dtype), device_map="auto", local_files_only=True, use_safetensors=True
    )
    for device, count in _counts(getattr(model, "hf_device_map", {})).items():
        logger.info("%d parts of the model on %s", count, device)
    return model.eval().requires_grad_(False)


def _counts(placement: dict[str, Any]) -> dict[str, int]:
    names = [str(device) for device in placement.values()]
    return {name: names.count(name) for name in sorted(set(names))}


def input_device(model: Any) -> torch.device:
    """Where token ids are to be put: the device of the embeddings, or that which they are brought to for a pass."""
    embeddings = model.get_input_embeddings()
    if embeddings.weight.is_meta:
        return torch.device(embeddings._hf_hook.execution_device)
    device: torch.device = embeddings.weight.device
    return device
