"""What single operations took."""

from __future__ import annotations

from collections.abc import Sequence

from models.benchmark.power import MEASURED
from models.benchmark.report.section import Section
from models.benchmark.results import Micro
from models.benchmark.tables import NONE, Table, milliseconds, number, percent, scaled


def section(entries: Sequence[Micro]) -> Section | None:
    """Speeds of operations beside what the device allows; None without any."""
    if not entries:
        return None
    rows = []
    for entry in entries:
        flops, roofline = entry.flops_per_second, entry.roofline
        energy = entry.energy or {}
        joules = energy.get("joules")
        rows.append(
            [
                entry.name,
                entry.device,
                str(entry.ranks),
                str(len(entry.seconds)),
                scaled(entry.median, "s") if entry.median >= 1 else milliseconds(entry.median),
                scaled(flops, "FLOPS"),
                number(entry.images / entry.median) if entry.images else NONE,
                scaled(entry.traffic / entry.median, "B/s") if entry.traffic else NONE,
                scaled(roofline, "FLOPS"),
                percent(flops / roofline if flops and roofline else None),
                NONE if joules is None else scaled(joules / sum(entry.seconds), "W"),
                energy.get("source", NONE),
            ]
        )
    columns = ["operation", "device", ">ranks", ">runs", ">median", ">FLOPS", ">images/s"]
    first = entries[0]
    reasons = dict.fromkeys(
        f"Energy is {entry.energy['source']}: {entry.energy['detail']}."
        for entry in entries
        if entry.energy is not None and entry.energy["source"] != MEASURED
    )
    table = Table(
        "Micro benchmarks: single operations",
        [*columns, ">bytes", ">roofline", ">share of it", ">power", "energy is"],
        rows,
        [
            "FLOPS by formula over the median run. Roofline: the measured peak "
            f"({scaled(first.peak_flops, 'FLOPS')}), or what the measured bandwidth "
            f"({scaled(first.bandwidth, 'B/s')}) can feed.",
            *reasons,
        ],
    )
    return Section("Micro benchmarks", tables=[table])
