"""The model that is judged: what it was pruned with, and that nothing else was done to it."""

import importlib
import sys
from pathlib import Path
from typing import Any

from excise.artefacts import Json, sha256_file


def units_info(units: Json | None, path: Path | None) -> Json | None:
    """What an artefact says of a unit list: name, size, ablation and digest; None for the unpruned model."""
    if units is None or path is None:
        return None
    return {
        "name": units["name"],
        "unit": units["unit"],
        "count": len(units["rows"]),
        "ablation": units["ablation"],
        "scale": units["scale"],
        "sha256": sha256_file(path),
    }


def refuse_patched(model: Any) -> None:
    """Refuse a model, or a process, that is patched for LRP; where no such code was ever loaded there is none.

    The check is loaded by name: judging a model does not depend on how neurons are found, and a change there must not
    make every variant be judged again.

    Raises:
        ExciseError: it is patched.
    """
    if any(name.split(".")[0] == "lxt" or name == "excise.attribution.lxt_patch" for name in list(sys.modules)):
        importlib.import_module("excise.attribution.lxt_patch").assert_unpatched(model)
