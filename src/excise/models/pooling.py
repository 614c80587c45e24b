"""How an encoder's token states become one embedding, as the model's own files say.

sentence-transformers writes them: ``modules.json`` (transformer, pooling, normalisation), ``1_Pooling/config.json``,
``sentence_bert_config.json`` (maximal length) and ``config_sentence_transformers.json`` (prompts, similarity). What
they say and this module does not know is refused: another pooling gives other embeddings, not a warning.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from excise.artefacts import Json, parse_json, read_json
from excise.errors import ExciseError, unknown

if TYPE_CHECKING:
    from torch import Tensor

MODES = ("mean", "cls", "max")
"""``mean`` over the tokens, the first token (``cls``), or the largest value of each channel (``max``)."""

KINDS = ("query", "document")
"""What a text is: some models put another prefix before each."""

_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names of a document's prompt in ``config_sentence_transformers.json``; the first that is there counts."""

MODULES, POOLING = "modules.json", "1_Pooling"


@dataclass(frozen=True)
class Pooling:
    """From states to embeddings.

    Attributes:
        mode: one of ``MODES``.
        normalise: embeddings get length 1. Always so under cosine similarity.
        max_length: tokens of a text that are read, special ones included; None: what the model can hold.
        lower: texts are put in lower case first.
        prefixes: what comes before a text of each kind.
    """

    mode: str
    normalise: bool
    max_length: int | None = None
    lower: bool = False
    prefixes: dict[str, str] = field(default_factory=lambda: dict.fromkeys(KINDS, ""))


def read_pooling(folder: Path) -> Pooling:
    """Read what a model folder says.

    Raises:
        ExciseError: it says nothing, or something unknown; names the file.
    """
    modules = _modules(folder)
    settings = read_json(folder / modules["Pooling"] / "config.json")
    length, prompts = (
        _optional(folder / "sentence_bert_config.json"),
        _optional(folder / "config_sentence_transformers.json"),
    )
    similarity = prompts.get("similarity_fn_name") or "cosine"
    if similarity not in ("cosine", "dot"):
        raise unknown("similarity", similarity, ("cosine", "dot"), where="config_sentence_transformers.json")
    named = prompts.get("prompts") or {}
    default = named.get(prompts.get("default_prompt_name") or "", "")
    document = next((named[name] for name in _DOCUMENT_PROMPTS if named.get(name)), default)
    prefixes = {"query": named.get("query") or default, "document": document}
    if any(prefixes.values()) and not settings.get("include_prompt", True):
        raise ExciseError(f"{folder.name}: its pooling leaves the prompt out (include_prompt: false), which is unknown")
    return Pooling(
        mode=_mode(settings, folder),
        normalise="Normalize" in modules or similarity == "cosine",
        max_length=length.get("max_seq_length"),
        lower=bool(length.get("do_lower_case")),
        prefixes=prefixes,
    )


def _optional(path: Path) -> Json:
    return read_json(path) if path.is_file() else {}


def _modules(folder: Path) -> dict[str, str]:
    """Path of each module inside the folder, by the name of its class."""
    if not (folder / MODULES).is_file():
        raise ExciseError(
            f"{folder}: no {MODULES} in it, so how token states become an embedding is unknown (mean, first token?). "
            "Take a folder that sentence-transformers saved, or write modules.json and 1_Pooling/config.json beside it."
        )
    listed = parse_json((folder / MODULES).read_text("utf-8"), f"{folder / MODULES}:")
    try:
        modules = {entry["type"].rpartition(".")[2]: entry["path"] for entry in listed}
    except (TypeError, KeyError) as error:
        raise ExciseError(f"{folder / MODULES}: expected a list of modules with type and path") from error
    known = ("Transformer", "Pooling", "Normalize")
    if others := sorted(modules.keys() - {*known, "ExciseTransformer"}):
        raise unknown("module", others[0], known, where=f"{folder / MODULES}")
    if len(modules) < len(listed) or "Pooling" not in modules:
        raise ExciseError(f"{folder / MODULES}: expected one transformer, one pooling and at most one normalisation")
    if path := modules.get("Transformer", ""):
        raise ExciseError(f"{folder / MODULES}: the transformer is in the folder {path!r}: give that shape at the top")
    return modules


def _mode(settings: Json, folder: Path) -> str:
    """The one pooling mode that is on, in the older files (a switch per mode) and the newer ones (a name)."""
    if "pooling_mode" in settings:
        on = settings["pooling_mode"]
        chosen = [on] if isinstance(on, str) else list(on)
    else:
        names = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max"}
        switches = {key.removeprefix("pooling_mode_"): value for key, value in settings.items() if "_mode_" in key}
        chosen = [names.get(name, name) for name, value in switches.items() if value]
    if len(chosen) != 1 or chosen[0] not in MODES:
        raise unknown("pooling", " + ".join(chosen) or "none", MODES, where=f"{folder.name}/{POOLING}/config.json")
    return chosen[0]


def with_prefixes(pooling: Pooling, query: str | None, document: str | None) -> Pooling:
    """The same with other prefixes, where a user gives them."""
    given = {"query": query, "document": document}
    return replace(
        pooling, prefixes=pooling.prefixes | {kind: text for kind, text in given.items() if text is not None}
    )


def pool(states: "Tensor", mask: "Tensor", pooling: Pooling) -> "Tensor":
    """Embeddings of a batch.

    Args:
        states: of the last layer, ``[texts, tokens, hidden]``.
        mask: 1 for tokens, 0 for padding, ``[texts, tokens]``.
        pooling: how.

    Returns:
        ``[texts, hidden]``.
    """
    import torch

    weights = mask[..., None].to(states.dtype)
    if pooling.mode == "cls":
        pooled = states[:, 0]
    elif pooling.mode == "max":
        pooled = states.masked_fill(weights == 0, -torch.inf).amax(1)
    else:
        pooled = (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
    return torch.nn.functional.normalize(pooled, dim=-1) if pooling.normalise else pooled


def write_pooling(folder: Path, pooling: Pooling, hidden: int, transformer: str) -> None:
    """Write the files of sentence-transformers that say so.

    Args:
        folder: a model folder.
        pooling: what they shall say.
        hidden: width of the states.
        transformer: class that loads the model itself.
    """
    import json

    def write(name: str, value: Any) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", "utf-8")

    kinds = [(transformer, ""), ("sentence_transformers.models.Pooling", POOLING)]
    if pooling.normalise:
        kinds.append(("sentence_transformers.models.Normalize", "2_Normalize"))
    write(MODULES, [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (kind, path) in enumerate(kinds)])
    keys = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
    switches = {f"pooling_mode_{key}": mode == pooling.mode for mode, key in keys.items()}
    write(f"{POOLING}/config.json", {"word_embedding_dimension": hidden, **switches})
    write("sentence_bert_config.json", {"max_seq_length": pooling.max_length, "do_lower_case": pooling.lower})
    similarity = {"similarity_fn_name": "cosine" if pooling.normalise else "dot"}
    write("config_sentence_transformers.json", {"prompts": pooling.prefixes, **similarity})
