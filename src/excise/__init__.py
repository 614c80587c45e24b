"""excise: take a behaviour out of an open language model, and prove that it is gone."""

__version__ = "0.1.0"

from excise.api import prune, restore

__all__ = ["prune", "restore"]
