"""`hpcai500 list`: the workloads."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from rich.console import Console
from rich.table import Table

from tfkfac.command_line import quiet_tensorflow


def add(subparsers: Any) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "list",
        help="workloads, their sizes, qualities and targets",
        description="List workloads: sizes, epochs, batches, qualities and targets.",
    )
    parser.add_argument(
        "--parameters", action="store_true", help="count them, too, which builds all networks"
    )
    parser.add_argument("--json", action="store_true", help="as a JSON list, one object a size")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Prints them."""
    with quiet_tensorflow():
        import models.workloads  # noqa: F401
    rows = entries(options.parameters)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    columns = {
        "workload": "left",
        "size": "left",
        "title": "left",
        "batch_size": "right",
        "epochs": "right",
        "metric": "left",
        "target": "right",
        "data": "left",
        **({"parameters": "right"} if options.parameters else {}),
    }
    for name, justify in columns.items():
        table.add_column(name.replace("_", " "), justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(_shown(row, name) for name in columns))
    wide = Console(width=1000)  # a line each, whatever the terminal's width
    with wide.capture() as capture:
        wide.print(table)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))


def entries(count_parameters: bool = False) -> list[dict[str, Any]]:
    """An entry for each size of each workload.

    Args:
        count_parameters: build the networks, and say how many parameters are trained.
    """
    from models import workloads

    rows = []
    for name in workloads.names():
        workload = workloads.get(name)
        for size_name, size in workload.sizes.items():
            row = {
                "workload": name,
                "size": size_name,
                "title": workload.title,
                "source": workload.source,
                "batch_size": size.batch_size,
                "epochs": size.epochs,
                "metric": workload.metric,
                "higher_is_better": workload.higher_is_better,
                "chance": workload.chance,
                "target": size.target,
                "data": "generated" if size.generated else "original files",
                "settings": {name: dict(own) for name, own in size.settings.items()},
            }
            if count_parameters:
                variables = size.network().trainable_variables
                row["parameters"] = sum(math.prod(variable.shape) for variable in variables)
            rows.append(row)
    return rows


def _shown(row: dict[str, Any], name: str) -> str:
    value = row[name]
    if name == "target":
        sign = ">=" if row["higher_is_better"] else "<="
        return "-" if value is None else f"{sign} {value:g}"
    return f"{value:,}" if name == "parameters" else str(value)
