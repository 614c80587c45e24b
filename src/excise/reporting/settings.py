"""How a page says what it was made with: all settings, and the provenance of what it shows."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from excise.artefacts import Json
from excise.reporting.markup import Table


def flat(value: object, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Leaves of nested settings as dotted names and values."""
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from flat(child, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def appendix(config: Json, origins: Sequence[Json]) -> dict[str, Any]:
    """What ``macros.html`` shows at the end of a page.

    Args:
        config: the experiment's configuration with its defaults filled in.
        origins: ``meta`` blocks of all that the page shows.
    """
    rows = [("", pair) for pair in flat(config)]
    return {
        "settings": Table(header=("setting", "value"), rows=rows, prose=("setting", "value")),
        "provenance": json.dumps(list(origins), ensure_ascii=False, indent=1),
    }
