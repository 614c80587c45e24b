"""Measurements as files: one shape for every task.

A file holds one or more measurements of one variant::

    {
     "meta": {...},                            provenance (excise.provenance)
     "variant": "lrp-300",                     its name in tables
     "about": {"kind": "candidate", ...},      what it is (class About)
     "measurements": [
      {
       "task": "perplexity",                   which task measured it
       "name": "wikipedia",                    of what; metrics are addressed as NAME.METRIC: wikipedia.perplexity
       "label": "Wikipedia articles",          what people read
       "item": "window",                       what an item is called
       "items": ["0", "1", ...],               ids, the same in the same order for every variant
       "serial": true,                         neighbours in this order resemble each other (windows of one text)
       "metrics": {
        "perplexity": {
         "title": "perplexity (...)",          head of its column in tables
         "figure": 14.3,                       what the values aggregate to
         "values": [1410.2, 1335.8, ...],      one per item; null where only the figure is known
         "weights": [511, 511, ...],           one per item; null = all 1
         "aggregate": "perplexity",            mean, ratio or perplexity
         "direction": "lower",                 which way is better: lower, higher, or null
         "unit": "number",                     share: shown in per cent and points; number: as it is
         "compared": true                      whether a summary compares it, or only shows its figure
        }
       },
       "groups": {"category": [...]},          what is known of each item; may be empty
       "settings": {...},                      must be equal for two variants to be compared
       "details": {...},                       anything else about this variant
       "provenance": {...}                     meta of the file that the values come from
      }
     ]
    }
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from excise.artefacts import Json, read_json, write_json
from excise.errors import ExciseError
from excise.tasks.measurement import KEPT, About, Measured, Measurement, Metric, Values


def write_measurements(path: Path, measured: Measured) -> None:
    """Write one file of measurements."""
    body = {
        "variant": measured.variant,
        "about": asdict(measured.about),
        "measurements": [_as_json(one) for one in measured.measurements],
    }
    write_json(path, measured.meta, body)


def _as_json(one: Measurement) -> Json:
    def column(values: Values | None) -> list[float] | None:
        return None if values is None else values.tolist()

    metrics = {
        name: {
            "figure": metric.figure,
            "values": column(metric.values),
            "weights": column(metric.weights),
            **{key: getattr(metric, key) for key in ("aggregate", *KEPT)},
        }
        for name, metric in one.metrics.items()
    }
    groups = {name: list(known) for name, known in one.groups.items()}
    return {
        **{key: getattr(one, key) for key in ("task", "name", "label", "item")},
        "items": list(one.items),
        "serial": one.serial,
        "metrics": metrics,
        "groups": groups,
        **{key: getattr(one, key) for key in ("settings", "details", "provenance")},
    }


def read_measurements(path: Path) -> Measured:
    """Read and check one file of measurements.

    Raises:
        ExciseError: it is not one, lacks something, or does not agree with itself; names the file and the metric.
    """
    body = read_json(path)
    if missing := [key for key in ("meta", "variant", "about", "measurements") if key not in body]:
        raise ExciseError(f"{path}: not a file of measurements: it lacks {', '.join(missing)}; make it again")
    try:
        about = About(**body["about"])
        found = [_from_json(one) for one in body["measurements"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ExciseError(
            f"{path}: not a file of measurements ({type(error).__name__}: {error}); make it again"
        ) from error
    except ExciseError as error:
        raise ExciseError(f"{path}: {error}") from error
    names = [one.name for one in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ExciseError(f"{path}: two measurements are called {min(twice)!r}")
    return Measured(variant=body["variant"], measurements=found, about=about, meta=body["meta"])


def _from_json(body: Json) -> Measurement:
    def column(values: list[float] | None) -> Values | None:
        return None if values is None else np.array(values, dtype=np.float64)

    metrics = {
        name: Metric(
            figure=one["figure"],
            values=column(one["values"]),
            weights=column(one["weights"]),
            **{key: one[key] for key in ("aggregate", *KEPT)},
        )
        for name, one in body["metrics"].items()
    }
    return Measurement(**{**body, "metrics": metrics})
