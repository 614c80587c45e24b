"""How variants are judged, and how those that compete are."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from excise.config.generations import Sampling
from excise.config.section import OneOrSeveral, Section
from excise.config.values import SCORERS, ScorerName, Unique


class Protocol(Section):
    """How perplexity is measured on a text."""

    protocol: Literal["windows", "sliding"] = Field(
        "windows",
        description="windows = non-overlapping windows (Wanda, SparseGPT, SparC3); sliding = overlapping, only the "
        "last stride tokens count.",
    )
    seqlen: int = Field(2048, ge=2, description="Tokens per window.")
    windows: int | None = Field(None, ge=1, description="Number of windows; null takes the whole text.")
    skip: int = Field(0, ge=0, description="Leave out the first so many windows.")
    stride: int = Field(512, ge=1, description="Step of the sliding protocol.")
    separator: str = Field(
        r"\n\n",
        description=r"What joins the documents, \n for a newline; WikiText2 takes two newlines, C4 and PTB a space.",
    )
    batch_size: int = Field(1, ge=1, description="Windows per forward pass.")

    @model_validator(mode="after")
    def _reads_every_token(self) -> Self:
        if self.protocol == "sliding" and self.stride > self.seqlen:
            raise ValueError(f"stride {self.stride} is above seqlen {self.seqlen}: it would skip tokens")
        return self

    @property
    def step(self) -> int:
        """Tokens from one window to the next."""
        return self.seqlen if self.protocol == "windows" else self.stride

    def tokens(self) -> tuple[float, float]:
        """First token that is read, and the one after the last."""
        start = self.skip * self.step
        return start, float("inf") if self.windows is None else start + (self.windows - 1) * self.step + self.seqlen


class Perplexity(Protocol):
    """Perplexity protocol."""

    text: str = Field("wikitext2", description="Name of an entry of texts.")

    def overlaps(self, first: float, end: float) -> bool:
        """Whether any token from ``first`` to before ``end`` is read."""
        start, last = self.tokens()
        return start < end and first < last


def _each_text_once(several: list[Perplexity]) -> list[Perplexity]:
    names = [one.text for one in several]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"text {name!r} is given twice; a text is measured by one protocol")
    return several


Perplexities = Annotated[
    Annotated[Perplexity, Tag("one")]
    | Annotated[list[Perplexity], Field(min_length=1), AfterValidator(_each_text_once), Tag("several")],
    Discriminator(OneOrSeveral()),
]
"""A text to measure perplexity on, or a list of texts."""


def listed(found: Perplexity | list[Perplexity] | None) -> list[Perplexity]:
    """What may be one text, several, or none."""
    return found if isinstance(found, list) else [] if found is None else [found]


class Tasks(Section):
    """Tasks of lm-evaluation-harness, and how they are asked."""

    tasks: Annotated[list[Annotated[str, Field(pattern=r"^[^=\s]+(=[0-9]+)?$")]], Unique] = Field(
        [],
        description="Tasks, groups or tags by the harness's names, as NAME, or NAME=SHOTS for another number of "
        "examples in the prompt (mmlu=5). None by default.",
    )
    num_fewshot: int | None = Field(
        None, ge=0, description="Examples in the prompt where a name says nothing; null takes each task's own number."
    )
    limit: int | None = Field(
        None, ge=1, description="Only the first so many documents of each task, for a trial; null takes all."
    )
    include_path: str | None = Field(
        None, description="Folder of your own task files (YAML, and the data they name); they win over the harness's."
    )


class Capability(Tasks):
    """Tasks of lm-evaluation-harness that every variant is put through (pip install 'excise[harness]')."""

    batch_size: int = Field(8, ge=1, description="Requests per forward pass.")


class Timing(Section):
    """How fast every variant is beside the unpruned model: weights, bytes, tokens per second."""

    prefill: int = Field(512, ge=1, description="Tokens that are read at once.")
    decode: int = Field(32, ge=1, description="Tokens that are written one at a time.")
    rounds: int = Field(5, ge=2, description="Times that both models are timed, in turns.")


class Comparing(Section):
    """How variants are compared with the unpruned model."""

    resamples: int = Field(10000, ge=100, description="Resamples of the paired bootstrap and of the permutation test.")
    max_perplexity_increase: float = Field(
        0.05,
        ge=0,
        le=1,
        description="A variant whose perplexity rises by more than this share (0.05 = 5 %) cannot win.",
    )
    broken_perplexity_increase: float = Field(
        0.5,
        ge=0,
        description="A variant whose perplexity rises by more than this share (0.5 = 50 %) is marked as broken.",
    )


class Evaluation(Comparing, Sampling):
    """How every variant is judged."""

    shards: int = Field(
        1,
        ge=1,
        description="Jobs that a variant's generations, and again each file of their scores, are cut into; the merged "
        "bytes do not depend on it.",
    )
    fluency_generations: int | None = Field(
        None,
        ge=1,
        description="Generations per prompt whose perplexity under the unpruned model is measured (to notice broken "
        "text); null takes all.",
    )
    scorers: Annotated[list[ScorerName], Unique] = Field(
        ["detoxify-original"],
        min_length=1,
        description=f"Scorers; the first is the primary one. Their scores never share a column. Each is {SCORERS}",
    )
    threshold: float = Field(
        0.5, description="A continuation counts as showing the behaviour when its score is at or above this."
    )
    perplexity: Perplexities = Field(
        default_factory=Perplexity, description="Perplexity protocol of a text, or a list of them, one per text."
    )
    capability: Capability = Field(default_factory=Capability)
    cost: Timing | None = Field(
        None,
        description="Measure weights, bytes and tokens per second, in turns with the unpruned model; null does not.",
    )


class Tuning(Section):
    """How variants with choose compete.

    As in the evaluation (first scorer, limits of broken language), but on the tuning prompts and another text.
    """

    num_generations: int | None = Field(
        None, ge=1, description="Generations per tuning prompt; null takes as many as the evaluation."
    )
    perplexity: Perplexities | None = Field(
        None,
        description="Perplexity protocol, or a list of them: texts, or windows of them (skip), that the evaluation "
        "does not read.",
    )
    max_perplexity_increase: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Perplexity may rise by this share (0.05 = 5 %) at most; null takes the evaluation's.",
    )
