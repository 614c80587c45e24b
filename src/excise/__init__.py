"""excise: weaken a behaviour of an open language model, and measure what is left of it."""

__version__ = "0.1.0"

from excise.api import prune, restore

__all__ = ["prune", "restore"]
