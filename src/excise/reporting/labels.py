"""Labels beside the marks of a plot, where neither a mark nor another label stands."""

from collections.abc import Mapping, Sequence
from typing import Any

from excise.reporting.style import INK


def place_labels(axes: Any, points: Mapping[str, tuple[float, float]], texts: Mapping[str, str]) -> None:
    """Write a text beside each mark that has one.

    The axes' limits and the layout must be settled. All lengths are in points; a box is left, low, right, high.

    Args:
        axes: with the marks in it.
        points: where each mark stands, in units of the data.
        texts: what is written beside some of them.
    """
    places = {name: axes.transData.transform(point) * 72 / axes.figure.dpi for name, point in points.items()}
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places.values()]
    for name, text in texts.items():
        x, y = places[name]
        width = 5 * len(text)
        sides = [(right, low) for right in (9, -9 - width) for low in (5, -12)]
        boxes = [(x + right, y + low, x + right + width, y + low + 8) for right, low in sides]
        best = min(range(len(sides)), key=lambda side: sum(_overlap(boxes[side], other) for other in taken))
        taken.append(boxes[best])
        axes.annotate(text, points[name], sides[best], textcoords="offset points", fontsize=8, color=INK)


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes overlap."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
