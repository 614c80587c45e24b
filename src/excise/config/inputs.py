"""What is fetched: models, texts, prompts; and the options of scorers."""

from typing import Literal

from pydantic import Field

from excise.config.section import Section
from excise.config.values import Sha256, Text


class Source(Section):
    """Where something comes from."""

    source: Text = Field(
        description="A hub id (owner/name), a local path, or wheel:PACKAGE==VERSION/PATH for a file inside a pinned "
        "Python wheel."
    )
    revision: str | None = Field(
        None, description="Commit, tag or branch on the hub; pin a commit for results that shall be repeated."
    )
    sha256: Sha256 | None = Field(None, description="SHA-256 of the fetched file; required for wheels.")


class Model(Source):
    """A causal language model."""

    dtype: Literal["float32", "bfloat16", "float64"] = Field(
        "float32", description="Precision the model runs in. float16 is not offered, LRP overflows in it."
    )


class DataSource(Source):
    """Where texts or prompts come from."""

    subset: str | None = Field(None, description="Configuration of a hub data set, for example wikitext-2-raw-v1.")
    licence: str | None = Field(None, description="Licence of the data, kept with them.")


class TextSource(DataSource):
    """A text for reference windows or for perplexity."""

    split: str = Field("test", description="Split of a hub data set.")
    field: str = Field("text", description="Column that holds the text.")
    lines: bool = Field(False, description="Each line of a local text file is a document of its own (wiki.test.raw).")
    limit: int | None = Field(
        None, ge=1, description="Take only this many documents (streamed from a hub); null takes all."
    )
    label: Text = Field(
        description="What the text is, as tables and plots shall call it; only WikiText2 may be called so."
    )


class PromptSource(DataSource):
    """Where the prompts come from."""

    split: str = Field("train", description="Split of a hub data set.")
    field: str | None = Field(
        None,
        description="Column that holds the prompt, or RealToxicityPrompts' record of it; null takes prompt, or else "
        "text.",
    )
    only: Literal["challenging"] | None = Field(
        None, description='Keep only the prompts marked so (RealToxicityPrompts has "challenging").'
    )
    label: str = Field("RealToxicityPrompts", description="What the prompts are, as tables and plots shall call them.")


class Prompts(PromptSource):
    """Where the prompts come from, and how they are divided."""

    attribution_fraction: float = Field(
        0.5, gt=0, lt=1, description="Share of the prompts used to find the neurons; the rest judges the result."
    )
    tuning_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the prompts that variants with choose compete on; taken from what would judge the "
        "result.",
    )
    limit: int | None = Field(None, ge=2, description="Use only this many prompts, drawn by the seed; null uses all.")
    judging: PromptSource | None = Field(
        None,
        description="Other prompts that judge the result, in place of those that the fractions leave; near-duplicates "
        "of prompts that served otherwise are left out.",
    )


class ScorerOptions(Section):
    """What a scorer is told."""

    checkpoint: str | None = Field(
        None, description="Local weights of a detoxify scorer (its file, or a folder with the tokenizer)."
    )
    label: str | None = Field(None, description="Which of a classifier's labels counts (hf scorers).")
    probability: Literal["sigmoid", "softmax"] | None = Field(
        None,
        description="Whether each of a classifier's labels is decided by itself (sigmoid) or excludes the others "
        "(softmax); null goes by its problem_type, or else by the names of its labels (hf scorers).",
    )
