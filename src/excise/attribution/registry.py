"""All attribution methods. A new method is its file and a line here.

What a stage reaches through this file does not enter the digest of its code (``excise.digest``); the one method that it
uses does. So a new or changed method leaves the results of the others valid.
"""

from excise.attribution import (
    Control,
    Measured,
    Method,
    activation,
    aura,
    gradient,
    lrp,
    lrp_abs_weights,
    lrp_cp,
    magnitude,
    mean_activation,
    random,
    trust_region,
    wanda,
)
from excise.errors import ExciseError, unknown

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        lrp.METHOD,
        lrp_cp.METHOD,
        lrp_abs_weights.METHOD,
        wanda.METHOD,
        gradient.METHOD,
        trust_region.METHOD,
        activation.METHOD,
        aura.METHOD,
        mean_activation.METHOD,
        magnitude.METHOD,
        random.METHOD,
    )
}
"""By name, in the order of the documentation."""

MEASURED = tuple(name for name, method in METHODS.items() if isinstance(method, Measured))
CONTROLS = tuple(name for name, method in METHODS.items() if isinstance(method, Control))
RANKING = tuple(name for name, method in METHODS.items() if not isinstance(method, Measured) or method.ranks)
"""Methods that units may be selected by."""

WITH_ERROR = tuple(
    name for name, method in METHODS.items() if isinstance(method, Measured) and method.squares and method.ranks
)
"""Methods whose scores have a standard error, which the standardised contrast needs."""


def measured(name: str) -> Measured:
    """A method that measures a model on a reference set.

    Raises:
        ExciseError: there is no such method.
    """
    method = METHODS.get(name)
    if not isinstance(method, Measured):
        raise unknown("method", name, MEASURED)
    return method


def control(name: str) -> Control:
    """A control.

    Raises:
        ExciseError: there is no such control.
    """
    method = METHODS.get(name)
    if not isinstance(method, Control):
        raise unknown("control", name, CONTROLS)
    return method


def refuse_unit(method: Method, unit: str) -> None:
    """Refuse a unit that a method cannot score.

    Raises:
        ExciseError: it is one.
    """
    if unit not in method.units:
        able = [name for name, other in METHODS.items() if unit in other.units]
        raise ExciseError(
            f"--unit {unit}: {method.name} scores {', '.join(method.units)} only. Methods for {unit}: {', '.join(able)}"
        )
