"""Which variants an experiment asks for: unit lists, what competes, what is judged."""

from dataclasses import dataclass
from itertools import product

from excise.config import WINNER
from excise.config.experiment import Experiment
from excise.config.variants import Units
from excise.errors import ExciseError


@dataclass(frozen=True)
class UnitList:
    """One unit list that is selected from scores.

    Attributes:
        name: ``ENTRY-COUNT``, with ``-repeatK`` before the number when a control is drawn several times; without
            the number for controls that are matched to a choice or to the winner.
        entry: key in the configuration's ``variants``.
        count: how many units are selected; ``all``: every one with a negative contrast; None where what it is
            matched to decides it.
        repeat: number of the random draw.
        finding: which finding it is, counted from 1; from the second on the name has ``-findingK`` before the number.
    """

    name: str
    entry: str
    count: int | str | None
    repeat: int = 0
    finding: int = 1


def unit_variants(experiment: Experiment) -> dict[str, Units]:
    """The variants that are unit lists, by their names in the configuration."""
    return {name: variant for name, variant in experiment.variants.items() if isinstance(variant, Units)}


def unit_lists(experiment: Experiment) -> dict[str, UnitList]:
    """Every unit list that is selected from scores, by name, in the order of the configuration.

    Raises:
        ExciseError: two of them would have the same name.
    """
    found: dict[str, UnitList] = {}
    for name, variant in unit_variants(experiment).items():
        numbers: list[int | str | None] = [*variant.count] if variant.count else [None]
        for repeat, finding, count in product(range(variant.repeats), range(1, variant.findings + 1), numbers):
            label = f"{name}-repeat{repeat}" if variant.repeats > 1 else name
            label += f"-finding{finding}" if finding > 1 else ""
            one = UnitList(label if count is None else f"{label}-{count}", name, count, repeat, finding)
            if one.name in found:
                raise ExciseError(f"config: variants: two variants are called {one.name!r}; rename one")
            found[one.name] = one
    return found


def seeds(experiment: Experiment, finding: int) -> list[int]:
    """The seeds whose references a finding looks at: those of the configuration, then as many that come after them."""
    return [seed + (finding - 1) * (max(experiment.seeds) + 1) for seed in experiment.seeds]


def seeds_of_references(experiment: Experiment) -> dict[str, list[int]]:
    """The seeds that draw each reference set: those of the first finding, and of all others that look at it."""
    findings = dict.fromkeys(experiment.references or {}, 1)
    for variant in unit_variants(experiment).values():
        for name in findings.keys() & {variant.target, variant.retain}:
            findings[name] = max(findings[name], variant.findings)
    return {
        name: [seed for finding in range(1, number + 1) for seed in seeds(experiment, finding)]
        for name, number in findings.items()
    }


@dataclass(frozen=True)
class Folder:
    """One model folder that is made of the model.

    Attributes:
        name: ``ENTRY-PATTERN`` or ``ENTRY-KEEP``.
        entry: key in the configuration's ``variants``.
        given: the pattern, or the share to keep, as it stands in the configuration.
    """

    name: str
    entry: str
    given: str


def folders(experiment: Experiment) -> dict[str, Folder]:
    """Every variant that is a model folder, by name, in the order of the configuration.

    Raises:
        ExciseError: one would have the name of another variant.
    """
    taken, found = {*unit_lists(experiment), *choices(experiment)}, dict[str, Folder]()
    for entry, variant in experiment.variants.items():
        if isinstance(variant, Units):
            continue
        for ending, given in variant.named().items():
            one = Folder(f"{entry}-{ending}", entry, given)
            if one.name in taken | found.keys():
                raise ExciseError(f"config: variants: two variants are called {one.name!r}; rename one")
            found[one.name] = one
    return found


def choices(experiment: Experiment) -> dict[str, list[str]]:
    """Which unit lists compete on the tuning prompts, by the name that the best of them gets."""
    found: dict[str, list[str]] = {}
    for name, one in unit_lists(experiment).items():
        choice = unit_variants(experiment)[one.entry].choose
        if choice is not None:
            found.setdefault(choice, []).append(name)
    return found


