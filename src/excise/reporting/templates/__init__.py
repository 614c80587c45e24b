"""The pages as Jinja2 templates, which lie beside this file. Everything that comes from data is escaped."""

import base64
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from excise.reporting.figures import Figure

REM_PER_POINT = 0.09
"""How large a plot is shown: the same scale for all, so that their letters are equally large."""


def embedded(plot: Figure) -> dict[str, str]:
    """A plot as an address that holds all of it, and the width that it is shown with."""
    picture = plot.picture()
    (width,) = re.findall(rb'<svg [^>]*?width="([\d.]+)pt"', picture)
    source = f"data:image/svg+xml;base64,{base64.b64encode(picture).decode()}"
    return {"source": source, "width": f"{REM_PER_POINT * float(width):.1f}rem"}


def _breakable(text: str) -> Markup:
    """A heading that may break behind its colons."""
    return Markup(":<wbr>").join(text.split(":"))


def render(template: str, **context: Any) -> str:
    """A page, from the template of that name.

    Raises:
        jinja2.UndefinedError: the template uses a name that the context does not have.
    """
    environment = Environment(
        loader=PackageLoader("excise.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"embedded": embedded, "breakable": _breakable}
    return environment.get_template(template).render(context)
