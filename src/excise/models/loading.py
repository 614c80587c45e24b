"""Open a model folder, and say exactly which model it is."""

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excise.artefacts import Json, read_json
from excise.errors import ExciseError, unknown
from excise.models.families import architecture, neuron_shape, refuse_other_order
from excise.models.files import Stored, read_tensors, stored

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

SOURCE_FILE = "excise.json"
"""In a fetched model folder: id, source, revision, fingerprint."""

DTYPES = ("float32", "bfloat16", "float64")
"""What a model runs in. float16 is left out: LRP gradients overflow in it."""

STORED_DTYPES = ("F64", "F32", "BF16", "F16")
"""What a model may be kept in on disk, as safetensors calls it: numbers that need no scale beside them."""


def fingerprint(folder: str | Path) -> str:
    """SHA-256 over all tensors of a model folder (name, dtype, shape, bytes), in order of name.

    Does not depend on how the tensors are split over files.

    Raises:
        ExciseError: there is no such folder, or no safetensors in it, or they are cut short.
    """
    return fingerprint_of({name: tensor_digest(name, tensor) for name, tensor in read_tensors(stored(folder))})


def fingerprint_of(digests: Mapping[str, str]) -> str:
    """The fingerprint of tensors from their digests (``tensor_digest``) by name."""
    return hashlib.sha256("".join(digests[name] for name in sorted(digests)).encode()).hexdigest()


