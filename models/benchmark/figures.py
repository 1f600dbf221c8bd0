"""Pictures of results: learning curves, times to quality, performance profiles, scaling.

Each function returns a matplotlib figure; the same results give the same bytes. Colours are Okabe
and Ito's, which people with any colour vision tell apart; markers and dashes say the same.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter, ScalarFormatter

from models.benchmark.comparison import UNITS, Comparison
from models.benchmark.summary import Configuration, Scaling, reaching
from tfkfac.errors import InputError
from tfkfac.files import replacing

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#8C6D31")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
# Contestants that are known keep their colours from one report to the next.
_KNOWN = ("sgd", "adamw", "muon", "kfac")
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "hpcai500",  # of identifiers, which would be random
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}
_HATCH = "////"


def styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and dashes of each contestant."""
    others = [name for name in dict.fromkeys(names) if name not in _KNOWN]
    places = {name: place for place, name in enumerate((*_KNOWN, *others))}
    found = {}
    for name in dict.fromkeys(names):
        place = places[name]
        found[name] = {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place % len(MARKERS)],
            "linestyle": DASHES[place % len(DASHES)],
        }
    return found


@rc_context(_STYLE)
def learning_curves(groups: Sequence[Configuration]) -> Figure:
    """Quality over time of all trials of one task, with the target.

    Args:
        groups: of one workload, size and number of ranks, with a target or without.
    """
    look = styles([group.plan.optimizer for group in groups])
    figure, (axes,) = _axes(7, 4)
    labelled: set[str] = set()
    for group in groups:
        name = group.plan.optimizer
        for record in group.records:
            points = [(e.seconds, e.quality) for e in record.history if e.quality is not None]
            if not points:
                continue
            times, qualities = zip(*points, strict=True)
            label = None if name in labelled else name
            labelled.add(name)
            axes.plot(times, qualities, label=label, **look[name], markersize=3, linewidth=1.2)
            first = reaching(record)
            if first is not None:
                axes.plot(
                    *(first.seconds, first.quality),
                    marker=look[name]["marker"],
                    color=look[name]["color"],
                    markersize=9,
                    markeredgecolor="black",
                    linestyle="none",
                )
    some = groups[0].records[0]
    if some.plan.target is not None:
        axes.axhline(some.plan.target, color="black", linewidth=1)
        axes.annotate(
            f"target {some.plan.target:g}",
            (0, some.plan.target),
            xycoords=("axes fraction", "data"),
            xytext=(4, 3),
            textcoords="offset points",
        )
    axes.set_title(f"{some.plan.workload} {some.plan.size}", loc="left", size=10)
    _leave_out_outliers(axes, groups)
    axes.set_xlim(left=0)
    axes.set_xlabel("wall-clock time of training and evaluation (s)")
    better = "higher" if some.higher_is_better else "lower"
    axes.set_ylabel(f"{some.metric} of test examples ({better} is better)")
    if labelled:
        axes.legend(loc="best")
    return figure


