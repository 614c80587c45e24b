"""excise: weaken a behaviour of an open language model, and measure what is left of it."""

__version__ = "0.1.0"

from excise.api import prune, restore
from excise.models.encoder import embed, load_encoder

__all__ = ["embed", "load_encoder", "prune", "restore"]
