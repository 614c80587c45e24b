"""Save a pruned model as a Hugging Face folder that anyone can load."""

import itertools
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from excise.artefacts import Json, umask
from excise.edits.ablation import prune
from excise.errors import ExciseError
from excise.models.families import architecture, refuse_without_bias
from excise.models.folders import refuse_foreign, replacing_folder, write_source
from excise.models.loading import SOURCE_FILE, STORED_DTYPES, fingerprint, load_model, load_tokenizer
from excise.models.parts import input_projections, output_projections

NEURONS_FILE = "neurons.json"
"""In an exported folder: the neuron list it was made with."""


def export(folder: Path, selection: Json, output: Path, *, base: Json, evaluations: list[Json]) -> None:
    """Write the pruned model: safetensors in the dtype on disk, tokenizer, model card, neuron list.

    The folder takes its name only when it is complete and its weights, read back, equal the pruned ones bit for bit.

    Args:
        folder: the unpruned model.
        selection: a neuron list made for it.
        output: folder to make; one that excise made is replaced.
        base: identity of the unpruned model (``models.identity``).
        evaluations: evaluations to show in the model card, the baseline first; may be empty.

    Raises:
        ExciseError: the folder cannot be written, holds something else or the unpruned model, or does not read back as
            written; or the family has no place for the mean of a neuron.
    """
    if output.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ExciseError(f"{output}: the unpruned model is in there; name another folder for the pruned one")
    refuse_foreign(output)  # before the model is read
    model = load_model(folder, dtype=_dtype_on_disk(folder), device="cpu", allowed=STORED_DTYPES)
    if selection.get("centre") == "mean":
        _give_biases(model)
    prune(model, selection)
    try:
        with replacing_folder(output) as temporary:
            model.save_pretrained(str(temporary))
            load_tokenizer(folder).save_pretrained(str(temporary))
            _check(temporary, model)
            weights = fingerprint(temporary)
            (temporary / NEURONS_FILE).write_text(json.dumps(selection, indent=1, ensure_ascii=False) + "\n", "utf-8")
            source = {"id": f"{base['id']} pruned", "source": "excise apply", "base": base, "fingerprint": weights}
            write_source(temporary / SOURCE_FILE, source)
            (temporary / "README.md").write_text(model_card(selection, base, evaluations), "utf-8")
            for path in temporary.iterdir():  # safetensors makes its files readable by their owner alone
                path.chmod(0o666 & ~umask())
    except SafetensorError as error:
        raise ExciseError(f"{output}: cannot be written ({error}); nothing is left behind") from error


def _give_biases(model: Any) -> None:
    """Biases of zero in all MLPs, by the configuration's own switch, where there are none to keep a mean in.

    Raises:
        ExciseError: the configuration has no switch.
    """
    from torch import nn

    outputs = output_projections(model)
    if all(projection.bias is not None for projection in outputs):
        return
    refuse_without_bias(model.config.model_type)
    setattr(model.config, str(architecture(model.config).bias), True)
    for projection in itertools.chain(outputs, *input_projections(model)):
        weight = projection.get_parameter("weight")
        projection.bias = nn.Parameter(weight.new_zeros(len(weight)))


def _dtype_on_disk(folder: Path) -> str:
    from excise.models.loading import load_config

    dtype = load_config(folder).dtype
    return str(dtype).removeprefix("torch.") if dtype is not None else "float32"


def _check(folder: Path, model: Any) -> None:
    import torch

    dtype = str(model.dtype).removeprefix("torch.")
    again = load_model(folder, dtype=dtype, device="cpu", allowed=STORED_DTYPES).state_dict()
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise ExciseError(f"{folder.name}: tensor {name} is not finite in {dtype}: a factor or a mean is too large")
        if not torch.equal(tensor, again[name]):
            raise ExciseError(f"{folder.name}: tensor {name} does not read back as it was written; is the disk sound?")


def _against(selection: Json) -> str:
    """The reference sets that the neurons were found with; nothing for controls, which have none."""
    references = selection["meta"].get("references")
    if references is None:
        return ""
    return f", reference set `{references['behaviour']['id']}` against `{references['general']['id']}`"


def model_card(selection: Json, base: Json, evaluations: list[Json]) -> str:
    """README.md of an exported model: what was pruned, how, what it did, what it does not do."""
    count, total = len(selection["neurons"]), selection["layers"] * selection["neurons_per_layer"]
    about = " about their mean activation" if selection.get("centre") == "mean" else ""
    match selection["factor"]:
        case 0:
            what = "held at their mean activation" if about else "set to zero"
        case "expertise":
            what = f"dampened by expertise{about} (each scaled by 1 - 2 (AUROC - 0.5))"
        case factor:
            what = f"scaled by {factor:g}{about}"
    revision = f", revision `{base['revision']}`" if base["revision"] else ""
    lines = [
        "---",
        f"base_model: {json.dumps(base['id'])}",
        "library_name: transformers",
        "tags: [excise, pruned]",
        "---",
        f"# {base['id']}, {count} neurons pruned",
        "",
        f"{count} of {total} MLP neurons ({100 * count / total:.2f} %) were {what}, chosen by `{selection['method']}` "
        f"(selection `{selection['name']}`{_against(selection)}). `{NEURONS_FILE}` lists them with their scores and "
        "every setting; `excise apply neurons.json MODEL` makes this model again from the original.",
        "",
        f"Base weights: `{base['fingerprint']}`{revision}.",
        "",
    ]
    if evaluations:
        kind, scorers = evaluations[0]["behaviour"]["adjective"], list(evaluations[0]["scores"])
        lines += [
            "| variant | perplexity | " + " | ".join(f"{s}: {kind} share, mean" for s in scorers) + " |",
            "|---|---|" + "---|" * len(scorers),
        ]
        for evaluation in evaluations:
            cells = [
                f"{100 * evaluation['scores'][s]['share']:.1f} %, {evaluation['scores'][s]['mean']:.3f}"
                for s in scorers
            ]
            perplexity = f"{evaluation['perplexity']['perplexity']:.2f}"
            lines.append(f"| {evaluation['variant']} | {perplexity} | " + " | ".join(cells) + " |")
        protocol = evaluations[0]["perplexity"]
        lines += ["", f"Perplexity: {protocol['text']}, protocol {protocol['protocol']}.", ""]
    lines += [
        "## Limits",
        "",
        "- The model is not smaller or faster: its weights have the same shape.",
        "- How far the behaviour is reduced is known only as far as scorers can see, on prompts like the ones they "
        "judged. That is no proof of safety.",
        "- Layer-wise relevance propagation is patented and free for personal and scientific use.",
        "",
    ]
    return "\n".join(lines)
