"""Reference sets: what attribution looks at."""

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from excise.config.section import Key, Section
from excise.config.values import Text


class _Counted(Section):
    count: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        93, description="Most samples per seed (93 in SparC3); all = every one there is."
    )
    minimum: int | None = Field(
        None, ge=1, description="Fewer than this per seed is an error; null asks for all of count."
    )

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.minimum is not None and self.count != "all" and self.minimum > self.count:
            raise ValueError(f"minimum {self.minimum} is above count {self.count}")
        return self


class Picked(_Counted):
    """The model's own generations, picked by score."""

    kind: Literal["generations"] = Field(description="What the samples are.")
    at_least: float | None = Field(None, description="Keep generations scored at or above this.")
    below: float | None = Field(None, description="Keep generations scored below this.")
    span: Literal["generation", "onset"] = Field(
        "generation",
        description="What of a generation is explained: generation = all its tokens (SparC3); onset = the one token at "
        "which it first scores at or above evaluation.threshold.",
    )

    permuted: bool = Field(
        False,
        description="Deal the scores anew among the generations first: as many samples, of which none was picked for "
        "what it shows. What trust-region finds with them is a control.",
    )

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.at_least is None) == (self.below is None):
            raise ValueError("give at_least or below (one of them)")
        return self


class Windows(Section):
    """Windows of a text."""

    kind: Literal["windows"] = Field(description="What the samples are.")
    text: str = Field(description="Name of an entry of texts.")
    windows: int = Field(128, ge=1, description="Windows per seed.")
    seqlen: int = Field(2048, ge=2, description="Tokens per window.")


class File(_Counted):
    """Ready-made JSONL with prompt and continuation."""

    kind: Literal["file"] = Field(description="What the samples are.")
    source: Text = Field(description="A local JSONL file with prompt and continuation.")


Reference = Annotated[
    Annotated[Picked, Tag("generations")] | Annotated[Windows, Tag("windows")] | Annotated[File, Tag("file")],
    Discriminator(Key("kind")),
]
"""One reference set; ``kind`` says which."""
