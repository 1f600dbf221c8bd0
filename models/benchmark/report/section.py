"""What a report is made of: sections of text, tables and pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.benchmark.summary import Configuration
from models.benchmark.tables import Table


@dataclass(frozen=True)
class Picture:
    """A figure of the HTML report.

    Attributes:
        caption: below it.
        alternative: what it shows, for those who do not see it.
        draw: makes the matplotlib figure.
    """

    caption: str
    alternative: str
    draw: Callable[[], Any]


@dataclass(frozen=True)
class Section:
    """A part of the report: what stands in it, in this order."""

    title: str
    lines: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = field(default=())


def figures() -> Any:
    """The module, which imports matplotlib: Markdown has no pictures."""
    from models.benchmark import figures

    return figures


def names(group: Configuration) -> list[str]:
    """The first cells of a configuration's row: its workload with its size, its optimizer."""
    return [f"{group.plan.workload} {group.plan.size}", group.plan.optimizer]
