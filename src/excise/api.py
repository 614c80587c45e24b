"""The Python interface: prune a model that is in memory already, with nothing but a unit list."""

from pathlib import Path
from typing import Any

from excise.edits import ablation, unit_list

restore = ablation.restore


def prune(model: Any, units: str | Path, *, folder: str | Path | None = None) -> ablation.Undo:
    """Apply a unit list to a loaded Hugging Face model, in place.

    The weights are recognised by the files that the model was loaded from, so the precision and the device that it was
    loaded to do not matter; what was done to it in memory since is not seen. To save the pruned model use
    ``excise apply``: a list with ``ablation: mean`` may add biases that the configuration does not know of, and that
    ``from_pretrained`` would drop.

    Args:
        model: a causal language model as ``AutoModelForCausalLM.from_pretrained`` gives it.
        units: ``units.json`` of an exported model, or a list under ``units/`` of a run.
        folder: where the model was loaded from (default: what the model says: a folder, or a snapshot in the hub's
            cache).

    Returns:
        What ``restore`` needs to undo it.

    Raises:
        ExciseError: the list was made for other weights, or the family is not supported; nothing was changed.
    """
    from excise.models.loading import identity

    chosen = unit_list.read_units(units)
    source = _snapshot(model) if folder is None else Path(folder)
    unit_list.check_fits(chosen, identity(source, "any")["fingerprint"], where=str(units))
    return ablation.prune(model, chosen)


def _snapshot(model: Any) -> Path:
    """The folder with the weights that a model was loaded from."""
    from excise.data.hub import download_model

    name: str = model.name_or_path
    if Path(name).is_dir():
        return Path(name)
    commit = getattr(model.config, "_commit_hash", None)
    return download_model(name, revision=commit, weights_only=True)[0]
