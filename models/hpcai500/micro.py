"""`hpcai500 micro`: single operations against a measured roofline."""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models.benchmark.progress import Progress
from models.benchmark.results import Micro
from models.benchmark.suite import check_launcher, run_micro
from models.hpcai500 import arguments
from tfkfac.errors import unknown
from tfkfac.options import COUNT


def add(subparsers: Any) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "micro",
        help="single operations against a measured roofline",
        description="Time convolutions, pooling, fully connected layers, matrix products and "
        "eigendecompositions, forward and backward, and exchanges between ranks.",
    )
    group = parser.add_argument_group("what to measure")
    group.add_argument(
        "--size", default="small", metavar="{tiny,small,reference}", help="(default: small)"
    )
    group.add_argument(
        "--repetitions", default="20", metavar="N", help="runs of each that count (default: 20)"
    )
    group.add_argument(
        "--ranks",
        nargs="+",
        default=["1"],
        metavar="N",
        help="1 for operations, more for the exchange between so many (default: 1)",
    )
    arguments.add_conditions(parser)
    parser.add_argument("--json", action="store_true", help="as a JSON list, an object each")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Measures and prints."""
    if options.size not in arguments.SIZES:
        raise unknown("size", options.size, arguments.SIZES, "--size")
    conditions = arguments.conditions(options)
    ranks = arguments.several(COUNT, options.ranks, "--ranks")
    task = {
        "size": options.size,
        "repetitions": arguments.value(COUNT, options.repetitions, "--repetitions"),
    }
    check_launcher(ranks)
    found: list[Micro] = []
    progress = Progress()
    with tempfile.TemporaryDirectory() as folder:
        for number in ranks:
            found += run_micro(Path(folder), number, task, conditions, progress)
    if options.json:
        print(json.dumps([{**dataclasses.asdict(e), **derived(e)} for e in found], indent=1))
    else:
        print(table(found))


def derived(entry: Micro) -> dict[str, float | None]:
    """What follows from a measurement: median, rates, and share of the roofline."""
    speed, roof = entry.flops_per_second, entry.roofline
    return {
        "median": entry.median,
        "flops_per_second": speed,
        "images_per_second": entry.images / entry.median if entry.images else None,
        "bytes_per_second": entry.traffic / entry.median if entry.traffic else None,
        "roofline": roof,
        "share_of_roofline": None if speed is None or roof is None else speed / roof,
    }


def table(found: Sequence[Micro]) -> str:
    """The measurements as lines of text."""
    columns = {
        "operation": "name",
        "ms": "median",
        "GFLOPS": "flops_per_second",
        "images/s": "images_per_second",
        "GB/s": "bytes_per_second",
        "of roofline": "share_of_roofline",
    }
    result = Table(box=None, pad_edge=False)
    for title in columns:
        result.add_column(title, justify="left" if title == "operation" else "right")
    for entry in found:
        values: dict[str, Any] = {"name": entry.name, **derived(entry)}
        result.add_row(*(_shown(title, values[name]) for title, name in columns.items()))
    console = Console(width=1000)
    with console.capture() as capture:
        console.print(result)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    first = found[0]
    if first.peak_flops is not None and first.bandwidth is not None:
        lines.append(
            f"roofline: {first.peak_flops / 1e9:.1f} GFLOPS of matrix products, "
            f"{first.bandwidth / 1e9:.1f} GB/s of copies, {first.device}"
        )
    return "\n".join(lines)


def _shown(title: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "-"
    scale = {"ms": 1e3, "GFLOPS": 1e-9, "images/s": 1.0, "GB/s": 1e-9, "of roofline": 100.0}[title]
    return f"{scale * value:.1f}" + (" %" if title == "of roofline" else "")