def tensor_digest(name: str, tensor: "torch.Tensor") -> str:
    """SHA-256 of a tensor on the CPU: its name, dtype, shape and bytes."""
    import torch

    sha = hashlib.sha256(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
    sha.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def identity(folder: str | Path, dtype: str) -> Json:
    """The ``model`` block of an artefact: id, revision, fingerprint and the dtype it was run in.

    A folder that excise made says so itself; any other one is named after the folder. One that was made from another
    model says from which (``base``), and may say what it is among variants (``variant``: ``tasks.measurement.About``).
    """
    source = Path(folder) / SOURCE_FILE
    known = read_json(source) if source.is_file() else {"id": Path(folder).name, "fingerprint": fingerprint(folder)}
    more = {key: known[key] for key in ("base", "variant") if key in known}  # what made a model of another
    return {
        "id": known["id"],
        "revision": known.get("revision"),
        "fingerprint": known["fingerprint"],
        "dtype": dtype,
        **more,
    }


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


def load_model(folder: str | Path, *, dtype: str = "float32", device: str = "auto") -> Any:
    """A causal language model in eval mode with frozen parameters; runs no code from the folder.

    Args:
        folder: a Hugging Face folder with config.json and safetensors.
        dtype: one of ``DTYPES``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``spread``.

    Raises:
        ExciseError: no such model, an unsupported family, an unknown dtype, or weights that do not fit config.json.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    described(folder)
    disable_progress_bar()  # it shows tensors, not seconds; our own bars follow
    model, loading = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=getattr(torch, dtype),
        device_map="auto" if device == SPREAD else None,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    refuse_incomplete(loading, str(folder))
    model.eval().requires_grad_(False)
    if device != SPREAD:
        return model.to(resolve_device(device))
    placed = getattr(model, "hf_device_map", {})  # absent where all of it lies in main memory
    for place, parts in Counter(map(str, placed.values())).items():
        logger.info("%d parts of the model on %s", parts, place)
    return model


def refuse_incomplete(loading: Json, where: str) -> None:
    """Refuse a model of which transformers filled a part with random numbers, about which it only warns.

    Args:
        loading: what ``from_pretrained`` gives with ``output_loading_info``.
        where: what was loaded.

    Raises:
        ExciseError: a tensor is missing, or has another shape.
    """
    missing = sorted({*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])})
    if missing:
        raise ExciseError(
            f"{where}: the weights lack {len(missing)} tensors of the model ({', '.join(missing[:3])}); "
            "they do not belong to this configuration, or are incomplete"
        )


def load_config(folder: str | Path) -> Any:
    """The model's configuration.

    Raises:
        ExciseError: there is no such folder, or its config.json cannot be read.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    if not (Path(folder) / "config.json").is_file():
        raise ExciseError(f"{folder}: no model here (no config.json)")
    read_json(Path(folder) / "config.json")
    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except (ValueError, OSError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        raise ExciseError(f"{folder}/config.json: {error}") from error


def skeleton(folder: str | Path) -> Any:
    """The model that config.json describes, without weights (on the device ``meta``); needs no other file.

    Raises:
        ExciseError: the family is not supported, the weights are quantised, or no model can be made of it.
    """
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    config = load_config(folder)
    kind = AutoModelForCausalLM if architecture(config).causal else AutoModel
    if getattr(config, "quantization_config", None):
        raise ExciseError(f"{folder}: its weights are quantised; attribution and pruning need the unquantised model")
    try:
        with torch.device("meta"):
            return kind.from_config(config)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        rope = getattr(config, "rope_parameters", None)
        raise ExciseError(
            f"{folder}/config.json: transformers makes no model of it ({type(error).__name__}: {error})."
            + (f" It says of rotary embeddings: {json.dumps(rope, default=str)}." if rope else "")
            + " Take config.json from the newest revision of the model; older ones use names that are gone (the rope "
            "type 'su' is 'longrope' today), and numbers must be numbers, not text."
        ) from error


OLD_BUFFERS = re.compile(
    r"(^|\.)(rotary_emb\.inv_freq|masked_bias|attn\.bias|attention\.bias|(embeddings\.)?position_ids)$"
)
"""Tensors that old versions of transformers saved and that are computed today."""


RENAMED = {"embed_out.weight": "lm_head.weight"}
"""Tensors that a family (GPT-NeoX) has other names for on disk than in memory."""


def plain_name(model: Any, name: str) -> str:
    """The name of a tensor of a model, on disk or in memory, in one form: without the prefix of the base model."""
    bare = name.removeprefix(f"{model.base_model_prefix}.")
    return RENAMED.get(bare, bare)


def described(folder: str | Path) -> tuple[Any, dict[str, Stored]]:
    """The model that the configuration describes, without weights, and the tensors on disk, which are checked to be it.

    Raises:
        ExciseError: as ``skeleton``; or the weights have other layers or shapes, lack a tensor, or have one more.
    """
    model = skeleton(folder)
    refuse_other_order(model.config, causal=True, where=folder)
    found = stored(folder)
    _check_layers(folder, model.config, {name: tensor.shape for name, tensor in found.items()})
    bare = {plain_name(model, name): tensor for name, tensor in found.items()}
    lacking = set()
    for name, parameter in model.named_parameters():
        there, shape = bare.get(plain_name(model, name)), tuple(parameter.shape)
        if there is None:
            lacking.add(name)
        elif there.shape != shape:
            raise ExciseError(f"{folder}: config.json promises {shape} for {name}, but the weights hold {there.shape}")
        elif there.dtype not in STORED_DTYPES:
            raise ExciseError(
                f"{folder}: {name} is stored in {there.dtype}, so the weights are quantised; attribution and pruning "
                f"need them in {', '.join(STORED_DTYPES)}"
            )
    refuse_incomplete({"missing_keys": lacking, "mismatched_keys": ()}, str(folder))
    known = {plain_name(model, name) for name, _ in model.named_parameters(remove_duplicate=False)}
    known |= {plain_name(model, name) for name, _ in model.named_buffers()}
    more = sorted(name for name in bare.keys() - known if not OLD_BUFFERS.search(name))
    if more:
        raise ExciseError(
            f"{folder}: the weights hold {len(more)} tensors that the model of config.json does not have "
            f"({', '.join(more[:3])}), so a part of them would be dropped. They belong to another config.json (a bias "
            "without its switch, for example), or to another kind of model"
        )
    return model, found


def tied(folder: str | Path, model: Any, found: Mapping[str, Stored]) -> bool:
    """Whether the output embedding is the input embedding.

    A checkpoint that is tied by its config.json may yet hold an output embedding with other values. transformers 5
    then leaves the two apart, and older versions drop it.

    Args:
        folder: the model folder.
        model: from ``skeleton``.
        found: its tensors on disk.
    """
    if not model.config.tie_word_embeddings:
        return False
    shared = model.get_input_embeddings().weight
    parameters = model.named_parameters(remove_duplicate=False)
    ends = {plain_name(model, name) for name, tensor in parameters if tensor is shared}
    names = [name for name in found if plain_name(model, name) in ends]
    digests = {tensor_digest("", tensor) for _, tensor in read_tensors({name: found[name] for name in names})}
    if len(digests) > 1:
        logger.warning(
            "%s: config.json ties the output embedding to the input embedding, but the weights hold two that differ "
            "(%s). They are used as stored, as transformers 5 does; transformers 4 drops the second.",
            *(folder, ", ".join(names)),
        )
    return len(digests) <= 1


def _check_layers(folder: str | Path, config: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse weights that have other layers than config.json promises, or other neurons in them."""
    family = architecture(config)
    layers, width = neuron_shape(config)
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


def refuse_beyond_positions(config: Any, seqlen: int) -> None:
    """Refuse windows that a model has no positions for.

    Raises:
        ExciseError: they are longer than ``max_positions``.
    """
    limit = max_positions(config)
    if limit is not None and seqlen > limit:
        raise ExciseError(f"--seqlen {seqlen}: more than the model's {limit} positions")


def max_positions(config: Any) -> int | None:
    """Most tokens that a model takes at once; None where its configuration names no number.

    Of a model with ``longrope`` (Phi-3, 128k), those it was first trained for. Beyond them transformers takes other
    frequencies for a whole batch, so that a short prompt would get another answer beside a long one.
    """
    limit: int | None = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]  # some have one per kind of layer
    if limit is None or not any(kind.get("rope_type") == "longrope" for kind in kinds):
        return limit
    named = [kind.get("original_max_position_embeddings") for kind in kinds]
    named.append(getattr(config, "original_max_position_embeddings", None))
    return min([limit, *(int(value) for value in named if value)])


def facts(folder: str | Path) -> Json:
    """What a model is, from its configuration and the headers of its weights; read whole only for the fingerprint.

    Raises:
        ExciseError: the family is not supported, the weights are quantised, or do not fit the configuration, or the
            tokenizer cannot be read.
    """
    model, found = described(folder)
    config = model.config
    layers, width = neuron_shape(config)
    load_tokenizer(folder)
    shared = tied(folder, model, found)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if model.config.tie_word_embeddings and not shared:  # a head of its own, whatever config.json says
        parameters += model.get_output_embeddings().weight.numel()
    return {
        "architecture": config.model_type,
        "layers": layers,
        "neurons_per_layer": width,
        "neurons": layers * width,
        "hidden_size": config.hidden_size,
        "vocabulary": config.vocab_size,
        "max_positions": max_positions(config),
        "parameters": parameters,
        "tied_embeddings": shared,
        "dtype_on_disk": sorted({tensor.dtype for tensor in found.values()}),
        "fingerprint": fingerprint(folder),
    }


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a model folder.

    Raises:
        ExciseError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    alone = not (Path(folder) / "tokenizer.json").is_file() and (Path(folder) / "tokenizer.model").is_file()
    settings = Path(folder) / "tokenizer_config.json"
    if alone and not (settings.is_file() and "add_bos_token" in read_json(settings)):
        raise ExciseError(  # transformers 4 puts one there, and 5 none
            f"{folder}: it has tokenizer.model and no tokenizer.json, and nothing says whether a text begins with the "
            "bos_token. Put the model's own tokenizer_config.json there, with add_bos_token in it"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the tokenizers library raises nothing narrower
        said = " ".join(str(error).split())[:300]
        if alone and ("protobuf" in said or "tiktoken" in said):
            raise ExciseError(
                f"{folder}: reading tokenizer.model takes a package that is not installed: pip install protobuf. Or "
                "put the model's tokenizer.json there"
            ) from error
        raise ExciseError(
            f"{folder}: its tokenizer cannot be read ({type(error).__name__}: {said}). Put the model's own "
            "tokenizer.json and tokenizer_config.json there, or fetch the model again."
        ) from error
    if not tokenizer.get_vocab().keys() - {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}:
        raise ExciseError(  # some families are given an empty one where there is no file
            f"{folder}: no tokenizer in it (tokenizer.json is missing, or has no words). Put the model's own there."
        )
    return tokenizer
