"""Variants that are model folders: weights pruned, or whole neurons cut, and the text that is calibrated on."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from excise.compress import METHODS
from excise.compress.patterns import Pattern, parse
from excise.compress.recipe import Recipe, check_together, needs
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
    shares: Literal["uniform", "owl"] = Field(
        "uniform",
        description="uniform = every layer loses the same share; owl = layers with more outliers among the Wanda "
        "scores lose less: 16 points between the most and the least.",
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


class Slicing(Section):
    """How whole neurons are cut out of every MLP."""

    multiple: int = Field(64, ge=1, description="Every layer keeps a multiple of this number of neurons.")
    repair: Literal["least-squares", "none"] = Field(
        "least-squares", description="What the output projections do about the neurons that were cut."
    )


class Factoring(Section):
    """How maps are replaced by products of two thin matrices, which are stored multiplied back."""

    method: Literal["whitened", "plain"] = Field(
        "whitened",
        description="whitened = the product that changes the map's outputs least (SVD-LLM); plain = the matrix itself "
        "least, which is the control.",
    )
    scope: Literal["all", "attention", "mlp"] = Field("attention", description="Which maps of a layer are replaced.")


class _OfBase(Section):
    base: str | None = Field(
        None, description="Another compressed variant that this one is made of, in place of the model itself."
    )


class Slice(Slicing, _OfBase):
    """Whole neurons of all layers are cut; the model becomes a smaller folder."""

    edit: Literal["slice"] = Field(description="What is done to the model.")
    keep: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Unique] = Field(
        min_length=1, description="Share of the neurons that every layer keeps, one variant each: NAME-0.75."
    )
    calibration: Calibration = Field(description="The text that activations are measured on.")

    is_control: ClassVar[bool] = False

    def named(self) -> dict[str, str]:
        """What names of variants end with, and the value of ``--keep``."""
        return {f"{share:g}": f"{share:g}" for share in self.keep}


class LowRank(Factoring, _OfBase):
    """Maps of all layers get a low rank; the folder stays as large."""

    edit: Literal["low-rank"] = Field(description="What is done to the model.")
    keep: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Unique] = Field(
        min_length=1,
        description="Share of a map's parameters that its factors would have, one variant each: NAME-0.75.",
    )
    calibration: Calibration | None = Field(
        None, description="The text that inputs of maps are measured on; plain needs none."
    )

    @property
    def is_control(self) -> bool:
        """Whether nothing is measured."""
        return self.method == "plain"

    def named(self) -> dict[str, str]:
        """What names of variants end with, and the value of ``--keep``."""
        return {f"{share:g}": f"{share:g}" for share in self.keep}

    @model_validator(mode="after")
    def _calibrates(self) -> Self:
        if self.is_control != (self.calibration is None):
            raise ValueError(
                f"method {self.method}: whitened measures inputs of maps and needs calibration, plain none"
            )
        return self


class Compress(Pruning, _OfBase):
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

    relevance: str | None = Field(
        None, description="Local folder of layer-LLL.safetensors that excise weight-relevance wrote (method lrp only)."
    )

    def parsed(self) -> list[Pattern]:
        """The patterns.

        Raises:
            ExciseError: one cannot be read.
        """
        return [parse(text, self.group or METHODS[self.method].group) for text in self.patterns]

    def named(self) -> dict[str, str]:
        """What names of variants end with, and the value of ``--pattern``."""
        return {pattern.name: given for pattern, given in zip(self.parsed(), self.patterns, strict=True)}

    @property
    def is_control(self) -> bool:
        """Whether the weights are drawn."""
        return self.method == "random"

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        try:
            recipes = [Recipe(self.method, pattern, self.reconstruct) for pattern in self.parsed()]
            for one in recipes:
                check_together(
                    one, self.scope, permute=self.permute, protects=self.protect is not None, shares=self.shares
                )
        except ExciseError as error:
            raise ValueError(str(error).replace("--", "")) from error
        if len(self.named()) < len(self.patterns):
            raise ValueError(f"patterns {', '.join(self.patterns)}: two of them are the same")
        if (METHODS[self.method].needs == "relevance") != (self.relevance is not None):
            raise ValueError("relevance belongs to method lrp: the folder that excise weight-relevance wrote")
        calibrated = needs(recipes[0], self.shares) in ("norms", "gram")
        if calibrated and self.calibration is None:
            raise ValueError(
                f"method {self.method}, reconstruct {self.reconstruct}{', owl' * (self.shares == 'owl')}: inputs of "
                "maps are measured; give calibration"
            )
        if not calibrated and self.calibration is not None:
            raise ValueError(f"method {self.method} measures nothing; leave calibration out")
        return self
