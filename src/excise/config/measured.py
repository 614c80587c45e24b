"""Which metrics a run will measure, by their addresses NAME.METRIC; the modules of ``tasks`` measure them."""

from excise.config.evaluation import listed
from excise.config.experiment import Experiment

BEHAVIOUR = ("share", "mean", "expected_maximum", "probability")
LANGUAGE = (
    *("distinct_1", "distinct_2", "distinct_3", "mean_distinct_1", "mean_distinct_2", "mean_distinct_3"),
    *("rur", "repetitive_share", "empty_share", "mean_tokens"),
)

COST = ("parameters", "nonzero", "bytes", "prefill", "prefill_ratio", "decode", "decode_ratio")


def addresses(experiment: Experiment, *, tuning: bool = False) -> list[str]:
    """Addresses of all metrics, but for those of the harness, which its tasks decide.

    Args:
        experiment: its configuration.
        tuning: of what competes, by the first scorer and on the tuning texts.
    """
    judging = experiment.tuning if tuning else experiment.evaluation
    found: dict[str, tuple[str, ...]] = {}
    if experiment.prompts is not None:
        noun, scorers = experiment.behaviour.noun, experiment.evaluation.scorers[: 1 if tuning else None]
        found |= {noun if number == 0 else f"{noun}[{name}]": BEHAVIOUR for number, name in enumerate(scorers)}
        found |= {"fluency": ("perplexity",), "language": LANGUAGE}
    found |= {one.text: ("perplexity",) for one in listed(judging.perplexity)}
    if not tuning:
        found |= dict.fromkeys(experiment.circuits, ("logit_difference", "accuracy"))
    if experiment.evaluation.cost is not None and not tuning:
        found["cost"] = COST
    return [f"{name}.{metric}" for name, metrics in found.items() for metric in metrics]


def named(experiment: Experiment, address: str) -> bool:
    """Whether all metrics of a measurement are known: a harness task's are not, nor what a group of them is called."""
    names = {one.rpartition(".")[0] for one in addresses(experiment)}
    return not experiment.evaluation.capability.tasks or address.rpartition(".")[0] in names
