"""The unit list: which units of a model are ablated, and what becomes of them. Small JSON that people share.

``unit`` says what the rows name: ``{"layer": 3, "neuron": 17}``, ``{"layer": 3, "head": 5}``, or ``{"layer": 3}`` for
``mlp``, ``attention`` and ``layer``. The activation ``a`` of each channel of a unit becomes ``c + s (a - c)``:

- ``ablation``: what ``c`` is. ``zero``, or ``mean``: then each row has its ``mean``, a number for a neuron and a list
  with one number per channel for larger units.
- ``scale``: ``s``, a number for the whole list; or null, then each row has its own ``scale``. 0 ablates, between 0 and
  1 dampens, 1 changes nothing, above 1 amplifies, below 0 reverses.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from excise.artefacts import Json, read_json
from excise.errors import ExciseError, unknown
from excise.models.units import NUMBERED, UNITS

ABLATIONS = ("zero", "mean")
"""What a unit is scaled about."""

LARGEST = 10**9
"""Scales and means beyond it are mistakes; the weights that come of them need not be finite in float32."""


def read_units(path: str | Path) -> Json:
    """Read a unit list, and check all of it that is used later.

    Raises:
        ExciseError: it is not one; the message names the row (counted from 1), the key, and what is allowed.
    """
    units = read_json(path)
    where = f"{path}: not a unit list"
    meta = _checked(units, "meta", where, "an object")
    _checked(meta, "model", f"{where}: meta", "an object")
    if meta.get("references") is not None:
        sets = _checked(meta, "references", f"{where}: meta", "an object")
        for key in ("target", "retain"):
            one = _checked(sets, key, f"{where}: meta.references", "an object")
            _checked(one, "id", f"{where}: meta.references.{key}", "text")
    for key in ("name", "method"):
        _checked(units, key, where, "text")
    for key, allowed in (("unit", UNITS), ("ablation", ABLATIONS)):
        if _checked(units, key, where, "text") not in allowed:
            raise unknown(key, units[key], allowed, where=str(path))
    for key in ("layers", "units_per_layer"):
        _checked(units, key, where, "a whole number", 1, LARGEST)
    _checked(units, "scale", where, "null or a number", -LARGEST, LARGEST)
    if not _checked(units, "rows", where, "a list"):
        raise ExciseError(f"{where}: rows is empty; must have a row or more")
    _check_rows(units, where)
    return units


def _check_rows(units: Json, where: str) -> None:
    """Places, scales and means of all rows."""
    unit, seen = units["unit"], dict[tuple[int, int], int]()
    width: int | None = None
    for number, row in enumerate(units["rows"], 1):
        here = f"{where}: row {number}"
        if not isinstance(row, dict):
            raise ExciseError(f"{here} is {_short(row)}; must be an object with {' and '.join(row_keys(unit))}")
        for key in row_keys(unit):
            _checked(row, key, here, "a whole number", 0, units["layers" if key == "layer" else "units_per_layer"] - 1)
        if units["scale"] is None:
            _checked(row, "scale", here, "a number", -LARGEST, LARGEST)
        elif "scale" in row:
            raise ExciseError(f"{here} has a scale of its own; the list's must be null then")
        if units["ablation"] == "mean" and unit == "neuron":
            _checked(row, "mean", here, "a number", -LARGEST, LARGEST)
        elif units["ablation"] == "mean":
            mean = _checked(row, "mean", here, "a list")
            if len(mean) != (width := len(mean) if width is None else width) or not width:
                raise ExciseError(f"{here}: mean has {len(mean)} numbers; must have one per channel, as in row 1")
            for value in mean:
                _checked({"mean": value}, "mean", here, "a number", -LARGEST, LARGEST)
        if (first := seen.setdefault(place(row, unit), number)) != number:
            raise ExciseError(f"{here}: {described(row, unit)} is listed twice, first in row {first}")


KINDS: dict[str, tuple[type, ...]] = {
    "an object": (dict,),
    "a list": (list,),
    "text": (str,),
    "a whole number": (int,),
    "a number": (int, float),
    "null or a number": (int, float, type(None)),
}
"""What a key of a unit list may hold."""


def _checked(holder: Json, key: str, where: str, kind: str, least: int = 0, most: int = 0) -> Any:
    """The value of a key, which must be of a kind, and numbers from ``least`` to ``most``."""
    allowed = f"{kind} from {least} to {most}" if "number" in kind else kind
    if key not in holder:
        raise ExciseError(f"{where}: {key} is missing; must be {allowed}")
    value = holder[key]
    number = "number" in kind and value is not None
    if type(value) not in KINDS[kind] or (number and not least <= value <= most):
        raise ExciseError(f"{where}: {key} is {_short(value)}; must be {allowed}")
    return value


def _short(value: object) -> str:
    return json.dumps(value)[:60]


def row_keys(unit: str) -> tuple[str, ...]:
    """The keys that say which unit a row names."""
    return ("layer", unit) if unit in NUMBERED else ("layer",)


def place(row: Json, unit: str) -> tuple[int, int]:
    """(layer, index in it) of a row."""
    return row["layer"], row[unit] if unit in NUMBERED else 0


def named(layer: int, index: int, unit: str) -> Json:
    """The keys of a row for one unit."""
    return {"layer": layer, **({unit: index} if unit in NUMBERED else {})}


def described(row: Json, unit: str) -> str:
    """A row in words: ``layer 3, head 5``, or ``the mlp of layer 3``."""
    layer, index = place(row, unit)
    if unit in NUMBERED:
        return f"layer {layer}, {unit} {index}"
    return f"layer {layer}" if unit == "layer" else f"the {unit} of layer {layer}"


def counted(units: Json) -> str:
    """How many units a list names: ``300 neurons``, ``1 head``."""
    count, unit = len(units["rows"]), units["unit"]
    return f"{count} {unit if count == 1 else {'mlp': 'MLPs'}.get(unit, f'{unit}s')}"


def scale_of(units: Json, row: Json) -> float:
    """The scale of one row: its own, or the list's."""
    return float(row["scale"] if units["scale"] is None else units["scale"])


def means_of(units: Json, row: Json) -> Sequence[float]:
    """What the channels of one row are scaled about; empty for zero."""
    if units["ablation"] != "mean":
        return ()
    mean: Sequence[float] = [row["mean"]] if units["unit"] == "neuron" else row["mean"]
    return mean


def check_fits(units: Json, fingerprint: str, *, where: str) -> None:
    """Refuse a unit list, or scores, made for other weights.

    Args:
        units: anything with the model's identity in its ``meta``.
        fingerprint: of the model given.
        where: the file.

    Raises:
        ExciseError: the fingerprints differ.
    """
    made_for = units.get("meta", {}).get("model", {})
    if made_for.get("fingerprint") != fingerprint:
        other = f"{made_for.get('id')!r} (weights {str(made_for.get('fingerprint'))[:12]})"
        raise ExciseError(
            f"{where}: was made for {other}, not for the model given (weights {fingerprint[:12]}). "
            "The numbers of units mean nothing in other weights."
        )
