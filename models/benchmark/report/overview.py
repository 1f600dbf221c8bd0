"""What came out, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.benchmark import tables
from models.benchmark.comparison import Comparison
from models.benchmark.record import FAILED, MISSED, NO_TARGET, REACHED, Plan
from models.benchmark.report.quality import winner
from models.benchmark.report.section import Section
from models.benchmark.results import Results
from models.benchmark.summary import Configuration


def section(
    results: Results, groups: Sequence[Configuration], contest: Comparison | None
) -> Section:
    """How trials ended, and which optimizer was first at each task."""
    planned = sum(group.planned for group in groups)
    ended = {record.plan.name for record in results.records}
    waiting = sum(_named(values) not in ended for values in results.suite["plans"])
    statuses = (REACHED, MISSED, FAILED, NO_TARGET)
    counts = {s: sum(record.status == s for record in results.records) for s in statuses}
    parts = [f"{n} {status}" for status, n in counts.items() if n]
    lines = []
    if planned or waiting:
        lines.append(f"{len(results.records)} trials: {', '.join(parts) or 'none ended'}.")
    if waiting:
        lines.append(f"The suite is not complete: {waiting} planned trials have not ended.")
    if counts[MISSED] or counts[FAILED]:
        lines.append(
            "Misses and failures count as infinite times: medians and scores contain them "
            f"({tables.INFINITE})."
        )
    if contest is not None:
        lines += [winner(contest, task) for task in contest.tasks]
    if results.micro:
        lines.append(f"Micro benchmarks: {len(results.micro)}.")
    return Section("Overview", lines)


def _named(values: Any) -> str:
    return Plan(**values).name
