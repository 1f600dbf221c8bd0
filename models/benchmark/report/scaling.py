"""What more ranks gave."""

from __future__ import annotations

from collections.abc import Sequence

from models.benchmark import summary
from models.benchmark.report.section import Picture, Section, figures
from models.benchmark.summary import Configuration
from models.benchmark.tables import Table, number, percent, plain


def section(groups: Sequence[Configuration]) -> Section | None:
    """Speedup and efficiency; None where nothing ran on several numbers of ranks."""
    points = summary.scaling(groups)
    if not points:
        return None
    rows = []
    for point in points:
        plan = point.configuration.plan
        rows.append(
            [
                f"{plan.workload} {plan.size}",
                plan.optimizer,
                point.kind,
                str(plan.ranks),
                str(plan.batch_size),
                plain(plan.batch_size / plan.ranks),
                str(len(point.configuration.records)),
                number(point.samples_per_second),
                f"{point.speedup:.2f}",
                percent(point.efficiency),
                percent(point.allreduce_share),
            ]
        )
    columns = ["workload", "optimizer", "scaling", ">ranks", ">batch", ">batch of a rank"]
    table = Table(
        "Scaling by throughput",
        [*columns, ">trials", ">examples/s", ">speedup", ">efficiency", ">all-reduce"],
        rows,
        [
            "Strong: all ranks share one batch. Weak: each has one of the same size. Efficiency is "
            "the speedup over the fewest ranks by how many times the ranks. Ranks on one machine "
            "share its cores and memory: see the system."
        ],
    )
    told = "; ".join(
        f"{p.kind} {p.configuration.plan.workload} {p.configuration.plan.optimizer} on "
        f"{p.configuration.plan.ranks} ranks {p.speedup:.2f}"
        for p in points
    )
    picture = Picture(
        "Speedup over ranks; grey: ideal.",
        f"Speedup in examples a second. {told}.",
        lambda: figures().scaling(points),
    )
    return Section("Scaling", pictures=[picture], tables=[table])
