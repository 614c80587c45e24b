"""What the stages of circuits are told: which pairs, scored how, chosen how."""

from typing import Literal, Self

from pydantic import Field, model_validator

from excise.config.section import Section
from excise.config.values import Text


class Task(Section):
    """Pairs of prompts that differ in what decides the answer."""

    task: Literal["ioi", "greater-than", "pronouns", "induction", "docstring"] | None = Field(
        None, description="Task whose pairs are made in the model's own tokens; or give texts."
    )
    texts: Text | None = Field(
        None, description="Pairs of your own instead of a task: JSONL rows of clean, corrupted, answers, wrong."
    )
    corruption: Literal["flip", "abc"] | None = Field(
        None, description="Of ioi: flip (the answer changes) or abc (three other names); null takes flip."
    )
    pairs: int = Field(32, ge=1, description="Pairs per half: one half finds a circuit, the other judges it.")
    disjoint: Literal["prompts", "templates"] = Field("prompts", description="What the two halves do not share.")
    min_accuracy: float = Field(
        0.75, ge=0, le=1, description="Least share of pairs that the model gets right; with fewer there is no circuit."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.task is None) == (self.texts is None):
            raise ValueError("give task or texts, and not both")
        if self.corruption is not None and self.task != "ioi":
            raise ValueError("corruption is for the task ioi; the others have one, and your own pairs bring theirs")
        return self


class Running(Section):
    """What is measured on a pair, and what replaces what a node writes."""

    objective: Literal["logit-difference", "probability-difference", "kl"] = Field(
        "logit-difference", description="What the model's answer is worth."
    )
    ablation: Literal["resample", "zero", "mean"] = Field(
        "resample",
        description="What replaces what a node writes: resample (its write on the corrupted prompt), zero, or mean "
        "(over the positions of all corrupted prompts).",
    )
    batch_size: int = Field(8, ge=1, description="Pairs per batch; the borders of shards lie on batches.")


class Scoring(Section):
    """How edges are scored."""

    steps: int = Field(5, ge=1, description="Inputs between the two prompts, for eap-ig and relp-ig.")
    resamples: int = Field(8, ge=0, description="Bootstrap resamples to keep the sums of.")


class Choosing(Section):
    """How a circuit is chosen from scores."""

    select: Literal["top", "greedy"] = Field("top", description="top: the best edges; greedy: from the logits back.")
    rank: Literal["absolute", "signed"] = Field(
        "absolute", description="absolute: edges that move the behaviour most; signed: those that support it most."
    )
    sign_sure: float | None = Field(
        None,
        ge=0.5,
        le=1,
        description="Leave out edges whose sign is not that of this share of the resamples; null keeps all.",
    )


class EdgeRemoval(Section):
    """How edges are removed one after the other (ACDC)."""

    objective: Literal["kl", "logit-difference", "probability-difference"] = Field(
        "kl", description="What a removal must not lower; kl is the paper's."
    )
    candidates: float = Field(
        0.005, gt=0, description="Edges to begin with, the best by absolute score: a share of all below 1, or a number."
    )
    threshold: float = Field(0.01, gt=0, description="What a removal may cost, in units of the objective (kl: nats).")
    together: int = Field(4, ge=1, description="Edges to try in one batch; does not change the result.")


class HeadRemoval(Section):
    """How heads are removed one after the other."""

    form: Literal["total-drift", "per-step"] = Field(
        "total-drift",
        description="total-drift: from the first layer up, against the whole model; per-step: from the last layer "
        "down, against the current circuit.",
    )
    threshold: float = Field(0.1, gt=0, description="What a removal may cost, in units of the objective.")
    together: int = Field(3, ge=1, description="Heads to try in one batch; does not change the result.")
