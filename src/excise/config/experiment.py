"""The configuration as a whole: one file is one experiment."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from excise.config.attribution import Attribution
from excise.config.circuits import Circuit
from excise.config.evaluation import Evaluation, Tuning
from excise.config.generations import Behaviour, Generations
from excise.config.goal import Goal
from excise.config.inputs import Model, Prompts, ScorerOptions, TextSource
from excise.config.references import Picked, Reference, Windows
from excise.config.retrieval import Retrieval
from excise.config.section import Section
from excise.config.values import Folder, Name, ScorerName, Seed, Unique
from excise.config.variants import Variant


class Experiment(Section):
    """Configuration of an excise experiment.

    One file is one experiment. The defaults are the field's standard protocol (RealToxicityPrompts, Detoxify,
    WikiText2, the reference sizes of SparC3); the shipped config.yaml departs from them where a laptop needs it.
    """

    experiment: Name = Field(description="Name of the experiment; its results go to RESULTS/EXPERIMENT.")
    results: Folder = Field("results", description="Folder for results, relative to the working directory.")
    inputs: Folder = Field(
        "inputs", description="Folder for fetched and converted models, texts and prompts; experiments share it."
    )
    seed: Seed = Field(
        0, description="Seed of the prompt split, of the evaluation's generations and of the resampling statistics."
    )
    seeds: Annotated[list[Seed], Unique] = Field(
        [0, 1, 2],
        min_length=1,
        description="Seeds of the reference sets. Each draws its own generations and its own text windows; scores are "
        "averaged over the seeds before anything is subtracted.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:[0-9]+)?|spread)$",
        description="Where models run; auto takes an accelerator where there is one, spread lays a model that is too "
        "large for one over all accelerators of the machine.",
    )
    threads: int = Field(
        1,
        ge=1,
        description="CPU threads of each job that runs a model. Part of the provenance: another number of threads "
        "gives other floating-point noise.",
    )
    models: dict[Name, Model] = Field(min_length=1, description="The models, by a name of your choice.")
    texts: dict[Name, TextSource] = Field(
        {}, description="Texts for reference windows and for perplexity, by a name of your choice."
    )
    prompts: Prompts | None = Field(
        None, description="The prompts; one part serves attribution, the other is kept for judging."
    )
    generations: Generations = Field(default_factory=Generations)
    behaviour: Behaviour = Field(default_factory=Behaviour)
    references: dict[Name, Reference] | None = Field(
        None,
        description="Reference sets by a name of your choice; each seed draws its own. With prompts, and nothing "
        "given: toxic = {kind: generations, at_least: 0.9} and c4 = {kind: windows, text: c4}.",
    )
    attribution: Attribution = Field(default_factory=Attribution)
    scorers: dict[ScorerName, ScorerOptions] = Field(
        {}, description="Options of scorers, by the name they are used under."
    )
    variants: dict[Name, Variant] = Field(
        {},
        description="Ways to change the model, by a name of your choice; each gives one variant per entry of count.",
    )
    circuits: dict[Name, Circuit] = Field(
        {}, description="Tasks whose circuits are looked for, by a name of your choice; see the page Find circuits."
    )
    evaluation: Evaluation = Field(default_factory=Evaluation)
    tuning: Tuning = Field(default_factory=Tuning)
    goal: Goal | None = Field(None, description="What decides which variant wins.")
    retrieval: Retrieval | None = Field(None, description="Smaller encoders for search, judged on test collections.")
    export: str | None = Field(
        None,
        description="Variant to save as a Hugging Face folder (NAME-COUNT, for example lrp-100; winner = the one that "
        "wins the evaluation); null saves none.",
    )

    @model_validator(mode="after")
    def _fill_in_what_other_sections_say(self) -> Self:
        if self.references is None:
            toxic, c4 = Picked(kind="generations", at_least=0.9), Windows(kind="windows", text="c4")
            self.references = {"toxic": toxic, "c4": c4} if self.prompts else {}
        tuning, evaluation = self.tuning, self.evaluation
        if tuning.num_generations is None:
            tuning.num_generations = evaluation.num_generations
        if tuning.max_perplexity_increase is None:
            tuning.max_perplexity_increase = evaluation.max_perplexity_increase
        return self
