"""What every artefact says about how it came to be."""

from collections.abc import Iterable
from importlib.metadata import version

from excise import __version__
from excise.artefacts import SCHEMA, Json
from excise.digest import digest


def provenance(
    stage: str, settings: Json, *, packages: Iterable[str] = (), modules: Iterable[str] = (), **facts: object
) -> Json:
    """The ``meta`` block of an artefact.

    Args:
        stage: name of the subcommand that writes it.
        settings: everything that the result depends on and that the user can set, seeds included.
        packages: installed packages whose version bears on the numbers.
        modules: the modules that it uses of a registry (see ``digest.sources``).
        facts: further blocks such as ``model`` or ``corpus``.
    """
    return {
        "schema": SCHEMA,
        "stage": stage,
        "excise": __version__,
        "code": digest(f"stages.{stage.replace('-', '_')}", *modules),
        "settings": settings,
        **facts,
        "versions": {package: version(package) for package in packages},
    }
