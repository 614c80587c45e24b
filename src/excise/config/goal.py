"""What an experiment wants: the metric that decides, and what it may cost."""

from typing import TYPE_CHECKING, Self

from pydantic import Field, create_model, model_validator

from excise.config.section import Section
from excise.config.values import Text
from excise.errors import ExciseError
from excise.goal import Goal as Wanted
from excise.goal import parse_goal


class _Goal(Section):
    lower: Text | None = Field(None, description="The metric to lower, as NAME.METRIC, such as toxicity.share.")
    within: dict[Text, str | float | int] = Field(
        {},
        description="How far another metric may go against the unpruned model, by its address: '+5 %' or '-2 %' of its "
        "figure, '+0.5' or -0.01 in its own unit. The sign says which way costs; '-5 % surely' asks it of the whole "
        "interval.",
    )

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        try:
            self.wanted()
        except ExciseError as error:
            raise ValueError(str(error).removeprefix("goal: ")) from error
        return self

    def budgets(self) -> dict[str, str]:
        """Budgets as text; YAML reads +0.5 as a number, without its sign."""
        return {name: one if isinstance(one, str) else f"{one:+}" for name, one in self.within.items()}

    def wanted(self) -> Wanted:
        """The goal as summaries use it.

        Raises:
            ExciseError: not one direction, or a budget cannot be read.
        """
        return parse_goal(self.model_dump() | {"within": self.budgets()})


if TYPE_CHECKING:
    Goal = _Goal
else:  # a field of this name cannot be written down in a class
    Goal = create_model(
        "Goal",
        __base__=_Goal,
        __doc__="What decides which variant wins. Without it: the first metric, in its own direction, with the "
        "perplexity of the first text within evaluation.max_perplexity_increase.",
        **{"raise": (Text | None, Field(None, description="The metric to raise, such as arc_easy.acc."))},
    )
