"""What an artefact says of the neuron list that its model was pruned with."""

from pathlib import Path

from excise.artefacts import Json, sha256_file


def selection_facts(selection: Json | None, path: Path | None) -> Json | None:
    """Name, size, factor and digest of a neuron list; None for the unpruned model."""
    if selection is None or path is None:
        return None
    return {
        "name": selection.get("name"),
        "neurons": len(selection["neurons"]),
        "factor": selection["factor"],
        "sha256": sha256_file(path),
    }
