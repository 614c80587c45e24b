"""Open a model folder, and say exactly which model it is."""

import contextlib
import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excise.artefacts import Json, read_json
from excise.errors import ExciseError, unknown
from excise.models.families import architecture, neuron_shape

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

SOURCE_FILE = "excise.json"
"""In a fetched model folder: id, source, revision, fingerprint."""

DTYPES = ("float32", "bfloat16", "float64")
"""What a model runs in. float16 is left out: LRP gradients overflow in it."""

STORED_DTYPES = (*DTYPES, "float16")
"""What a model may be kept in on disk."""


def fingerprint(folder: str | Path) -> str:
    """SHA-256 over all tensors of a model folder (name, dtype, shape, bytes), in order of name.

    Does not depend on how the tensors are split over files.

    Raises:
        ExciseError: there is no such folder, or no safetensors in it, or they are cut short.
    """
    digests = {}
    for path in _weights(folder):
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                digests[name] = _tensor_digest(name, file.get_tensor(name))
    return hashlib.sha256("".join(digests[name] for name in sorted(digests)).encode()).hexdigest()


def _weights(folder: str | Path) -> list[Path]:
    """The files with the weights."""
    if not Path(folder).is_dir():
        raise ExciseError(f"{folder}: there is no such folder; a model is a Hugging Face folder")
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise ExciseError(
            f"{folder}: no *.safetensors in it. Pickled weights are not read: save the model again with "
            "save_pretrained, or choose a revision that has safetensors."
        )
    return files


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file.

    Raises:
        ExciseError: it cannot be read, or is cut short.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise ExciseError(
            f"{path}: not a readable safetensors file ({error}); it may be incomplete: fetch or copy it again"
        ) from error


