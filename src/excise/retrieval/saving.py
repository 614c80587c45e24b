"""Save an encoder that was cut or trained, and make sure that what is saved is what was meant."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from excise.artefacts import SCHEMA, Json
from excise.digest import digest
from excise.errors import ExciseError
from excise.models.encoder import Encoder, embed, load_encoder
from excise.models.families import architecture
from excise.models.files import side_files
from excise.models.folders import replacing_folder, write_source
from excise.models.loading import SOURCE_FILE, fingerprint
from excise.models.pooling import MODULES
from excise.models.static import StaticVectors
from excise.models.structure import STRUCTURE_FILE, Structure, encoder_parameters

MODULE_CLASS = "excise.retrieval.module.ExciseTransformer"
"""What ``modules.json`` names for a folder that sentence-transformers cannot open by itself."""

CHECKED = ("A short text.", "another text, that is a little longer than the first one", "the", "12 % of it")
"""Texts on which a saved folder must give the embeddings that the model in memory gives."""


def is_plain(structure: Structure) -> bool:
    """Whether a configuration can say it: all heads stay, and all layers have one width."""
    heads = all(len(row.heads) == structure.heads for row in structure.layers)
    return heads and len({len(row.neurons) for row in structure.layers}) == 1


def save(encoder: Encoder, origin: Path, output: Path, *, source: Json, card: Sequence[str]) -> None:
    """Write an encoder as a folder; it takes its name only when its embeddings read back equal, bit for bit.

    Where the structure allows it, the folder is a plain Hugging Face one. Otherwise ``structure.json`` says what is
    left, ``excise.load_encoder`` opens it, and ``modules.json`` leads sentence-transformers to ``MODULE_CLASS``.

    Args:
        encoder: the model, with its structure.
        origin: the folder it comes from: tokenizer, pooling and licence are copied.
        output: folder to make; one that excise made is replaced.
        source: what ``excise.json`` says besides the fingerprint.
        card: lines of the model card.

    Raises:
        ExciseError: the folder cannot be written, or does not read back as written.
    """
    from safetensors.torch import save_file

    if output.resolve() in (origin.resolve(), *origin.resolve().parents):
        raise ExciseError(f"{output}: the model it comes from is in there; name another folder")
    for name, tensor in encoder.model.state_dict().items():
        if not tensor.isfinite().all():
            raise ExciseError(f"{output}: tensor {name} is not finite; nothing is written")
    with replacing_folder(output) as folder:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in encoder.model.state_dict().items()}
        save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
        _copy_side_files(origin, folder)
        _write_shape(encoder, folder)
        (folder / "README.md").write_text("\n".join(card) + "\n", "utf-8")
        weights = fingerprint(folder)
        write_source(folder / SOURCE_FILE, source | {"fingerprint": weights})
        _check(encoder, folder)


def _copy_side_files(origin: Path, folder: Path) -> None:
    for path in side_files(origin):
        target = folder / path.relative_to(origin)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def _write_shape(encoder: Encoder, folder: Path) -> None:
    """``structure.json`` and the class in ``modules.json``, or a configuration that says it all."""
    structure = encoder.structure
    if isinstance(encoder.model, StaticVectors):
        (folder / "config.json").write_text(json.dumps(encoder.model.as_config(), indent=2) + "\n", "utf-8")
        _lead_to_ours(folder)
        return
    if structure is None:
        return
    config = json.loads((folder / "config.json").read_text("utf-8"))
    if is_plain(structure):
        config["num_hidden_layers"] = len(structure.layers)
        config[architecture(encoder.model.config).width] = len(structure.layers[0].neurons)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        (folder / STRUCTURE_FILE).unlink(missing_ok=True)
        return
    (folder / STRUCTURE_FILE).write_text(json.dumps(structure.as_json()) + "\n", "utf-8")
    _lead_to_ours(folder)


def _lead_to_ours(folder: Path) -> None:
    """Name the class that opens the folder in ``modules.json``."""
    modules = json.loads((folder / MODULES).read_text("utf-8"))
    for module in modules:
        if module["type"].rpartition(".")[2] == "Transformer":
            module["type"] = MODULE_CLASS
    (folder / MODULES).write_text(json.dumps(modules, indent=2) + "\n", "utf-8")


def _check(encoder: Encoder, folder: Path) -> None:
    dtype = str(next(encoder.model.parameters()).dtype).removeprefix("torch.")
    again = load_encoder(folder, dtype=dtype, device=str(next(encoder.model.parameters()).device))
    for kind in ("query", "document"):
        if not torch.equal(embed(again, CHECKED, kind).vectors, embed(encoder, CHECKED, kind).vectors):
            raise ExciseError(f"{folder.name}: its embeddings do not read back as they were; is the disk sound?")


def size_info(encoder: Encoder) -> Json:
    """Parameters of the layers and of the whole, bytes of the weights, and units per layer."""
    tensors = encoder.model.state_dict().values()
    static = isinstance(encoder.model, StaticVectors)
    layers = encoder.structure.layers if encoder.structure else ()
    return {
        "parameters": sum(tensor.numel() for tensor in tensors),
        "encoder_parameters": 0 if static else encoder_parameters(encoder.model),
        "weight_bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        "heads": [len(row.heads) for row in layers],
        "neurons": [len(row.neurons) for row in layers],
    }


def described(stage: str, name: str, base: Json, settings: Json, variant: Json) -> Json:
    """What ``excise.json`` says of a smaller encoder besides its fingerprint.

    Args:
        stage: that made it.
        name: its id.
        base: identity of the dense encoder, which all comparisons are with.
        settings: of the stage.
        variant: what it is among variants, the fields of ``tasks.measurement.About``.
    """
    return {
        "schema": SCHEMA,
        "code": digest(f"stages.{stage.replace('-', '_')}"),
        "id": name,
        "source": f"excise {stage}",
        "base": base,
        "settings": settings,
        "variant": variant,
    }


def card(name: str, base: Json, what: str, info: Json, plain: bool) -> list[str]:
    """README.md of a smaller encoder."""
    opening = (
        "It is a plain folder: transformers and sentence-transformers open it as any other."
        if plain
        else "Open it with `excise.load_encoder(folder)`, or, where excise is installed, with "
        "`SentenceTransformer(folder, trust_remote_code=True)` (no code comes from the folder)."
    )
    return [
        "---",
        f"base_model: {json.dumps(base['id'])}",
        "tags: [excise, pruned, sentence-similarity]",
        "---",
        f"# {name}",
        "",
        f"Made from {base['id']} (weights `{base['fingerprint']}`): {what}.",
        "",
        f"{info['encoder_parameters']:,} parameters in the layers, {info['parameters']:,} with embeddings. {opening}",
    ]
