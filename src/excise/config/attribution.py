"""How relevance is computed."""

from typing import Literal, Self

from pydantic import Field, model_validator

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

    minutes: float | None = Field(
        None,
        gt=0,
        description="How long a job should measure, about. It measures a reference set under all seeds, and loads the "
        "model once; what takes longer is cut into as many jobs as that takes. null: never. The merged bytes do not "
        "depend on it.",
    )
    tokens_per_second: float | None = Field(
        None,
        gt=0,
        description="How fast a job measures, which minutes needs; the log of any such job says it.",
    )

    @model_validator(mode="after")
    def _minutes_need_a_speed(self) -> Self:
        if self.minutes is not None and self.tokens_per_second is None:
            raise ValueError(
                "minutes needs tokens_per_second, how fast a job measures; the log of one says it, and docs/slurm.md "
                "has some"
            )
        return self
