"""Detoxify (Unitary): the label ``toxicity`` of the original, unbiased or multilingual model, on the text alone.

Weights come from a local checkpoint in Detoxify's own format, or else by URL into the torch hub cache. Detoxify reads
them with pickle: use only files that you trust.
"""

import io
from importlib.metadata import version
from pathlib import Path
from typing import Any

from excise.artefacts import Json, sha256_file
from excise.errors import ExciseError
from excise.evaluation.scorers import Options, unloaded

LABEL = "toxicity"


class DetoxifyScorer:
    """Detoxify's own class, with its weights verified after loading.

    Args:
        name: ``detoxify-original``, ``detoxify-unbiased`` or ``detoxify-multilingual``.
        checkpoint: a checkpoint file, or a folder with one ``*.ckpt`` beside the config.json and tokenizer of its base
            model, which then needs no network; None downloads.
        device: where it runs.
    """

    def __init__(self, name: str, checkpoint: Path | None, device: str) -> None:
        import torch
        from detoxify import Detoxify
        from detoxify.detoxify import MODEL_URLS
        from huggingface_hub import constants

        self.name = name
        kind = name.removeprefix("detoxify-")
        published = MODEL_URLS[kind].rsplit("/", 1)[1]
        folder = None
        if checkpoint is None:
            file = Path(torch.hub.get_dir()) / "checkpoints" / published
        else:
            file, folder = _find(checkpoint)
        instead = (
            f"give local weights: --checkpoint FOLDER, with {published} and the config.json and tokenizer files of its "
            "base model in it"
        )
        if not file.exists() and constants.HF_HUB_OFFLINE:  # torch's own downloads know no such setting
            raise unloaded(name, f"HF_HUB_OFFLINE is set, and there is no {file.name} here", instead)
        try:
            if checkpoint is None:
                model = Detoxify(kind, device=device)
            elif folder is None:
                model = Detoxify(checkpoint=str(file), device=device)
            else:
                # Detoxify looks the base model up by the name in the checkpoint; here that name becomes the folder.
                model = Detoxify(checkpoint=_renamed(file, folder), huggingface_config_path=str(folder), device=device)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise unloaded(name, f"{type(error).__name__}: {error}", instead) from error
        _verify(name, model, torch.load(file, map_location="cpu", weights_only=False)["state_dict"])
        if LABEL not in model.class_names:
            raise ExciseError(
                f"scorer {name}: {file.name} has no label {LABEL!r}; it has {', '.join(model.class_names)}"
            )
        self._model = model
        self.facts: Json = {
            "name": name,
            "label": LABEL,
            "text": "completion only",
            "checkpoint": sha256_file(file),
            "versions": {package: version(package) for package in ("detoxify", "transformers", "torch")},
            "device": torch.device(device).type,
        }

    def __call__(self, texts: list[str]) -> list[float]:
        """Probability of the label, from the sigmoid of its logit."""
        values = self._model.predict(texts)[LABEL]
        return [values] if isinstance(values, float) else [float(value) for value in values]


def _find(checkpoint: Path) -> tuple[Path, Path | None]:
    """The checkpoint file, and the folder of its base model where one is given."""
    if checkpoint.is_file():
        return checkpoint, None
    found = sorted(checkpoint.glob("*.ckpt"))
    if len(found) != 1 or not (checkpoint / "config.json").is_file():
        raise ExciseError(
            f"--checkpoint {checkpoint}: expected a file, or a folder with exactly one *.ckpt (found {len(found)}) and "
            "the config.json and tokenizer files of its base model"
        )
    return found[0], checkpoint


def _renamed(file: Path, folder: Path) -> io.BytesIO:
    """The checkpoint with its base model looked up in ``folder``."""
    import torch

    loaded = torch.load(file, map_location="cpu", weights_only=False)
    loaded["config"]["arch"]["args"]["model_type"] = str(folder)
    buffer = io.BytesIO()
    torch.save(loaded, buffer)
    buffer.seek(0)
    return buffer


def _verify(name: str, model: Any, state: Any) -> None:
    """Refuse weights that were left at random: transformers only warns of names that do not match."""
    import torch

    for key, tensor in model.model.state_dict().items():
        if key not in state or not torch.equal(tensor.cpu(), state[key].cpu().to(tensor.dtype)):
            raise ExciseError(
                f"scorer {name}: weight {key!r} is not the checkpoint's; this version of transformers does not load it "
                "faithfully. Use a version that does, or another scorer."
            )


def load(name: str, options: Options) -> DetoxifyScorer:
    """The scorer."""
    return DetoxifyScorer(name, options.checkpoint, options.device)