def judged(experiment: Experiment) -> list[str]:
    """What is judged on the evaluation prompts, the baseline aside: choices, and all lists that do not compete."""
    competing = {name: choice for choice, names in choices(experiment).items() for name in names}
    lists = dict.fromkeys(competing.get(name, name) for name in unit_lists(experiment))
    return [*lists, *folders(experiment)]


def candidates(experiment: Experiment) -> list[str]:
    """What may win: all that is judged but later findings and controls, such as what permuted references gave."""
    lists, variants, references = unit_lists(experiment), unit_variants(experiment), experiment.references or {}
    controls = {name for name, variant in experiment.variants.items() if variant.is_control}
    for name, variant in variants.items():
        controls |= {name} if getattr(references.get(variant.target), "permuted", False) else set()
    entries = {name: one.entry for name, one in (lists | folders(experiment)).items()}
    later = {name for name, one in lists.items() if one.finding > 1}
    return [name for name in judged(experiment) if entries.get(name) not in controls and name not in later]


def asks_for_winner(experiment: Experiment) -> bool:
    """Whether a control is matched to the winner, or the winner is exported."""
    return WINNER in {experiment.export, *(one.matched_to for one in unit_variants(experiment).values())}


def entries_behind(experiment: Experiment, name: str) -> set[str]:
    """The entries that a name may turn out to stand for: of a unit list, a choice, the winner, or an entry itself."""
    lists, competing = unit_lists(experiment), choices(experiment)
    names = candidates(experiment) if name == WINNER else [name]
    found = [one for each in names for one in competing.get(each, [each])]
    return {lists[one].entry if one in lists else one for one in found}


def about_mean(experiment: Experiment, name: str) -> bool:
    """Whether the units of a variant may be held at their mean: it says so, or what it is matched to may do so."""
    variants = unit_variants(experiment)
    variant = variants[name]
    if variant.ablation is not None or variant.matched_to is None:
        return variant.ablation == "mean"
    sources = entries_behind(experiment, variant.matched_to) & variants.keys()
    return any(variants[source].ablation == "mean" for source in sources)


def means(experiment: Experiment) -> set[str]:
    """Reference sets over which the mean activation of every unit is measured, for those that are held at it."""
    variants = unit_variants(experiment)
    return {variant.retain for name, variant in variants.items() if about_mean(experiment, name)}


def attributed(experiment: Experiment) -> set[str]:
    """Reference sets that some attribution method looks at."""
    compared = [variant for variant in unit_variants(experiment).values() if not variant.is_control]
    return {name for variant in compared for name in (variant.target, variant.retain)} | means(experiment)


def lenses(experiment: Experiment) -> list[str]:
    """Lists of neurons whose tokens are looked up: the winner's, or each entry's shortest with 20; all start alike."""
    found, variants = [], unit_variants(experiment)
    if asks_for_winner(experiment):
        kinds = {variants[name].unit for name in entries_behind(experiment, WINNER) & variants.keys()}
        return [WINNER] if kinds == {"neuron"} else []
    for name, variant in variants.items():
        if variant.is_control or variant.choose is not None or variant.unit != "neuron":
            continue
        sizes = sorted(variant.count or (), key=lambda number: float("inf") if number == "all" else number)
        enough = [number for number in sizes if number == "all" or number >= 20]
        found += [f"{name}-{number}" for number in (enough or sizes[-1:])[:1]]
    lists = unit_lists(experiment)
    return found + [
        choice
        for choice, names in choices(experiment).items()
        if all(variants[lists[name].entry].unit == "neuron" for name in names)
    ]


def needs(experiment: Experiment) -> dict[str, list[str]]:
    """What unit lists need of a model: as many units as the longest of a kind; biases, where means are saved."""
    lists, export, variants = unit_lists(experiment), experiment.export, unit_variants(experiment)
    sizes: dict[str, int] = {}
    for one in lists.values():
        if isinstance(one.count, int):
            unit = variants[one.entry].unit
            sizes[unit] = max(one.count, sizes.get(unit, 0))
    saved = entries_behind(experiment, export) & variants.keys() if export else set()
    held = {variants[entry].unit for entry in saved if about_mean(experiment, entry)}
    return {"need": [f"{unit}={size}" for unit, size in sizes.items()], "need_bias": sorted(held)}
