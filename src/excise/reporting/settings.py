"""Nested settings as rows of a table."""

import json
from collections.abc import Iterable


def flat(value: object, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Leaves of nested settings as dotted names and values."""
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from flat(child, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
