"""Save a pruned model as a Hugging Face folder that anyone can load."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError

from excise.artefacts import Json, umask
from excise.edits.ablation import prune
from excise.edits.copying import copy_changed
from excise.edits.unit_list import counted, scale_of
from excise.errors import ExciseError
from excise.models.biases import bias_setting, refuse_without_bias
from excise.models.families import architecture
from excise.models.files import Stored, read_tensors
from excise.models.folders import refuse_foreign, replacing_folder, write_source
from excise.models.loading import (
    SOURCE_FILE,
    described,
    fingerprint,
    fingerprint_of,
    load_model,
    plain_name,
    tensor_digest,
)
from excise.models.parts import decoder_layers, linear_maps
from excise.models.units import axis

if TYPE_CHECKING:
    import torch

UNITS_FILE = "units.json"
"""In an exported folder: the unit list it was made with."""


def export(
    folder: Path, units: Json, output: Path, *, base: Json, judged: str = "float32", results: Sequence[str] = ()
) -> None:
    """Write the pruned model: a copy of the folder in which only what pruning changes is changed, and a model card.

    Every tensor keeps the dtype that it is stored in, and all other files their bytes, so that what loads the original
    loads the copy. The folder takes its name only when it is complete; when its tensors on disk are those of the
    original, or the pruned ones, bit for bit; and when it is loaded as the model that was judged.

    Args:
        folder: the unpruned model.
        units: a unit list made for it.
        output: folder to make; one that excise made is replaced.
        base: identity of the unpruned model (``models.identity``).
        judged: dtype that the model was judged in.
        results: lines of the model card that say what the variant did (``reporting.card``).

    Raises:
        ExciseError: the folder cannot be written, holds something else or the unpruned model, or does not read back as
            written; or the family has no place for the mean of a unit.
    """
    if output.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ExciseError(f"{output}: the unpruned model is in there; name another folder for the pruned one")
    refuse_foreign(output)  # before the model is read
    pruned = _pruned(folder, units)
    try:
        with replacing_folder(output) as temporary:
            copy_changed(folder, temporary, pruned.stored, pruned.changed, entries=pruned.entries)
            weights = fingerprint(temporary)
            if weights != pruned.fingerprint:
                raise ExciseError(f"{output.name}: does not read back as it was written; is the disk sound?")
            touched = {pruned.names[name]: tensor.dtype for name, tensor in pruned.changed.items()}
            pruned.changed.clear()  # two models would not fit where one does
            notes = _compare(folder, temporary, units, judged, touched, pruned.entries)
            (temporary / UNITS_FILE).write_text(json.dumps(units, indent=1, ensure_ascii=False) + "\n", "utf-8")
            source = {"id": f"{base['id']} pruned", "source": "excise apply", "base": base, "fingerprint": weights}
            write_source(temporary / SOURCE_FILE, source)
            (temporary / "README.md").write_text(model_card(units, base, results, notes), "utf-8")
            for path in temporary.iterdir():  # safetensors makes its files readable by their owner alone
                path.chmod(0o666 & ~umask())
    except SafetensorError as error:
        raise ExciseError(f"{output}: cannot be written ({error}); nothing is left behind") from error


class Pruned(NamedTuple):
    """What pruning changes of a model on disk.

    Attributes:
        stored: the tensors of the original.
        changed: the tensors that differ, or are new, by their names on disk, in their stored dtype.
        names: the model's names of these, by their names on disk.
        entries: entries of config.json that they need.
        fingerprint: of the pruned folder.
    """

    stored: dict[str, Stored]
    changed: dict[str, "torch.Tensor"]
    names: dict[str, str]
    entries: Json
    fingerprint: str


def _pruned(folder: Path, units: Json) -> Pruned:
    """Prune the tensors as they are stored."""
    model, found = described(folder)
    on_disk = {plain_name(model, name): name for name in found}
    names = {on_disk[plain_name(model, name)]: name for name, _ in model.named_parameters()}
    tensors = dict(read_tensors(found))
    model.load_state_dict({names[name]: tensors[name] for name in names}, strict=False, assign=True)
    model.tie_weights()
    entries = _give_biases(model, units["unit"]) if units["ablation"] == "mean" else {}
    prune(model, units)
    digests, changed = {name: tensor_digest(name, tensor) for name, tensor in read_tensors(found)}, {}
    prefix = f"{model.base_model_prefix}."
    stem = prefix if any(name.startswith(prefix) for name in found) else ""
    for name, tensor in model.named_parameters():
        disk = on_disk.get(plain_name(model, name)) or stem + plain_name(model, name)
        digest = tensor_digest(disk, tensor.detach())
        if digest != digests.get(disk):
            # A copy: a tensor that was read keeps the whole file in memory.
            digests[disk], changed[disk], names[disk] = digest, tensor.detach().clone(), name
            if not tensor.isfinite().all():
                dtype = str(tensor.dtype).removeprefix("torch.")
                raise ExciseError(f"{folder}: {name} is not finite in {dtype}: a scale or a mean is too large")
    return Pruned(found, changed, names, entries, fingerprint_of(digests))


def _give_biases(model: Any, unit: str) -> Json:
    """Biases of zero where there are none to keep a mean in, all that the configuration's own switch governs.

    Returns:
        The entries of config.json that switch them on; empty where there were biases already.

    Raises:
        ExciseError: the configuration has no switch.
    """
    from torch import nn

    family, entries = architecture(model.config), {}
    for path, _ in axis(model.config, unit).sites:
        if all(
            dict(layer.get_submodule(path).named_parameters()).get("bias") is not None
            for layer in decoder_layers(model)
        ):
            continue
        refuse_without_bias(model.config.model_type, path)
        switch = str(bias_setting(family, path))
        entries[switch] = True
        for layer in range(len(decoder_layers(model))):
            for name, projection in linear_maps(model, layer).items():
                weight = projection.get_parameter("weight")
                if bias_setting(family, name) == switch and "bias" not in dict(projection.named_parameters()):
                    projection.bias = nn.Parameter(weight.new_zeros(len(weight)), requires_grad=False)
    return entries


def _compare(
    folder: Path, output: Path, units: Json, judged: str, touched: Mapping[str, "torch.dtype"], entries: Json
) -> list[str]:
    """Compare the exported model with the one that was judged: the original, pruned in memory, in the judged dtype.

    Tensors that are not changed must be the same bits. So must changed ones that are stored in the judged dtype; the
    others are rounded once more, and may differ by that.

    Args:
        folder: the unpruned model.
        output: the exported one.
        units: the unit list.
        judged: dtype that the model was judged in.
        touched: the dtypes that changed tensors are stored in, by the model's names.
        entries: entries of config.json that the export added.

    Returns:
        What the model card has to say of it.

    Raises:
        ExciseError: the two differ.
    """
    import torch

    model = load_model(folder, dtype=judged, device="cpu")
    prune(model, units)
    kept, digests = {}, {}
    for name, tensor in model.state_dict().items():
        if touched.get(name, tensor.dtype) == tensor.dtype:
            digests[name] = tensor_digest("", tensor)
        else:
            kept[name] = tensor.clone()
    del model, tensor
    rounded = set()
    again = load_model(output, dtype=judged, device="cpu").state_dict()
    for name, tensor in again.items():
        if name in digests:
            same = tensor_digest("", tensor) == digests[name]
        elif name in kept:
            same = torch.equal(tensor, kept[name])
            if not same and _close(tensor, kept[name], touched[name]):
                rounded.add(touched[name])
                same = True
        else:
            same = not tensor.any()  # a bias that the model in memory does without
        if not same:
            raise ExciseError(f"{output.name}: {name} is not that of the model that was judged")
    return _notes(judged, sorted(str(dtype).removeprefix("torch.") for dtype in rounded), entries)


def _notes(judged: str, rounded: Sequence[str], entries: Json) -> list[str]:
    """What the model card says of changed weights that are stored in other dtypes, and of added biases."""
    notes = []
    if rounded:
        notes.append(
            f"- The model was judged in {judged}. Its changed weights are stored in {', '.join(rounded)}, as the "
            "originals are, so they are rounded once more; the others are untouched."
        )
    if entries:
        notes.append(
            f"- It has biases (`{', '.join(entries)}` in config.json) that the original does without: they hold "
            "means. A reader that does not know the switch drops them and gives other text: SGLang 0.5.23 does, "
            "silently; transformers, vLLM, llama.cpp, mlx-lm and TensorRT-LLM read them."
        )
    return notes


def _close(found: "torch.Tensor", expected: "torch.Tensor", stored: "torch.dtype") -> bool:
    """Whether two tensors differ by no more than rounding to the stored dtype and to their own."""
    import torch

    kinds = [torch.finfo(dtype) for dtype in (stored, found.dtype)]
    eps = max(kind.eps for kind in kinds)
    found, expected = found.double(), expected.double()
    if found.ndim == 1:  # a bias is a sum, of which the parts may cancel
        return bool((found - expected).norm() <= 8 * eps * expected.norm())
    least = max(kind.tiny * kind.eps for kind in kinds)
    return bool(((found - expected).abs() <= 2 * eps * expected.abs() + least).all())


NOUNS = {
    "neuron": "MLP neurons",
    "head": "attention heads",
    "mlp": "MLPs",
    "attention": "attention modules",
    "layer": "layers",
}
"""What the units are called in a sentence."""


def _against(units: Json) -> str:
    """The reference sets that the units were found with; nothing for controls, which have none."""
    references = units["meta"].get("references")
    if references is None:
        return ""
    return f", reference set `{references['target']['id']}` against `{references['retain']['id']}`"


def _treatment(units: Json) -> str:
    """What became of the units, in words."""
    about = " about their mean activation" if units["ablation"] == "mean" else ""
    scales = [scale_of(units, row) for row in units["rows"]]
    least, most = min(scales), max(scales)
    if units["scale"] is None:
        return f"scaled{about}, each by a number of its own, from {least:.3g} to {most:.3g}"
    if units["scale"] == 0:
        return "held at their mean activation" if about else "set to zero"
    return f"scaled by {units['scale']:g}{about}"


def model_card(units: Json, base: Json, results: Sequence[str] = (), notes: Sequence[str] = ()) -> str:
    """README.md of an exported model: what was pruned, how, what it did, what it does not do, and further notes."""
    count, total = len(units["rows"]), units["layers"] * units["units_per_layer"]
    revision = f", revision `{base['revision']}`" if base["revision"] else ""
    lines = [
        "---",
        f"base_model: {json.dumps(base['id'])}",
        "library_name: transformers",
        "tags: [excise, pruned]",
        "---",
        f"# {base['id']}, {counted(units)} pruned",
        "",
        f"{count} of {total} {NOUNS[units['unit']]} ({100 * count / total:.2f} %) were {_treatment(units)}, chosen by "
        f"`{units['method']}` (unit list `{units['name']}`{_against(units)}). `{UNITS_FILE}` lists them with their "
        f"scores and every setting; `excise apply {UNITS_FILE} MODEL` makes this model again from the original.",
        "",
        f"Base weights: `{base['fingerprint']}`{revision}.",
        "",
    ]
    lines += results
    lines += [
        "## Limits",
        "",
        "- The model is not smaller or faster: its weights have the same shape.",
        *notes,
        "- How far the behaviour is reduced is known only as far as scorers can see, on prompts like the ones they "
        "judged. That is no proof of safety.",
        "- Layer-wise relevance propagation is patented and free for personal and scientific use.",
        "",
    ]
    return "\n".join(lines)
