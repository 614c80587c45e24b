"""What a template is given: tables as data."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        header: names of the columns.
        rows: pairs of a CSS class and the cells.
        prose: names of the columns whose text may wrap.
        note: what stands below it.
        counts: how many items were compared, in words.
        read: which of the generations were read, where not all.
    """

    header: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]
    prose: Sequence[str] = ()
    note: str = ""
    counts: str = ""
    read: str = ""


@dataclass(frozen=True, kw_only=True)
class TaskSection:
    """The section of a task.

    Attributes:
        task: its name, which is that of its template where it has one.
        title: its heading where it has none.
        tables: one, or one per measurement where these cannot be compared.
        settings: of the first metric.
        lower: metrics of which lower is better.
    """

    task: str
    title: str
    tables: Sequence[Table]
    settings: dict[str, object]
    lower: Sequence[str] = ()
