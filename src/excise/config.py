"""Check an experiment's configuration and say which variants it asks for.

The schema (types, descriptions, defaults) is the reference; this module applies it, words its errors, and checks
what a schema cannot: that every name refers to something.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from excise.artefacts import Json
from excise.attribution.registry import CONTROLS, WITH_ERROR
from excise.errors import ExciseError, unknown

"""Methods that look at no reference set."""

BASELINE = "baseline"
"""Name of the variant in which nothing is pruned."""


TUNING = "tuning"
"""Part of the prompts that competing candidates are judged on; also the prefix of their folders."""


def _whole(checker: object, value: object) -> bool:  # noqa: ARG001 (the interface's)
    return type(value) is int


def _finite(checker: object, value: object) -> bool:  # noqa: ARG001 (the interface's)
    return type(value) is int or (type(value) is float and math.isfinite(value))


# JSON's whole numbers include 2.0, which the command line would refuse later, and its numbers infinity.
_Validator = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": _whole, "number": _finite}),
)


@dataclass(frozen=True)
class Variant:
    """One selection at one number of neurons.

    Attributes:
        name: ``SELECTION-NEURONS``, with ``-repeatK`` before the number when a control is drawn several times; without
            the number for controls that are like a choice.
        selection: key in the configuration's ``variants``.
        neurons: how many neurons are selected; ``all``: every one with a negative contrast; None where a choice
            decides it.
        repeat: number of the random draw.
    """

    name: str
    selection: str
    neurons: int | str | None
    repeat: int = 0


def validated(config: Mapping[str, Any], schema: Json) -> Json:
    """The configuration with all defaults filled in.

    Raises:
        ExciseError: a key is unknown or missing, a value has the wrong type or range, or a name refers to nothing.
    """
    filled: Json = _filled(dict(config), schema, schema)
    errors = list(_Validator(schema).iter_errors(filled))
    if errors:
        raise ExciseError("\n".join(f"config: {message}" for error in errors for message in _worded(error)))
    _check_names(filled)
    for section in ("generations", "evaluation"):
        if filled[section]["greedy"]:
            if (number := config[section].get("num_generations", 1)) != 1:
                raise ExciseError(
                    f"config: {section}: greedy gives the same text in every draw; "
                    f"num_generations {number} must be 1, or left out"
                )
            filled[section]["num_generations"] = 1
    for selection in filled["variants"].values():
        for key, default in (("scale", 0), ("ablation", "zero")):
            if selection[key] is None and selection["matched_to"] is None:
                selection[key] = default
    for key in ("num_generations", "max_perplexity_increase"):
        if filled["tuning"][key] is None:
            filled["tuning"][key] = filled["evaluation"][key]
    return filled


def neuron_lists(config: Json) -> dict[str, Variant]:
    """Every unit list that is selected from scores, by name, in the order of the configuration.

    Raises:
        ExciseError: two of them would have the same name.
    """
    found: dict[str, Variant] = {}
    for selection, settings in config["variants"].items():
        for repeat in range(settings["repeats"]):
            label = f"{selection}-repeat{repeat}" if settings["repeats"] > 1 else selection
            for neurons in settings["neurons"] or [None]:
                variant = Variant(label if neurons is None else f"{label}-{neurons}", selection, neurons, repeat)
                if variant.name in found:
                    raise ExciseError(f"config: variants: two variants are called {variant.name!r}; rename one")
                found[variant.name] = variant
    return found


def choices(config: Json) -> dict[str, list[str]]:
    """Which unit lists compete on the tuning prompts, by the name that the best of them gets."""
    found: dict[str, list[str]] = {}
    for name, variant in neuron_lists(config).items():
        choice = config["variants"][variant.selection]["choose"]
        if choice is not None:
            found.setdefault(choice, []).append(name)
    return found


def variants(config: Json) -> list[str]:
    """What is judged on the evaluation prompts, the baseline aside: choices, and all lists that do not compete."""
    competing = {name: choice for choice, names in choices(config).items() for name in names}
    return list(dict.fromkeys(competing.get(name, name) for name in neuron_lists(config)))


def about_mean(config: Json, selection: str) -> bool:
    """Whether the neurons of a selection may be scaled about their mean: it says so, or what it is like may do so."""
    settings = config["variants"][selection]
    if settings["ablation"] is not None or settings["matched_to"] is None:
        return bool(settings["ablation"] == "mean")
    lists = neuron_lists(config)
    sources = {
        settings["matched_to"],
        *(lists[name].selection for name in choices(config).get(settings["matched_to"], ())),
    }
    return any(config["variants"].get(source, {}).get("ablation") == "mean" for source in sources)


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


_TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "a block of keys",
    "string": "text",
}
"""What people who write YAML call the types of a schema."""


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
    said = error.message
    if error.validator == "type":
        types = error.validator_value
        named = [_TYPES[one] for one in ([types] if isinstance(types, str) else types)]  # type: ignore[union-attr]
        said = f"{error.instance!r} is not {' or '.join(named)}"
    yield f"{where}: {said}." + (f" ({' '.join(meaning.split())})" if meaning else "")


def _check_names(config: Json) -> None:
    _check_thresholds(config)
    texts, references = config["texts"], config["references"]
    for name, reference in references.items():
        where = f"config: references.{name}"
        if reference["kind"] == "windows" and reference["text"] not in texts:
            raise unknown("text", reference["text"], texts, where=f"{where}.text")
        if reference["kind"] == "generations" and (reference["at_least"] is None) == (reference["below"] is None):
            raise ExciseError(f"{where}: give at_least or below (one of them)")
        if (reference.get("minimum") or 0) > reference.get("count", float("inf")):
            raise ExciseError(f"{where}: minimum {reference['minimum']} is above count {reference['count']}")
        threshold = config["evaluation"]["threshold"]
        if reference.get("span") == "onset" and (reference["at_least"] is None or reference["at_least"] < threshold):
            raise ExciseError(
                f"{where}: span onset needs at_least of evaluation.threshold ({threshold}) or more: an answer that "
                "does not show the behaviour has no onset of it"
            )
    for name, selection in config["variants"].items():
        where = f"config: variants.{name}"
        control = selection["method"] in CONTROLS
        used = {"target": not control, "retain": not control or about_mean(config, name)}
        for key in (key for key, needed in used.items() if needed):
            if selection[key] not in references:
                raise unknown("reference set", selection[key], references, where=f"{where}.{key}")
        if not control and selection["target"] == selection["retain"]:
            raise ExciseError(f"{where}: target and retain are both {selection['retain']!r}; their difference is 0")
        if control and not selection["matched_to"] and "all" in (selection["neurons"] or ()):
            raise ExciseError(
                f"{where}: neurons all takes every neuron whose contrast is negative, and a control has no "
                "contrast; give numbers, or the selection that it is matched to"
            )
        if selection["scale"] == "expertise" and selection["method"] != "aura":
            raise ExciseError(
                f"{where}: scale expertise belongs to method aura; {selection['method']} does not measure how well a "
                "neuron tells the behaviour from other text. Give a number"
            )
        if control and (selection["protect"] or selection["contrast"] != "plain"):
            raise ExciseError(f"{where}: protect and contrast do not apply to a control ({selection['method']})")
        if selection["protect"] and selection["method"] == "aura":
            raise ExciseError(f"{where}: no protection with aura, which gives all neurons one general score")
        if selection["contrast"] == "standardised" and selection["method"] not in WITH_ERROR:
            raise ExciseError(
                f"{where}: contrast standardised needs a standard error; {selection['method']} has none, "
                f"{', '.join(WITH_ERROR)} have one"
            )
        if selection["method"] != "random" and (selection["repeats"] > 1 or selection["matched_to"]):
            raise ExciseError(f"{where}: repeats and matched_to belong to method random, not to {selection['method']}")
        if selection["method"] in CONTROLS and selection["choose"]:
            raise ExciseError(f"{where}: choose does not belong to a control ({selection['method']}), which never wins")
    text = config["evaluation"]["perplexity"]["text"]
    if text not in texts:
        raise unknown("text", text, texts, where="config: evaluation.perplexity.text")
    for section in ("evaluation", "tuning"):
        protocol = config[section]["perplexity"]
        if protocol is not None and protocol["protocol"] == "sliding" and protocol["stride"] > protocol["seqlen"]:
            raise ExciseError(
                f"config: {section}.perplexity: stride {protocol['stride']} is above seqlen {protocol['seqlen']}: it "
                "would skip tokens"
            )
    for scorer, options in config["scorers"].items():
        for option, family in (("checkpoint", "detoxify-"), ("label", "hf:")):
            if options[option] is not None and not scorer.startswith(family):
                raise ExciseError(f"config: scorers.{scorer}.{option}: it belongs to {family}... scorers")
    _check_tuning(config)
    planned, chosen = neuron_lists(config), choices(config)
    for name, selection in config["variants"].items():
        where, like = f"config: variants.{name}", selection["matched_to"]
        if like is not None and config["variants"].get(like, {}).get("matched_to"):
            raise ExciseError(
                f"{where}: matched_to: {like!r} is itself a matched control; name the selection that it was matched to"
            )
        if like is not None and like not in {**config["variants"], **chosen}:
            raise unknown("selection", like, [*config["variants"], *chosen], where=f"{where}.like")
        if selection["neurons"] is None and like not in chosen:
            raise ExciseError(f"{where}: neurons is missing; only a control that is like a choice takes its number")
        if like in chosen and selection["neurons"] is not None:
            raise ExciseError(f"{where}: leave neurons out; the control takes as many as {like} will have")
        for neurons in selection["neurons"] if like and like not in chosen else ():
            if f"{like}-{neurons}" not in planned:
                raise ExciseError(f"{where}: no variant {like}-{neurons} to take the layers from")
    judged = variants(config)
    _check_resamples(config, judged)
    if config["export"] is not None and config["export"] not in judged:
        raise unknown("variant", config["export"], judged, where="config: export")


def _check_thresholds(config: Json) -> None:
    """Scores are shares and probabilities, which some thresholds never part; a function of one's own has any scale."""
    evaluation, scorer = config["evaluation"], config["generations"]["scorer"]
    found = [("evaluation.threshold", evaluation["threshold"], scorer) for scorer in evaluation["scorers"]]
    found += [
        (f"references.{name}.{key}", reference[key], scorer)
        for name, reference in config["references"].items()
        for key in ("at_least", "below")
        if reference.get(key) is not None
    ]
    for where, threshold, judge in found:
        lowest_counts = threshold == 0 and where.endswith("at_least")  # a set of all answers has its use
        if not (0 < threshold <= 1 or lowest_counts or judge.startswith("python:")):
            raise ExciseError(f"config: {where}: {threshold:g} parts nothing: scores of {judge} lie between 0 and 1")


