"""Tables of text, as Markdown that is readable in a terminal and as HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from models.benchmark.summary import Spread

NONE = "-"
INFINITE = "∞"
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BINARY = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


@dataclass(frozen=True)
class Table:
    """Cells of text under a caption.

    Attributes:
        caption: what it shows.
        columns: their heads. A head that begins with `>` is of numbers, to the right.
        rows: as many cells each.
        notes: lines below it.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.caption}: {len(row)} cells, {len(self.columns)} columns")


def markdown(table: Table) -> str:
    """The table in Markdown, columns aligned.

    >>> print(markdown(Table("Speed", ["of", ">FLOPS"], [["a", "12 G"], ["b|c", "1 G"]])))
    *Speed*
    <BLANKLINE>
    | of   | FLOPS |
    |:-----|------:|
    | a    |  12 G |
    | b\\|c |   1 G |
    """
    right = [name.startswith(">") for name in table.columns]
    lines = [[_cell(name.removeprefix(">")) for name in table.columns]]
    lines += [[_cell(cell) for cell in row] for row in table.rows]
    widths = [max(3, *(len(line[place]) for line in lines)) for place in range(len(right))]

    def joined(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rules = (
        "-" * (width + 1) + ":" if to_right else ":" + "-" * (width + 1)
        for width, to_right in zip(widths, right, strict=True)
    )
    text = [f"*{table.caption}*", "", joined(lines[0]), f"|{'|'.join(rules)}|"]
    text += [joined(line) for line in lines[1:]]
    for note in table.notes:
        text += ["", note]
    return "\n".join(text)


def as_html(table: Table) -> str:
    """The table in HTML, with a caption and heads of columns and rows."""
    classes = [' class="number"' if name.startswith(">") else "" for name in table.columns]
    heads = "".join(
        f'<th scope="col"{kind}>{html.escape(name.removeprefix(">"))}</th>'
        for name, kind in zip(table.columns, classes, strict=True)
    )
    rows = []
    for row in table.rows:
        cells = [f'<th scope="row">{html.escape(row[0])}</th>']
        cells += [
            f"<td{kind}>{html.escape(cell)}</td>"
            for cell, kind in zip(row[1:], classes[1:], strict=True)
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in table.notes)
    body = "\n".join(rows)
    # Wide tables scroll by themselves; the keyboard reaches them, too.
    label = html.escape(table.caption, quote=True)
    return (
        f'<div class="wide" role="region" aria-label="{label}" tabindex="0"><table>\n'
        f"<caption>{html.escape(table.caption)}</caption>\n"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n{notes}"
    )


def number(value: float | None, digits: int = 4) -> str:
    """A number for people: so many digits count; infinity and None have signs of their own.

    >>> [number(value) for value in (1234567.0, 12.3456, 0.000123456, float("inf"), None)]
    ['1,234,567', '12.35', '0.0001235', '∞', '-']
    """
    if value is None:
        return NONE
    if math.isinf(value):
        return INFINITE if value > 0 else f"-{INFINITE}"
    rounded = abs(float(f"{value:.{digits}g}"))
    if rounded == 0 or rounded >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    if rounded < 1e-4:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{digits - 1 - math.floor(math.log10(rounded))}f}"


def plain(value: float | None) -> str:
    """A number that was counted or stated: no more digits than it has.

    >>> [plain(value) for value in (4.0, 2.5, 12000, float("inf"), None)]
    ['4', '2.5', '12,000', '∞', '-']
    """
    if value is None or math.isinf(value):
        return number(value)
    return f"{value:,.10g}"


def scaled(value: float | None, unit: str, digits: int = 3) -> str:
    """A number with a prefix of a thousand: `12.3 GFLOPS`."""
    if value is None:
        return NONE
    for size, prefix in _PREFIXES:
        if abs(value) >= size and math.isfinite(value):
            return f"{number(value / size, digits)} {prefix}{unit}"
    return f"{number(value, digits)} {unit}"


def memory(value: float | None) -> str:
    """Bytes: `1.25 GiB`."""
    if value is None:
        return NONE
    for size, unit in _BINARY:
        if value >= size:
            return f"{number(value / size, 3)} {unit}"
    return f"{value:.0f} B"


def percent(value: float | None) -> str:
    """A share: `12.3 %`."""
    return NONE if value is None else f"{100 * value:.1f} %"


def milliseconds(seconds: float) -> str:
    """A time: `12.3 ms`."""
    return f"{number(1000 * seconds)} ms"


def median(value: Spread | None, digits: int = 4) -> str:
    """The median alone."""
    return NONE if value is None else number(value.median, digits)


def count(value: Spread | None) -> str:
    """The median of what is counted."""
    return NONE if value is None else plain(value.median)


def extent(value: Spread | None, digits: int = 4) -> str:
    """From the smallest to the largest: `1.2 to 3.4`."""
    if value is None:
        return NONE
    low, high = number(value.low, digits), number(value.high, digits)
    return low if low == high else f"{low} to {high}"


def _cell(text: str) -> str:
    """What may stand between bars."""
    return " ".join(text.split()).replace("|", "\\|")
