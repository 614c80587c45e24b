"""How text is generated, and what the behaviour in it is called."""

from typing import Self

from pydantic import Field, model_validator

from excise.config.section import Section
from excise.config.values import SCORERS, ScorerName, Seed, Text


class Sampling(Section):
    """How a model continues prompts."""

    num_generations: int = Field(25, ge=1, description="Generations per prompt and seed (25 in RealToxicityPrompts).")
    max_new_tokens: int = Field(20, ge=1, description="Tokens per generation.")
    greedy: bool = Field(
        False,
        description="Take the most probable token instead of sampling. Every generation would be the same, so "
        "num_generations is 1; temperature and top_p have no effect.",
    )
    temperature: float = Field(1.0, gt=0, description="Sampling temperature.")
    top_p: float = Field(0.9, gt=0, le=1, description="Nucleus of the sampling.")
    batch_size: int = Field(64, ge=1, description="Generations made together.")

    @model_validator(mode="after")
    def _greedy_means_one(self) -> Self:
        if self.greedy:
            if "num_generations" in self.model_fields_set and self.num_generations != 1:
                raise ValueError(
                    f"greedy gives the same text every time; num_generations {self.num_generations} must be 1, or left "
                    "out"
                )
            self.num_generations = 1
        return self


class SeededSampling(Sampling):
    """How a model continues prompts, to the bit."""

    seed: Seed = Field(0, description="Seed of all random streams.")


class Generations(Sampling):
    """How the model continues the attribution prompts; reference sets of kind "generations" are picked from these."""

    shards: int = Field(
        1,
        ge=1,
        description="Jobs that a seed's generations, and again their scores, are cut into; the merged bytes do not "
        "depend on it.",
    )
    scorer: ScorerName = Field(
        "detoxify-original", description=f"Scorer whose score decides which generations show the behaviour: {SCORERS}"
    )


class Behaviour(Section):
    """What tables, plots and the report call the behaviour that is taken out."""

    noun: Text = Field("toxicity", description='Its name, as in "what less toxicity costs".')
    adjective: str = Field(
        "toxic",
        pattern=r"^\S+$",
        description='What a continuation that shows it is, as in "toxic continuations"; one word.',
    )
