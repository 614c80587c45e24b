"""What circuits are looked for: which task, by which methods, judged how."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from excise.circuits.methods import MEASURED, METHODS, measured
from excise.config.circuit_options import Choosing, EdgeRemoval, HeadRemoval, Running, Scoring, Task
from excise.config.values import OneOf, Unique

Method = Annotated[str, OneOf(METHODS)]
"""A method that scores edges."""


class Circuit(Task, Running, Scoring, Choosing):
    """A task whose circuit is looked for."""

    methods: Annotated[list[Method], Unique] = Field(
        ["eap-ig", "relp-qk", "eap", "random"],
        description="Methods that score edges. All are compared; the first chooses the circuit that is drawn. With "
        "none no circuit is looked for: the task only judges variants.",
    )
    shards: int = Field(1, ge=1, description="Jobs that the pairs are cut into when edges are scored.")
    sizes: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Unique] = Field(
        [0.01], min_length=1, description="Sizes of circuits, as shares of all edges; the first is drawn."
    )
    known_heads: Annotated[list[Annotated[str, Field(pattern=r"^L[0-9]+H[0-9]+$")]], Unique] = Field(
        [],
        description="Heads that are known to carry the task (L9H9); the report says how well methods find them.",
    )
    strongest: Annotated[list[Annotated[float, Field(gt=0, lt=0.5)]], Unique] = Field(
        [],
        description="Shares of the heads to write as unit lists, the strongest by exact patching, for compressed "
        "variants to protect.",
    )
    repeats: int = Field(1, ge=1, description="Random lists of as many other heads, beside each of them.")
    remove_heads: HeadRemoval | None = Field(
        None, description="Also remove heads one after the other as long as the task is done; null does not."
    )
    remove_edges: EdgeRemoval | None = Field(
        None,
        description="Also remove edges one after the other (ACDC), beginning with the best by the first method; null "
        "does not.",
    )

    @model_validator(mode="after")
    def _gradients_exist(self) -> Self:
        points = {name: set(measured(name).points(self.steps)) for name in self.methods if name in MEASURED}
        flat = [name for name, found in points.items() if found == {1.0}]
        if self.objective == "kl" and flat:
            raise ValueError(f"the gradient of kl is exactly zero at the clean prompt, where {flat[0]} takes it")
        between = [name for name, found in points.items() if found != {1.0}]
        if self.ablation != "resample" and between:
            raise ValueError(
                f"{between[0]} goes from the corrupted prompt to the clean one; it needs resample, not {self.ablation}"
            )
        if self.sign_sure is not None and not self.resamples:
            raise ValueError("sign_sure needs resamples")
        if self.remove_edges is not None and not self.methods:
            raise ValueError("remove_edges begins with the best edges by the first of methods: give one")
        return self