def _check_resamples(config: Json, judged: list[str]) -> None:
    """The smallest p value is 2 / (resamples + 1), times the number of candidates: it must be able to convince."""
    lists = neuron_lists(config)
    methods = [config["variants"][lists[name].selection]["method"] if name in lists else "" for name in judged]
    candidates, resamples = sum(method not in CONTROLS for method in methods), config["evaluation"]["resamples"]
    if resamples < 40 * candidates:
        raise ExciseError(
            f"config: evaluation.resamples: {resamples} are too few for {candidates} candidates: corrected for them no "
            f"p value could fall below {2 * candidates / (resamples + 1):.2g}. Give at least {40 * candidates}."
        )


def _check_tuning(config: Json) -> None:
    """What a choice needs: prompts and a text of its own, and a name that no unit list has."""
    lists, chosen, fraction = neuron_lists(config), choices(config), config["prompts"]["tuning_fraction"]
    if not chosen:
        if fraction:
            raise ExciseError(
                "config: prompts.tuning_fraction: no selection has choose; these prompts would serve nothing"
            )
        return
    where = f"config: variants with choose: {next(iter(chosen))}"
    for choice in chosen:
        if choice in lists:
            raise ExciseError(f"config: choose: {choice!r} is already the name of a variant; take another")
    if not fraction:
        raise ExciseError(f"{where}: they need prompts of their own: set prompts.tuning_fraction, for example 0.2")
    if fraction + config["prompts"]["attribution_fraction"] >= 1:
        raise ExciseError("config: prompts: attribution_fraction and tuning_fraction leave nothing for the evaluation")
    protocol, judge = config["tuning"]["perplexity"], config["evaluation"]["perplexity"]
    if protocol is None:
        raise ExciseError(f"{where}: set tuning.perplexity: a text, or windows of it, that the evaluation does not use")
    if protocol["text"] not in config["texts"]:
        raise unknown("text", protocol["text"], config["texts"], where="config: tuning.perplexity.text")
    (start, end), (first, last) = _token_range(protocol), _token_range(judge)
    if protocol["text"] == judge["text"] and start < last and first < end:
        raise ExciseError(
            f"config: tuning.perplexity: tokens {start} to {end} of {protocol['text']}, and the evaluation reads "
            f"{first} to {last}: what is chosen on them cannot be judged on them. Take another text, or skip windows."
        )


def _token_range(protocol: Json) -> tuple[float, float]:
    """First token that a perplexity protocol reads, and the one after its last."""
    step = protocol["seqlen"] if protocol["protocol"] == "windows" else protocol["stride"]
    start, count = protocol["skip"] * step, protocol["windows"]
    return start, float("inf") if count is None else start + (count - 1) * step + protocol["seqlen"]
