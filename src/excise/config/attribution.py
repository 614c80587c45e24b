"""How relevance is computed."""

from typing import Literal

from pydantic import Field

from excise.config.section import Section


class Measuring(Section):
    """How a method measures a model on a reference set."""

    objective: Literal["continuation", "continuation-sum", "last-max", "contrastive"] = Field(
        "continuation",
        description="Where the backward pass starts: continuation = the mean logit of the tokens that follow the "
        "prompt; continuation-sum = their sum; last-max = the largest logit at the last token; contrastive = "
        "continuation, against the mean of all logits.",
    )
    batch_size: int = Field(
        8, ge=1, description="Samples per forward and backward pass; the borders of shards lie on batches."
    )
    recompute: bool = Field(
        False,
        description="Keep only the inputs of layers and recompute the rest in the backward pass: much less memory for "
        "models of many layers, 1.4 times the time.",
    )


class Attribution(Measuring):
    """How relevance is computed."""

    shards: int = Field(
        1,
        ge=1,
        description="Jobs that a reference set is cut into; the merged bytes do not depend on it.",
    )
