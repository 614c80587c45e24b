"""How weights are pruned, and on which text that is calibrated."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from excise.compress import METHODS
from excise.compress.patterns import Pattern, parse
from excise.compress.recipe import Recipe, check_together
from excise.config.section import Section
from excise.config.values import OneOf, Seed, Text, Unique
from excise.errors import ExciseError


class Pruning(Section):
    """How the weights of linear maps are pruned."""

    method: Annotated[str, OneOf(tuple(METHODS))] = Field(
        "alps", description="How weights are chosen: a score (the lowest are pruned) or a solver (it finds new ones)."
    )
    group: Literal["row", "matrix", "layer"] | None = Field(
        None, description="Which weights a share compares with each other; null: as the method's paper does."
    )
    reconstruct: Literal["none", "obs", "least-squares"] = Field(
        "none",
        description="What is done to the weights that are kept: obs = SparseGPT's update along the columns; "
        "least-squares = the exact solution on the mask.",
    )
    scope: Literal["all", "attention", "mlp"] = Field("all", description="Which maps of a layer are pruned.")
    permute: bool = Field(
        False, description="Order the neurons first so that N:M keeps more of the MLP's output projection."
    )


class Calibrating(Section):
    """Windows of a text that inputs of maps are measured on: its first ones, or some drawn at random."""

    windows: int = Field(128, ge=1, description="Calibration windows.")
    seqlen: int = Field(2048, ge=2, description="Tokens per calibration window.")
    separator: str = Field(" ", description=r"What joins the documents of the calibration text, \n for a newline.")
    seed: Seed | None = Field(None, description="Draw the windows at random; null takes the first ones.")
    one_shot: bool = Field(
        False, description="Measure every layer in the dense model, not behind the layers that are compressed already."
    )


class Calibration(Calibrating):
    """The text that a method calibrates on, and how much of it."""

    text: str = Field("c4", description="Name of an entry of texts.")

    def tokens(self) -> tuple[float, float]:
        """First token that may be read, and the one after the last."""
        return 0, float("inf") if self.seed is not None else self.windows * self.seqlen


class Compress(Pruning):
    """Weights of all layers are pruned; the model becomes a folder of its own."""

    edit: Literal["compress"] = Field(description="What is done to the model.")
    patterns: Annotated[list[Text], Unique] = Field(
        min_length=1,
        description="What is pruned, one variant each: a share of the weights (50% or 0.5), or N:M with N of M kept "
        "(2:4). A variant is called NAME-0.5 or NAME-2of4.",
    )
    calibration: Calibration | None = Field(
        None, description="The text that inputs of maps are measured on; random and magnitude need none."
    )
    protect: str | None = Field(
        None, description="A unit list whose weights are not pruned: a variant of this experiment, or a local file."
    )
    base: str | None = Field(
        None, description="Another variant of this experiment that is compressed, in place of the model itself."
    )

    def parsed(self) -> list[Pattern]:
        """The patterns.

        Raises:
            ExciseError: one cannot be read.
        """
        return [parse(text, self.group or METHODS[self.method].group) for text in self.patterns]

    @property
    def is_control(self) -> bool:
        """Whether the weights are drawn."""
        return self.method == "random"

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        try:
            recipes = [Recipe(self.method, pattern, self.reconstruct) for pattern in self.parsed()]
            for one in recipes:
                check_together(one, self.scope, permute=self.permute, protects=self.protect is not None)
        except ExciseError as error:
            raise ValueError(str(error).replace("--", "")) from error
        calibrated = recipes[0].needs in ("norms", "gram")
        if calibrated and self.calibration is None:
            raise ValueError(
                f"method {self.method}, reconstruct {self.reconstruct}: inputs of maps are measured; give calibration"
            )
        if not calibrated and self.calibration is not None:
            raise ValueError(f"method {self.method} measures nothing; leave calibration out")
        return self