def _tensor_digest(name: str, tensor: "torch.Tensor") -> str:
    import torch

    sha = hashlib.sha256(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
    sha.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def identity(folder: str | Path, dtype: str) -> Json:
    """The ``model`` block of an artefact: id, revision, fingerprint and the dtype it was run in.

    A folder that ``excise fetch-model`` made says so itself; any other one is named after the folder.
    """
    source = Path(folder) / SOURCE_FILE
    known = read_json(source) if source.is_file() else {"id": Path(folder).name, "fingerprint": fingerprint(folder)}
    return {"id": known["id"], "revision": known.get("revision"), "fingerprint": known["fingerprint"], "dtype": dtype}


SPREAD = "spread"
"""Device of a model that is larger than one: all accelerators of the machine first, then main memory, then disk."""


def resolve_device(name: str) -> "torch.device":
    """``auto`` and ``spread`` begin with the first accelerator, or the CPU where there is none.

    Raises:
        ExciseError: the device asked for is not there.
    """
    import torch

    if name in ("auto", SPREAD):
        found = torch.accelerator.current_accelerator()  # of this build of torch: the machine may have none
        return found if found is not None and torch.accelerator.is_available() else torch.device("cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ExciseError(f"device {name!r} was asked for, but torch sees no CUDA device. Allowed here: auto, cpu.")
    return device


def device_type(name: str) -> str:
    """What provenance says of a device: numbers of one kind of device are not those of another to the last bit."""
    return SPREAD if name == SPREAD else resolve_device(name).type


def input_device(model: Any) -> "torch.device":
    """Where token ids are to be put: the device of the embeddings, or that which they are brought to for a pass."""
    import torch

    embeddings = model.get_input_embeddings()
    if embeddings.weight.is_meta:
        return torch.device(embeddings._hf_hook.execution_device)
    device: torch.device = embeddings.weight.device
    return device


def load_model(
    folder: str | Path, *, dtype: str = "float32", device: str = "auto", allowed: Sequence[str] = DTYPES
) -> Any:
    """A causal language model in eval mode with frozen parameters; runs no code from the folder.

    Args:
        folder: a Hugging Face folder with config.json and safetensors.
        dtype: one of ``allowed``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``spread``.
        allowed: dtypes; ``STORED_DTYPES`` where the model is not run.

    Raises:
        ExciseError: no such model, an unsupported family, an unknown dtype, or weights that do not fit config.json.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    if dtype not in allowed:
        raise unknown("dtype", dtype, allowed)
    _described(folder, load_config(folder))
    disable_progress_bar()  # it shows tensors, not seconds; our own bars follow
    model, loading = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=getattr(torch, dtype),
        device_map="auto" if device == SPREAD else None,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    if loading["missing_keys"]:  # transformers only warns, and fills them with random numbers
        missing = sorted(loading["missing_keys"])
        raise ExciseError(
            f"{folder}: the weights lack {len(missing)} tensors of the model ({', '.join(missing[:3])}); "
            "they do not belong to this config.json, or are incomplete"
        )
    model.eval().requires_grad_(False)
    if device != SPREAD:
        return model.to(resolve_device(device))
    placed = getattr(model, "hf_device_map", {})  # absent where all of it lies in main memory
    for place, parts in Counter(map(str, placed.values())).items():
        logger.info("%d parts of the model on %s", parts, place)
    return model


def load_config(folder: str | Path) -> Any:
    """The model's configuration.

    Raises:
        ExciseError: there is no such folder, or its config.json cannot be read.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    if not (Path(folder) / "config.json").is_file():
        raise ExciseError(f"{folder}: no model here (no config.json)")
    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except (ValueError, OSError, json.JSONDecodeError, StrictDataclassError) as error:
        raise ExciseError(f"{folder}/config.json: {error}") from error


def _described(folder: str | Path, config: Any) -> tuple[Any, set[str]]:
    """The model that the configuration describes, without weights, and the dtypes of the weights on disk.

    Only tensors that the model has are compared, and layers beyond its last one looked for: checkpoints may hold more
    (buffers of old versions, a tied output embedding).

    Raises:
        ExciseError: the family is not supported, or the weights have other layers or shapes.
    """
    import torch
    from transformers import AutoModelForCausalLM

    family = architecture(config)
    layers, width = neuron_shape(config)
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: set[str] = set()
    for path in _weights(folder):
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                part = file.get_slice(name)
                shapes[name] = tuple(part.get_shape())
                dtypes.add(str(part.get_dtype()))
    stem = family.layers.rpartition(".")[2]
    for layer in range(layers):
        ending = f"{stem}.{layer}.{family.output}.weight"
        found = [shape for name, shape in shapes.items() if f".{name}".endswith(f".{ending}")]
        if len(found) != 1 or len(found[0]) != 2 or found[0][0 if family.transposed else 1] != width:
            raise ExciseError(
                f"{folder}: config.json promises {layers} layers x {width} neurons, but the weights hold "
                f"{found[0] if found else 'nothing'} for {ending}"
            )
    numbered = re.compile(rf"(?:^|\.){stem}\.(\d+)\.{re.escape(family.output)}\.weight$")
    held = max((int(match[1]) + 1 for match in map(numbered.search, shapes) if match), default=0)
    if held > layers:
        raise ExciseError(f"{folder}: config.json promises {layers} layers, but the weights hold {held}")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    prefix = f"{model.base_model_prefix}."  # checkpoints have names with it, or without
    bare = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        if (there := bare.get(name.removeprefix(prefix), shape)) != shape:
            raise ExciseError(f"{folder}: config.json promises {shape} for {name}, but the weights hold {there}")
    return model, dtypes


def facts(folder: str | Path) -> Json:
    """What a model is, from its configuration and the headers of its weights; read whole only for the fingerprint.

    Raises:
        ExciseError: the family is not supported, the weights are quantised, or do not fit the configuration, or the
            tokenizer cannot be read.
    """
    config = load_config(folder)
    architecture(config)
    if getattr(config, "quantization_config", None):
        raise ExciseError(f"{folder}: its weights are quantised; attribution and pruning need the unquantised model")
    layers, width = neuron_shape(config)
    model, dtypes = _described(folder, config)
    load_tokenizer(folder)
    return {
        "architecture": config.model_type,
        "layers": layers,
        "neurons_per_layer": width,
        "neurons": layers * width,
        "hidden_size": config.hidden_size,
        "vocabulary": config.vocab_size,
        "max_positions": getattr(config, "max_position_embeddings", None),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tied_embeddings": bool(config.tie_word_embeddings),
        "dtype_on_disk": sorted(dtypes),
        "fingerprint": fingerprint(folder),
    }


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a model folder.

    Raises:
        ExciseError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises nothing narrower
        said = " ".join(str(error).split())[:300]
        raise ExciseError(
            f"{folder}: its tokenizer cannot be read ({type(error).__name__}: {said}). Put the model's own "
            "tokenizer.json and tokenizer_config.json there, or fetch the model again."
        ) from error
    if not tokenizer.get_vocab().keys() - {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}:
        raise ExciseError(  # some families are given an empty one where there is no file
            f"{folder}: no tokenizer in it (tokenizer.json is missing, or has no words). Put the model's own there."
        )
    return tokenizer