@rc_context(_STYLE)
def times_to_quality(comparison: Comparison) -> Figure:
    """Bars of each task's medians; a hatched one reaches to the end for a miss."""
    names, tasks = list(comparison.medians), comparison.tasks
    look = styles(names)
    figure, grid = _axes(7, 0.6 + len(tasks) * (0.75 + 0.28 * len(names)), rows=len(tasks))
    for axes, task in zip(grid, tasks, strict=True):
        values = [comparison.medians[name][task] for name in names]
        longest = max((value for value in values if math.isfinite(value)), default=1.0)
        for place, (name, value) in enumerate(zip(names, values, strict=True)):
            missed = math.isinf(value)
            axes.barh(
                place,
                1.15 * longest if missed else value,
                color="white" if missed else look[name]["color"],
                edgecolor=look[name]["color"],
                hatch=_HATCH if missed else None,
            )
            axes.annotate(
                "missed" if missed else f"{value:,.4g}",
                (1.15 * longest if missed else value, place),
                xytext=(4, 0),
                textcoords="offset points",
                verticalalignment="center",
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(0, 1.35 * longest)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_title(f"{task}: {comparison.targets[task]}", loc="left", fontsize=10)
    unit = UNITS[comparison.measure]
    shown = f" ({unit})" if unit in ("s", "J") else ""
    grid[-1].set_xlabel(f"{comparison.measure} to quality, median{shown}")
    return figure


@rc_context(_STYLE)
def profiles(comparison: Comparison) -> Figure:
    """Each contestant's performance profile: share of tasks within τ times the best."""
    look = styles(list(comparison.medians))
    figure, (axes,) = _axes(7, 4)
    for name in comparison.ranking:
        ratios, shares = zip(*comparison.profile(name), strict=True)
        axes.plot(
            ratios,
            shares,
            drawstyle="steps-post",
            label=f"{name}, score {comparison.scores[name]:.2f}",
            **look[name],
            markersize=5,
            clip_on=False,
        )
    axes.set_xlim(1, comparison.limit)
    axes.set_ylim(-0.03, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(f"τ: {comparison.measure} over the best contestant's")
    axes.set_ylabel("tasks whose target is reached within τ")
    axes.legend(loc="best")
    return figure


@rc_context(_STYLE)
def scaling(points: Sequence[Scaling]) -> Figure:
    """Speedup by throughput over ranks, with the ideal."""
    kinds = list(dict.fromkeys(point.kind for point in points))
    names = list(dict.fromkeys(_series(point) for point in points))
    look = styles(names)
    figure, grid = _axes(3.8 * len(kinds) if len(kinds) > 1 else 5, 3.6, columns=len(kinds))
    for axes, kind in zip(grid, kinds, strict=True):
        own = [point for point in points if point.kind == kind]
        lines: dict[tuple[Any, ...], list[Scaling]] = {}
        for point in own:
            plan = point.configuration.plan
            batch = plan.batch_size if kind == "strong" else plan.batch_size // plan.ranks
            lines.setdefault((_series(point), batch), []).append(point)
        ranks = sorted({point.configuration.plan.ranks for point in own})
        axes.plot(
            ranks, [r / ranks[0] for r in ranks], color="0.5", linewidth=1, label="ideal", zorder=0
        )
        for (name, batch), line in lines.items():
            axes.plot(
                [point.configuration.plan.ranks for point in line],
                [point.speedup for point in line],
                label=f"{name}, {batch} {'in all' if kind == 'strong' else 'a rank'}",
                **look[name],
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(ranks)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("ranks")
        axes.set_ylabel("speedup in examples a second")
        axes.set_title(f"{kind} scaling", loc="left", fontsize=10)
        axes.legend(fontsize=8)
    return figure


def svg(figure: Figure) -> bytes:
    """The figure as SVG, without its date."""
    out = io.BytesIO()
    with rc_context(_STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def check_format(path: Path, option: str) -> None:
    """Raises InputError unless figures can be saved under this name."""
    formats = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise InputError(f"{option} {path}: the suffix must be one of .{', .'.join(formats)}")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: no directory {path.parent}")


def save(figure: Figure, path: Path) -> None:
    """Writes the figure, whole or not at all; the suffix decides the format."""
    no_date: Mapping[str, Any] = {".svg": {"Date": None, "Creator": None}}
    with rc_context(_STYLE), replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata=no_date.get(path.suffix.lower()))


def _series(point: Scaling) -> str:
    plan = point.configuration.plan
    return f"{plan.workload} {plan.optimizer}"


def _axes(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Any]]:
    """A figure of so many inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _leave_out_outliers(axes: Any, groups: Sequence[Configuration]) -> None:
    """Lets the qualities of a diverged trial not squeeze all others into a line, and says so."""
    qualities = sorted(_qualities(groups))
    tenth = len(qualities) // 10
    if not tenth:
        return
    low, high = qualities[tenth], qualities[-1 - tenth]
    target = groups[0].plan.target
    if target is not None:
        low, high = min(low, target), max(high, target)
    reach = 3 * (high - low)
    if reach and (qualities[0] < low - reach or qualities[-1] > high + reach):
        inside = [q for q in qualities if low - reach <= q <= high + reach]
        bottom, top = min(*inside, low), max(*inside, high)
        axes.set_ylim(bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom))
        axes.set_title(f"{len(qualities) - len(inside)} points lie outside", loc="right", size=9)


def _qualities(groups: Sequence[Configuration]) -> Iterator[float]:
    for group in groups:
        for record in group.records:
            yield from (entry.quality for entry in record.history if entry.quality is not None)
