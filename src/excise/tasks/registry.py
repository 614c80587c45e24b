"""All tasks, in the order of reports.

A task is a module with

- ``expected(experiment, tuning)``: what it will measure in an experiment, metrics by the name of the measurement; with
  ``tuning``, of what competes on the tuning prompts. So a goal can name its metrics before anything runs;
- ``add_arguments(parser)``: the options of ``excise evaluate`` that name its files;
- ``measure(arguments, generated)``: its measurements, from files that other stages made, one value per item; none where
  its files were not given. ``generated`` holds the variant's generations, or None.

A new task is one file beside this one, and its name here twice.
"""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Protocol

from excise.tasks import behaviour, capability, cost, degeneration, fluency, pairs, perplexity
from excise.tasks.generated import Generations
from excise.tasks.measurement import Measurement

if TYPE_CHECKING:
    from excise.config.experiment import Experiment


class Task(Protocol):
    """The interface of a task's module."""

    def expected(self, experiment: "Experiment", *, tuning: bool) -> dict[str, tuple[str, ...]]:
        """Say what it will measure."""
        ...

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options that name its files."""

    def measure(self, arguments: Namespace, generated: Generations | None) -> list[Measurement]:
        """Read its measurements."""
        ...


TASKS: tuple[Task, ...] = (behaviour, fluency, degeneration, perplexity, capability, pairs, cost)


def addresses(experiment: "Experiment", *, tuning: bool = False) -> list[str]:
    """Addresses NAME.METRIC of all metrics of a run, but for those of the harness, which its tasks decide.

    Args:
        experiment: its configuration.
        tuning: of what competes, by the first scorer and on the tuning texts.
    """
    found = [task.expected(experiment, tuning=tuning) for task in TASKS]
    return [f"{name}.{metric}" for names in found for name, metrics in names.items() for metric in metrics]


def named(experiment: "Experiment", address: str) -> bool:
    """Whether all metrics of a measurement are known: a harness task's are not, nor what a group of them is called."""
    names = {one.rpartition(".")[0] for one in addresses(experiment)}
    return not experiment.evaluation.capability.tasks or address.rpartition(".")[0] in names
