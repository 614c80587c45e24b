"""The one error that a user is meant to read."""

from collections.abc import Iterable
from difflib import get_close_matches


class ExciseError(Exception):
    """Bad input or an unusable result: the message says what, where, what is allowed and how to mend it.

    The command line prints the message without a traceback and exits with status 1.
    """


def near(value: object, names: Iterable[str], count: int = 3) -> list[str]:
    """At most ``count`` names that are spelt most like the value, the nearest first; none where none is close."""
    return get_close_matches(str(value), list(names), n=count)


def nearest(value: object, names: Iterable[str]) -> str | None:
    """The name that is spelt most like the value; None where none is close."""
    return next(iter(near(value, names, 1)), None)


def unknown(what: str, value: object, allowed: Iterable[str], *, where: str = "") -> ExciseError:
    """An error for a name that is not among the allowed ones, with the nearest spelling.

    Args:
        what: the kind of thing, for example ``"method"``.
        value: what was given.
        allowed: every accepted name.
        where: the place it was given in, for example ``"config: variants.lrp.method"``.
    """
    names = sorted(allowed)
    likely = nearest(value, names)
    hint = f" Did you mean {likely!r}?" if likely else ""
    place = f"{where}: " if where else ""
    return ExciseError(f"{place}unknown {what} {value!r}.{hint} Allowed: {', '.join(names)}.")
