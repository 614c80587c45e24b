"""The one error that a user is meant to read."""

from collections.abc import Iterable
from difflib import get_close_matches


class ExciseError(Exception):
    """Bad input or an unusable result: the message says what, where, what is allowed and how to mend it.

    The command line prints the message without a traceback and exits with status 1.
    """


def unknown(what: str, value: object, allowed: Iterable[str], *, where: str = "") -> ExciseError:
    """An error for a name that is not among the allowed ones, with the nearest spelling.

    Args:
        what: the kind of thing, for example ``"method"``.
        value: what was given.
        allowed: every accepted name.
        where: the place it was given in, for example ``"config: variants.lrp.method"``.
    """
    names = sorted(allowed)
    near = get_close_matches(str(value), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    place = f"{where}: " if where else ""
    return ExciseError(f"{place}unknown {what} {value!r}.{hint} Allowed: {', '.join(names)}.")
