"""Any Hugging Face sequence classifier, on the text alone: ``hf:FOLDER``, ``hf:ID`` or ``hf:ID@REVISION``."""

import logging
import re
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

from excise.artefacts import Json
from excise.errors import ExciseError, unknown
from excise.evaluation.scorers import Options, unloaded

TOXIC_LABELS = ("toxic", "toxicity")
"""Labels that are taken without being asked for, in any case."""

INDEPENDENT = (
    *("toxic", "toxicity", "severe_toxic", "severe_toxicity", "obscene", "obscenity", "threat", "insult", "profanity"),
    *("identity_hate", "identity_attack", "sexual_explicit", "sexually_explicit", "hate", "harassment", "violence"),
    *("self_harm", "sexual", "flirtation"),
)
"""Labels of which a text may have several (Jigsaw's, and those of moderation services)."""

REST = ("none", "other", "normal", "clean", "safe", "ok", "benign", "acceptable", "neither")
"""Labels that a text has when it has none of the others."""

SENTIMENT = {"negative", "neutral", "positive"}


class Classifier:
    """Probability of one label: the sigmoid of its logit where labels are independent, else the softmax.

    Args:
        source: folder, hub id, or hub id and revision with ``@`` between.
        label: which label counts; None takes the only one, or the one called toxic or toxicity.
        probability: ``sigmoid`` or ``softmax``; None finds out, see ``decided``.
        device: where it runs.
    """

    def __init__(self, source: str, label: str | None, probability: str | None, device: str) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        local = Path(source).is_dir()
        path, _, revision = (source, "", "") if local else source.partition("@")
        options: dict[str, Any] = {"local_files_only": True} if local else {"revision": revision or "main"}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path, **options)
            model, info = AutoModelForSequenceClassification.from_pretrained(
                path, dtype=torch.float32, output_loading_info=True, **options
            )  # else as config.json says, which may be half of what is stored
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
        kind, why = decided(model.config.problem_type, model.config.id2label.values(), probability, source)
        logging.getLogger(__name__).info("hf:%s: %s over its labels, by %s", source, kind, why)
        self._probabilities = torch.sigmoid if kind == "sigmoid" else lambda logits: logits.softmax(-1)
        # A classifier that looks for the last token counts padding by config.json, and may take another id for text.
        padding = self._tokenizer.pad_token_id
        self._pads = padding is not None and padding == model.config.pad_token_id
        self.name = f"hf:{Path(source).name if local else path}"
        self.facts: Json = {
            "name": self.name,
            "label": model.config.id2label[self._label],
            "probability": kind,
            "probability_by": why,
            "text": "completion only",
            "revision": None if local else _commit(path, revision or "main"),
            "weights": _digest(model),
            "versions": {package: version(package) for package in ("transformers", "torch")},
            "device": torch.device(device).type,
        }

    def __call__(self, texts: list[str]) -> list[float]:
        """Probability of the label of each text; long texts are cut at the classifier's length.

        Texts are scored one by one where tokenizer and classifier do not share a padding token.

        Raises:
            ExciseError: a text has no tokens, not even special ones.
        """
        if not self._pads and len(texts) > 1:
            return [score for text in texts for score in self([text])]
        import torch

        length = self._length()
        options: dict[str, Any] = {} if length is None else {"truncation": True, "max_length": length}
        inputs = self._tokenizer(texts, return_tensors="pt", padding=self._pads, **options)
        counts = inputs["attention_mask"].sum(-1) if "attention_mask" in inputs else torch.ones(len(texts))
        if inputs["input_ids"].shape[-1] == 0 or not counts.all():
            raise ExciseError(
                f"scorer {self.name}: its tokenizer gives no token for an empty text, and models do give empty "
                "answers. Take a classifier whose tokenizer adds special tokens, or a function of your own."
            )
        with torch.inference_mode():
            logits = self._model(**inputs.to(self._model.device)).logits
        return [float(value) for value in self._probabilities(logits.double().cpu())[:, self._label]]

    def _length(self) -> int | None:
        """Most tokens that the classifier takes; None for any number."""
        limits = []
        if (positions := getattr(self._model.config, "max_position_embeddings", None) or 0) > 0:
            # RoBERTa counts positions from its padding id on.
            roberta = "roberta" in self._model.config.model_type
            limits.append(positions - ((self._model.config.pad_token_id or 0) + 1 if roberta else 0))
        if self._tokenizer.model_max_length < 10**9:  # an enormous number stands for none
            limits.append(self._tokenizer.model_max_length)
        return min(limits, default=None)


def decided(problem_type: str | None, labels: Collection[str], probability: str | None, source: str) -> tuple[str, str]:
    """Whether a classifier's labels are decided one by one (sigmoid) or exclude each other (softmax), and by what.

    Many folders do not say. transformers itself takes the first for the second: six labels of which a text may have
    several become shares of one, and 0.95 becomes 0.34.

    Args:
        problem_type: of config.json.
        labels: their names.
        probability: what the user says.
        source: for messages.

    Raises:
        ExciseError: it cannot be told.
    """
    names = [re.sub(r"[-_ ]+", "_", str(name).strip().lower()) for name in labels]
    said = {"multi_label_classification": "sigmoid", "single_label_classification": "softmax"}
    if probability is not None:
        return probability, "the option probability"
    if problem_type in said:
        return said[problem_type], "problem_type"
    if problem_type == "regression":
        raise ExciseError(
            f"scorer hf:{source}: it was trained for regression, so that its output is no probability. If it is a "
            "logit, say --probability sigmoid; else score with a function of your own: python:MODULE:FUNCTION"
        )
    if len(names) == 1:
        return "sigmoid", "its single label"
    if set(names) <= SENTIMENT or any(_is_rest(name, names) for name in names):
        return "softmax", "the names of its labels, one of which is the rest"
    if all(name in INDEPENDENT for name in names):
        return "sigmoid", "the names of its labels, of which a text may have several"
    if len(names) == 2 and not {*names} & {*INDEPENDENT}:
        return "softmax", "its two labels, one against the other"
    raise ExciseError(
        f"scorer hf:{source}: config.json has no problem_type, and its labels ({', '.join(map(str, labels))}) do "
        "not tell whether a text may have several of them. Say --probability sigmoid (each is decided by itself) or "
        "--probability softmax (one excludes the others); in a configuration scorers: {NAME: {probability: ...}}."
    )


def _is_rest(name: str, names: Collection[str]) -> bool:
    """Whether a label says that a text has none of the others: ``normal``, ``nothate`` beside ``hate``."""
    negated = {prefix + joint + other for prefix in ("no", "non", "not") for joint in ("", "_") for other in names}
    words = (*REST, "neutral") if len(names) == 2 else REST  # beside many emotions it is one of them
    return name in words or name in negated or name.startswith(("not_", "non_", "no_"))


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
    """Fingerprint of the weights, as loaded."""
    from excise.models.loading import fingerprint_of, tensor_digest

    return fingerprint_of({name: tensor_digest(name, tensor.cpu()) for name, tensor in model.state_dict().items()})


def load(name: str, options: Options) -> Classifier:
    """The scorer."""
    return Classifier(name.removeprefix("hf:"), options.label, options.probability, options.device)
