"""Predictions as tables, as JSON and as a picture."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tfkfac.costs import (
    BASIS_EXCHANGE,
    DIRECTION_EXCHANGE,
    FACTOR_EXCHANGE,
    GRADIENTS,
    STAGES,
    Prediction,
)
from tfkfac.errors import InputError
from tfkfac.files import replacing

WIDTH = 170
MEGA = 1e6
TRAFFIC = (GRADIENTS, FACTOR_EXCHANGE, BASIS_EXCHANGE, DIRECTION_EXCHANGE)

# A scheme's name and what it costs on some number of ranks.
Named = Sequence[tuple[str, Prediction]]


def tables(predictions: Named) -> str:
    """Loads and traffic, then times, a line for each prediction."""
    loads = _table(
        "Decompositions, and megabytes over each link a step (averaged over intervals)",
        "ranks",
        "placement",
    )
    _add_columns(loads, "n³ max/mean", "seconds max/mean", "seconds mean", "seconds max")
    _add_columns(loads, "seconds first", "bases max", *TRAFFIC, "K-FAC total")
    times = _table("Predicted milliseconds a step, averaged over intervals", "ranks", "placement")
    _add_columns(times, *STAGES, "mean step", "plain step", "factor step", "longest step")
    for name, prediction in predictions:
        seconds = prediction.decomposition_seconds
        loads.add_row(
            str(prediction.ranks),
            name,
            f"{prediction.work_imbalance:.2f}",
            f"{prediction.seconds_imbalance:.2f}",
            f"{sum(seconds) / len(seconds):.3g}",
            f"{max(seconds):.3g}",
            f"{prediction.first_seconds:.3g}",
            _number(max(prediction.basis_bytes) / MEGA),
            *(_number(prediction.bytes_per_step(stage) / MEGA) for stage in TRAFFIC),
            _number(prediction.kfac_bytes_per_step / MEGA),
        )
        times.add_row(
            str(prediction.ranks),
            name,
            *(_number(1000 * prediction.seconds_per_step(stage)) for stage in STAGES),
            *(
                _number(1000 * seconds)
                for seconds in (
                    prediction.step_seconds,
                    prediction.plain_step_seconds,
                    prediction.factor_step_seconds,
                    prediction.longest_step_seconds,
                )
            ),
        )
    return _text(loads, times)


def rank_table(name: str, prediction: Prediction) -> str:
    """What each rank does on a decomposition step."""
    table = _table(f"{name}, {prediction.ranks} ranks", "rank")
    _add_columns(table, "factors owned", "n³", "seconds", "bases MB")
    owned = list(prediction.placement.owners.values())
    for rank in range(prediction.ranks):
        table.add_row(
            str(rank),
            str(owned.count(rank)),
            f"{prediction.work[rank]:.3e}",
            f"{prediction.decomposition_seconds[rank]:.3g}",
            _number(prediction.basis_bytes[rank] / MEGA),
        )
    return _text(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column == "placement" else "right", no_wrap=True)
    return table


def _add_columns(table: Table, *headings: str) -> None:
    """Columns of numbers, as narrow as their longest word."""
    for heading in headings:
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)


def _text(*contents: Table) -> str:
    buffer = io.StringIO()
    console = Console(file=buffer, width=WIDTH)
    for content in contents:
        console.print(content)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _number(value: float) -> str:
    """Three digits, without an exponent."""
    if value == 0:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else "<0.001"


def as_json(name: str, prediction: Prediction) -> dict[str, Any]:
    """All of a prediction as plain values."""
    return {
        "placement": name,
        "ranks": prediction.ranks,
        "scheme": dataclasses.asdict(prediction.scheme),
        "gradient_workers": prediction.placement.grid.workers,
        "work_imbalance": prediction.work_imbalance,
        "seconds_imbalance": prediction.seconds_imbalance,
        "work": list(prediction.work),
        "decomposition_seconds": list(prediction.decomposition_seconds),
        "first_decomposition_seconds": prediction.first_seconds,
        "basis_bytes": list(prediction.basis_bytes),
        "bytes": prediction.bytes,
        "bytes_per_step": {stage: prediction.bytes_per_step(stage) for stage in TRAFFIC},
        "kfac_bytes_per_step": prediction.kfac_bytes_per_step,
        "seconds": prediction.seconds,
        "seconds_per_step": {stage: prediction.seconds_per_step(stage) for stage in STAGES},
        "step_seconds": prediction.step_seconds,
        "plain_step_seconds": prediction.plain_step_seconds,
        "factor_step_seconds": prediction.factor_step_seconds,
        "longest_step_seconds": prediction.longest_step_seconds,
    }


def check_picture(out: Path) -> None:
    """Whether `plot` can write there.

    Raises:
        InputError: The directory is missing or the format is unknown.
    """
    if not out.parent.is_dir():
        raise InputError(f"--plot {out}: no directory {out.parent}")
    if out.suffix not in (".png", ".pdf", ".svg"):
        raise InputError(f"--plot {out}: the suffix must be .png, .pdf or .svg")


def plot(title: str, predictions: Named, out: Path) -> None:
    """Draws step time, load balance and traffic over the number of ranks, a curve a placement.

    Raises:
        InputError: See `check_picture`.
    """
    check_picture(out)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = (
        ("mean step (s)", lambda p: p.step_seconds),
        ("decompositions, longest / mean", lambda p: p.seconds_imbalance),
        ("K-FAC traffic a step (MB a link)", lambda p: p.kfac_bytes_per_step / MEGA),
    )
    figure, all_axes = pyplot.subplots(1, len(panels), figsize=(12, 3.8), layout="constrained")
    try:
        for axes, (label, value) in zip(all_axes, panels, strict=True):
            for name in dict.fromkeys(name for name, _ in predictions):
                own = sorted((p for n, p in predictions if n == name), key=lambda p: p.ranks)
                axes.plot([p.ranks for p in own], [value(p) for p in own], ".-", label=name)
            axes.set_xscale("log", base=2)
            ranks = sorted({p.ranks for _, p in predictions})
            axes.set_xticks(ranks, [str(count) for count in ranks])
            axes.set_xlabel("ranks")
            axes.set_title(label, fontsize="medium")
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
        all_axes[0].legend(fontsize="small")
        figure.suptitle(title, fontsize="medium")
        with replacing(out) as temporary:
            figure.savefig(temporary, dpi=90)
    finally:
        pyplot.close(figure)
