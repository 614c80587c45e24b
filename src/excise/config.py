"""Check an experiment's configuration and say which variants it asks for.

The schema (types, descriptions, defaults) is the reference; this module applies it, words its errors, and checks
what a schema cannot: that every name refers to something.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from excise.artefacts import Json
from excise.errors import ExciseError, unknown

CONTROLS = ("magnitude", "random")
"""Methods that look at no reference set."""

BASELINE = "baseline"
"""Name of the variant in which nothing is pruned."""


@dataclass(frozen=True)
class Variant:
    """One selection at one number of neurons.

    Attributes:
        name: ``SELECTION-NEURONS``, with ``-drawK`` before the number when a control is drawn several times.
        selection: key in the configuration's ``selections``.
        neurons: how many neurons are selected.
        draw: number of the random draw.
    """

    name: str
    selection: str
    neurons: int
    draw: int = 0


def validated(config: Mapping[str, Any], schema: Json) -> Json:
    """The configuration with all defaults filled in.

    Raises:
        ExciseError: a key is unknown or missing, a value has the wrong type or range, or a name refers to nothing.
    """
    filled: Json = _filled(dict(config), schema, schema)
    errors = list(Draft202012Validator(schema).iter_errors(filled))
    if errors:
        raise ExciseError("\n".join(f"config: {message}" for error in errors for message in _worded(error)))
    _check_names(filled)
    for section in ("responses", "evaluation"):
        if filled[section]["greedy"]:
            if (draws := config[section].get("draws", 1)) != 1:
                raise ExciseError(
                    f"config: {section}: greedy gives the same text in every draw; draws {draws} must be 1, or left out"
                )
            filled[section]["draws"] = 1
    return filled


def variants(config: Json) -> dict[str, Variant]:
    """Every variant of an experiment except the baseline, by name, in the order of the configuration.

    Raises:
        ExciseError: two variants would have the same name.
    """
    found: dict[str, Variant] = {}
    for selection, settings in config["selections"].items():
        for draw in range(settings["draws"]):
            label = f"{selection}-draw{draw}" if settings["draws"] > 1 else selection
            for neurons in settings["neurons"]:
                variant = Variant(f"{label}-{neurons}", selection, neurons, draw)
                if variant.name in found:
                    raise ExciseError(f"config: selections: two variants are called {variant.name!r}; rename one")
                found[variant.name] = variant
    return found


def _resolve(node: Json, schema: Json) -> Json:
    """A schema node with its ``$ref`` replaced; keys beside the reference win."""
    if "$ref" not in node:
        return node
    target: Any = schema
    for part in node["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def _filled(value: Any, node: Json, schema: Json) -> Any:
    """``value`` with the defaults of ``node`` filled in, recursively; invalid values pass unchanged."""
    if not isinstance(value, dict):
        return value
    node = _resolve(node, schema)
    for choice in node.get("allOf", ()):
        if choice["if"]["properties"]["kind"]["const"] == value.get("kind"):
            node = _resolve(choice["then"], schema)
    result = dict(value)
    properties = {key: child for key, child in node.get("properties", {}).items() if isinstance(child, dict)}
    for key, child in properties.items():
        child = _resolve(child, schema)
        if key in value or "default" in child:
            result[key] = _filled(value.get(key, child.get("default")), child, schema)
    if isinstance(node.get("additionalProperties"), dict):
        for key in value.keys() - node.get("properties", {}).keys():
            result[key] = _filled(value[key], node["additionalProperties"], schema)
        result = {key: result[key] for key in [*value, *(result.keys() - value.keys())]}
    return result


def _worded(error: ValidationError) -> Iterator[str]:
    """One violation in words: where, what, what is allowed."""
    where = ".".join(str(part) for part in error.absolute_path) or "top level"
    if (
        error.validator == "additionalProperties"
        and isinstance(error.schema, dict)
        and isinstance(error.instance, dict)
    ):
        allowed = list(error.schema.get("properties", {}))
        for key in sorted(error.instance.keys() - set(allowed)):
            near = get_close_matches(str(key), allowed, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            yield f"{where}: unknown key {key!r}.{hint} Allowed: {', '.join(sorted(allowed))}."
        return
    meaning = error.schema.get("description", "") if isinstance(error.schema, dict) else ""
    yield f"{where}: {error.message}." + (f" ({' '.join(meaning.split())})" if meaning else "")


def _check_names(config: Json) -> None:
    texts, references = config["texts"], config["references"]
    for name, reference in references.items():
        where = f"config: references.{name}"
        if reference["kind"] == "windows" and reference["text"] not in texts:
            raise unknown("text", reference["text"], texts, where=f"{where}.text")
        if reference["kind"] == "responses" and (reference["at_least"] is None) == (reference["below"] is None):
            raise ExciseError(f"{where}: give at_least or below (one of them)")
        threshold = config["evaluation"]["threshold"]
        if reference.get("span") == "onset" and (reference["at_least"] is None or reference["at_least"] < threshold):
            raise ExciseError(
                f"{where}: span onset needs at_least of evaluation.threshold ({threshold}) or more: an answer that "
                "does not show the behaviour has no onset of it"
            )
    for name, selection in config["selections"].items():
        where = f"config: selections.{name}"
        if selection["method"] not in CONTROLS:
            for key in ("behaviour", "general"):
                if selection[key] not in references:
                    raise unknown("reference set", selection[key], references, where=f"{where}.{key}")
        if selection["method"] != "random" and (selection["draws"] > 1 or selection["like"]):
            raise ExciseError(f"{where}: draws and like belong to method random, not to {selection['method']}")
    text = config["evaluation"]["perplexity"]["text"]
    if text not in texts:
        raise unknown("text", text, texts, where="config: evaluation.perplexity.text")
    planned = variants(config)
    for name, selection in config["selections"].items():
        if selection["like"] and selection["like"] not in config["selections"]:
            raise unknown("selection", selection["like"], config["selections"], where=f"config: selections.{name}.like")
        if selection["like"]:
            for neurons in selection["neurons"]:
                if f"{selection['like']}-{neurons}" not in planned:
                    raise ExciseError(
                        f"config: selections.{name}: no variant {selection['like']}-{neurons} to take the layers from"
                    )
    if config["export"] is not None and config["export"] not in planned:
        raise unknown("variant", config["export"], planned, where="config: export")
