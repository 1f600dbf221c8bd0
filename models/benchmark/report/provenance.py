"""Where the results come from: trials, settings, targets, hardware, software and source."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from models.benchmark.comparison import target
from models.benchmark.fields import fits
from models.benchmark.record import Record
from models.benchmark.report.section import Section, names
from models.benchmark.results import Results
from models.benchmark.summary import Configuration
from models.benchmark.tables import NONE, Table, memory, number

SHORT = 12  # characters of a hash


def trials(results: Results) -> Section | None:
    """Each trial by itself; None without any."""
    if not results.records:
        return None
    rows = [
        [
            record.plan.name,
            str(record.plan.seed),
            record.status,
            number(record.time_to_quality),
            number(record.quality),
            number(record.seconds),
            str(len(record.history)),
            record.started or NONE,
            record.configuration_hash[:SHORT],
            (record.data_hash or NONE)[:SHORT],
            _remark(record),
        ]
        for record in results.records
    ]
    columns = ["trial", ">seed", "status", ">s to quality", ">best quality", ">s in all"]
    table = Table(
        "All trials",
        [*columns, ">epochs", "started (UTC)", "configuration", "data", "remark"],
        rows,
        [f"Hashes: the first {SHORT} characters."],
    )
    return Section("Trials", tables=[table])


def _remark(record: Record) -> str:
    return "; ".join(text for text in (record.error, record.note) if text) or NONE


def settings(groups: Sequence[Configuration]) -> Section | None:
    """What was planned; None without trials."""
    if not groups:
        return None
    rows = [
        [
            *names(group),
            str(group.plan.ranks),
            str(group.plan.batch_size),
            str(group.plan.epochs),
            "all" if group.plan.steps_per_epoch is None else str(group.plan.steps_per_epoch),
            group.plan.data or "generated",
            ", ".join(f"{name}={value}" for name, value in group.plan.settings.items()),
        ]
        for group in groups
    ]
    columns = ["workload", "optimizer", ">ranks", ">batch", ">epochs", ">steps of an epoch"]
    return Section(
        "Settings",
        tables=[Table("What was planned", [*columns, "data", "optimizer's settings"], rows)],
    )


def system(results: Results) -> Section:
    """Targets, conditions, hardware, software and source."""
    aims = dict.fromkeys(
        (record.plan.workload, record.plan.size, target(record)) for record in results.records
    )
    told = results.suite.get("targets")
    how = told if isinstance(told, Mapping) else {}
    found = [
        Table(
            "Targets, and how they were set",
            ["workload", "target", "how it was set"],
            [[f"{name} {size}", aim, str(how.get(name, "as planned"))] for name, size, aim in aims],
        )
    ]
    options = results.suite.get("options")
    if isinstance(options, Mapping) and options:
        rows = [[str(name), _plain(value)] for name, value in options.items()]
        found.append(Table("Conditions of all trials", ["condition", "value"], rows))
    systems = [r.system for r in results.records] + [entry.system for entry in results.micro]
    values: dict[str, list[str]] = {}
    for system in systems:
        for name, value in _flat(system):
            own = values.setdefault(name, [])
            if value not in own:
                own.append(value)
    rows = [[name, "; ".join(own)] for name, own in values.items()]
    notes = (
        ["Several values: trials differ."] if any(len(own) > 1 for own in values.values()) else []
    )
    found.append(Table("Hardware and software", ["what", "value"], rows, notes))
    return Section("System and conditions", tables=[t for t in found if t.rows])


def _flat(system: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values, objects in the object among them; the load is a range of its own."""
    found = []
    for name, value in system.items():
        if isinstance(value, Mapping):
            found += [(f"{name}: {inner}", _plain(entry)) for inner, entry in value.items()]
        elif name == "memory" and fits(value, int):
            found.append((name, memory(value)))
        elif name != "load":
            found.append((name, _plain(value)))
    return found


def _plain(value: Any) -> str:
    if value is None:
        return NONE
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
