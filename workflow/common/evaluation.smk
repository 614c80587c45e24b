# Names and functions of the rules in rules/evaluation.smk: what is measured of a variant.

from excise.config.evaluation import Capability, Protocol, listed
from excise.config.generations import Sampling


def generated_of(name):
    """A file about the generations of a variant; nothing where there are no prompts."""
    return lambda w: (
        f"{RUN}/{w.model}/variants/{w.variant}/{name}" if config["prompts"] else []
    )


def scores_files(wildcards):
    """The scores of a variant: of all scorers, of what competes those of the first; none where there are no prompts."""
    if not config["prompts"]:
        return []
    scorers = (
        1
        if part_of(wildcards.variant) == TUNING
        else len(config["evaluation"]["scorers"])
    )
    folder = f"{RUN}/{wildcards.model}/variants/{wildcards.variant}"
    return [f"{folder}/scores-{number}.jsonl" for number in range(scorers)]


def protocols(section):
    """How perplexity is measured, by text."""
    return {
        one["text"]: {key: value for key, value in one.items() if key != "text"}
        for one in listed(SECTIONS[section]["perplexity"])
    }


def perplexity_files(wildcards):
    """The perplexity of a variant on every text."""
    folder = f"{RUN}/{wildcards.model}/variants/{wildcards.variant}/perplexity"
    return [f"{folder}/{text}.json" for text in protocols(part_of(wildcards.variant))]


def capability_of(wildcards):
    """What a variant can do; nothing where no tasks are configured, and of what competes."""
    wanted = (
        config["evaluation"]["capability"]["tasks"]
        and part_of(wildcards.variant) != TUNING
    )
    folder = f"{RUN}/{wildcards.model}/variants/{wildcards.variant}"
    return f"{folder}/capability.json" if wanted else []


def cost_of(wildcards):
    """What a variant costs, where it is to be measured, but not of what competes."""
    wanted = config["evaluation"]["cost"] and part_of(wildcards.variant) != TUNING
    folder = f"{RUN}/{wildcards.model}/variants/{wildcards.variant}"
    return f"{folder}/cost.json" if wanted else []


def finding_option(wildcards):
    """Which finding of its entry a variant is, from the second on."""
    one = LISTS.get(wildcards.variant)
    return options({"finding": one.finding if one and one.finding > 1 else None})


def named_files(input):
    """Input files by their names in the rule; what is not there is left out."""
    found = {key: input.get(key) for key in input.keys()}
    return {
        key: files if isinstance(files, str) else list(files) or None
        for key, files in found.items()
    }


def answers_of(wildcards):
    """What a variant answers to the judging pairs of every task of circuits; nothing of what competes."""
    folder = f"{RUN}/{wildcards.model}/variants/{wildcards.variant}/pairs"
    judging = part_of(wildcards.variant) != TUNING
    return [f"{folder}/{task}.json" for task in config["circuits"] if judging]
