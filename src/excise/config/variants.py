"""What is made of a model: each entry of ``variants`` gives one variant or several, and ``edit`` says of which kind."""

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from excise.attribution.registry import CONTROLS, METHODS, RANKING, WITH_ERROR
from excise.config.compress import Compress, LowRank, Slice
from excise.config.section import Key, Section
from excise.config.values import OneOf, PartOfPath, Unique
from excise.models.units import UNITS

Number = Annotated[int, Field(ge=1)] | Literal["all"]
"""How many units are selected."""

Scale = Annotated[float, Field(ge=-1000, lt=1)] | Literal["expertise"]
"""What a selected unit is scaled by."""


class Units(Section):
    """Units (neurons, heads ...) that are found by attribution, and scaled in memory."""

    edit: Literal["units"] = Field("units", description="What is done to the model.")
    method: Annotated[str, OneOf(RANKING)] = Field(
        description="Attribution method; random and magnitude are controls and need no references."
    )
    unit: Annotated[str, OneOf(UNITS)] = Field(
        "neuron",
        description="What is selected: neurons of the MLP, attention heads, whole MLPs, whole attentions, or layers.",
    )
    target: str = Field("toxic", description="Reference set that shows the behaviour.")
    retain: str = Field("c4", description="Reference set of what shall be kept.")
    contrast: Literal["plain", "scaled", "standardised", "set"] = Field(
        "plain",
        description="plain = R_retain - R_target (SparC3); scaled = each divided by its sum of absolute values first; "
        "standardised = the plain difference over its standard error; set = R_target alone, which with protection is "
        "the set difference: top of the target minus top of the retain score.",
    )
    protect: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Never select a unit among this top share of absolute retain relevance; 0 switches the "
        "protection off.",
    )
    count: Annotated[list[Number], Unique] | None = Field(
        None,
        min_length=1,
        description="Numbers of units to prune, globally over all layers; one variant each. all = every unit whose "
        "contrast is negative (and which the protection lets pass). Left out only by a control that is matched to a "
        "choice or the winner and takes as many.",
    )
    choose: PartOfPath | None = Field(
        None,
        description="Do not evaluate every number: let them compete, with those of all variants of the same choose, on "
        "the tuning prompts; the best within the budget becomes the one variant of this name.",
    )
    scale: Scale | None = Field(
        None,
        description="What a selected unit is scaled by; 0 prunes it, 0.5 dampens it, -1 reverses it; expertise = "
        "each by its own, 1 - 2 (AUROC - 0.5), as in AurA (method aura only); null is 0, or for a matched control what "
        "the variant that it is matched to does.",
    )
    ablation: Literal["zero", "mean"] | None = Field(
        None,
        description="What it is scaled about: zero, or mean = its mean activation over the retain reference. So scale "
        "0 is zero ablation or mean ablation. null is zero, or for a matched control what the variant that it is "
        "matched to does.",
    )
    budget: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Rise of perplexity that the scales of the units may cost, as a share (method trust-region "
        "only); null is 0.03 = 3 %.",
    )
    bounds: list[float] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="Lowest and highest scale of a unit (method trust-region only): below 0 reverses, above 1 "
        "amplifies, 0 and 1 only take away; null is -1 and 2.",
    )
    repeats: int = Field(1, ge=1, description="Number of random draws (method random only).")
    findings: int = Field(
        1,
        ge=1,
        description="How often the list is found, each time from references that other seeds draw: first with seeds, "
        "then with as many others. The first may win; the others say how far its effect depends on what it was found "
        "from.",
    )
    matched_to: str | None = Field(
        None,
        description="Draw as many units from each layer as this variant, or choice, takes (method random only). "
        "winner = the candidate that wins the evaluation, whichever that is; the control is judged after it.",
    )

    @property
    def is_control(self) -> bool:
        """Whether the method looks at no reference set."""
        return self.method in CONTROLS

    @model_validator(mode="after")
    def _method_scores_its_unit(self) -> Self:
        if self.unit not in METHODS[self.method].units:
            able = [name for name in RANKING if self.unit in METHODS[name].units]
            raise ValueError(f"method {self.method} does not score unit {self.unit}; those that do: {', '.join(able)}")
        return self

    @model_validator(mode="after")
    def _fits_its_method(self) -> Self:
        if self.scale == "expertise" and self.method != "aura":
            raise ValueError(
                f"scale expertise belongs to method aura; {self.method} does not measure how well a neuron tells the "
                "target from other text. Give a number"
            )
        if self.protect and self.method == "aura":
            raise ValueError("no protection with aura, which gives all units one retain score")
        if self.contrast == "standardised" and self.method not in WITH_ERROR and not self.is_control:
            raise ValueError(
                f"contrast standardised needs a standard error; {self.method} has none, {', '.join(WITH_ERROR)} have "
                "one"
            )
        if self.method != "random" and (self.repeats > 1 or self.matched_to):
            raise ValueError(f"repeats and matched_to belong to method random, not to {self.method}")
        if self.findings > 1 and (self.is_control or self.choose or "all" in (self.count or ())):
            raise ValueError(
                "findings belongs to lists that are found from references, of a given count, and that do not compete: "
                "not to a control, to count all, or to choose"
            )
        return self

    @model_validator(mode="after")
    def _step_has_its_own_scales(self) -> Self:
        if self.method != "trust-region":
            if self.budget is not None or self.bounds is not None:
                raise ValueError(f"budget and bounds belong to method trust-region, not to {self.method}")
            return self
        if self.scale is not None or self.ablation == "mean" or self.protect or self.contrast != "plain":
            raise ValueError(
                "scale, ablation mean, protect and contrast do not apply to trust-region, which finds a scale for each "
                "unit; give budget and bounds"
            )
        if "all" in (self.count or ()):
            raise ValueError("count all does not apply to trust-region; give numbers")
        if self.bounds is not None and not self.bounds[0] <= 1 <= self.bounds[1]:
            raise ValueError("bounds are the lowest and the highest scale; 1 (untouched) must lie between them")
        return self

    @model_validator(mode="after")
    def _control_has_no_contrast(self) -> Self:
        if not self.is_control:
            return self
        if self.protect or self.contrast != "plain":
            raise ValueError(f"protect and contrast do not apply to a control ({self.method})")
        if self.choose:
            raise ValueError(f"choose does not belong to a control ({self.method}), which never wins")
        if not self.matched_to and "all" in (self.count or ()):
            raise ValueError(
                "count all takes every unit whose contrast is negative, and a control has no contrast; give "
                "numbers, or the variant that it is matched to"
            )
        return self

    @model_validator(mode="after")
    def _without_a_match_zero(self) -> Self:
        if self.matched_to is None and self.method != "trust-region":
            self.scale = 0.0 if self.scale is None else self.scale
            self.ablation = self.ablation or "zero"
        return self


Variant = Annotated[
    Annotated[Units, Tag("units")]
    | Annotated[Compress, Tag("compress")]
    | Annotated[Slice, Tag("slice")]
    | Annotated[LowRank, Tag("low-rank")],
    Discriminator(Key("edit", default="units")),
]
"""One entry of ``variants``; ``edit`` says of which kind."""
