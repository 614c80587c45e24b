"""Any Hugging Face sequence classifier, on the text alone: ``hf:FOLDER``, ``hf:ID`` or ``hf:ID@REVISION``."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from excise.artefacts import Json
from excise.errors import ExciseError, unknown
from excise.evaluation.scorers import Options, unloaded

TOXIC_LABELS = ("toxic", "toxicity")
"""Labels that are taken without being asked for, in any case."""


class Classifier:
    """Probability of one label: the sigmoid of its logit where labels are independent, else the softmax.

    Args:
        source: folder, hub id, or hub id and revision with ``@`` between.
        label: which label counts; None takes the only one, or the one called toxic or toxicity.
        device: where it runs.
    """

    def __init__(self, source: str, label: str | None, device: str) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        local = Path(source).is_dir()
        path, _, revision = (source, "", "") if local else source.partition("@")
        options: dict[str, Any] = {"local_files_only": True} if local else {"revision": revision or "main"}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path, **options)
            model, info = AutoModelForSequenceClassification.from_pretrained(path, output_loading_info=True, **options)
        except (OSError, ValueError) as error:
            if local:
                raise ExciseError(f"scorer hf:{source}: cannot be loaded ({error})") from error
            raise unloaded(f"hf:{source}", error, "give a local folder: hf:FOLDER") from error
        if info["missing_keys"]:
            raise ExciseError(
                f"scorer hf:{source}: not a trained classifier, lacks {', '.join(sorted(info['missing_keys']))}"
            )
        self._model = model.eval().to(device)
        self._label = _index(model.config, label, source)
        several = model.config.problem_type == "multi_label_classification" or model.config.num_labels == 1
        self._probabilities = torch.sigmoid if several else lambda logits: logits.softmax(-1)
        self.name = f"hf:{Path(source).name if local else path}"
        self.facts: Json = {
            "name": self.name,
            "label": model.config.id2label[self._label],
            "probability": "sigmoid" if several else "softmax",
            "text": "completion only",
            "revision": None if local else _commit(path, revision or "main"),
            "weights": _digest(model),
            "versions": {package: version(package) for package in ("transformers", "torch")},
            "device": torch.device(device).type,
        }

    def __call__(self, texts: list[str]) -> list[float]:
        """Probability of the label of each text; long texts are cut at the classifier's length."""
        import torch

        limit = self._model.config.max_position_embeddings
        # RoBERTa counts positions from its padding id on.
        limit -= (self._model.config.pad_token_id or 0) + 1 if "roberta" in self._model.config.model_type else 0
        inputs = self._tokenizer(
            texts,
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=min(limit, self._tokenizer.model_max_length),
        )
        with torch.inference_mode():
            logits = self._model(**inputs.to(self._model.device)).logits
        return [float(value) for value in self._probabilities(logits.double().cpu())[:, self._label]]


def _index(config: Any, label: str | None, source: str) -> int:
    names = {str(name): int(index) for index, name in config.id2label.items()}
    if label is not None:
        if label not in names:
            raise unknown("label", label, names, where=f"scorer hf:{source}: --label")
        return names[label]
    toxic = [index for name, index in names.items() if name.lower() in TOXIC_LABELS]
    if len(names) == 1:
        return 0
    if len(toxic) != 1:
        raise ExciseError(f"scorer hf:{source}: say with --label which label counts: {', '.join(names)}")
    return toxic[0]


def _commit(repository: str, revision: str) -> str:
    """The commit that a revision is in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else revision


def _digest(model: Any) -> str:
    """SHA-256 over all tensors, in order of name."""
    import torch

    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        sha.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def load(name: str, options: Options) -> Classifier:
    """The scorer."""
    return Classifier(name.removeprefix("hf:"), options.label, options.device)
