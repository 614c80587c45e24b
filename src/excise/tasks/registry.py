"""All tasks, in the order of reports.

A task is a module with

- ``add_arguments(parser)``: the options of ``excise evaluate`` that name its files;
- ``measure(arguments, generated)``: its measurements, from files that other stages made, one value per item; none where
  its files were not given. ``generated`` holds the variant's generations, or None.

A new task is one file beside this one, and its name here twice.
"""

from argparse import ArgumentParser, Namespace
from typing import Protocol

from excise.tasks import behaviour, capability, cost, degeneration, fluency, pairs, perplexity
from excise.tasks.generated import Generations
from excise.tasks.measurement import Measurement


class Task(Protocol):
    """The interface of a task's module."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options that name its files."""

    def measure(self, arguments: Namespace, generated: Generations | None) -> list[Measurement]:
        """Read its measurements."""
        ...


TASKS: tuple[Task, ...] = (behaviour, fluency, degeneration, perplexity, capability, pairs, cost)
