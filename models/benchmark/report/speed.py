"""What training steps took: time, memory, energy and money."""

from __future__ import annotations

from collections.abc import Sequence

from models.benchmark.record import FAILED, Record
from models.benchmark.report.section import Section, names
from models.benchmark.summary import Configuration, Spread, spread
from models.benchmark.tables import (
    NONE,
    Table,
    count,
    median,
    memory,
    milliseconds,
    percent,
    plain,
    scaled,
)


def steps(groups: Sequence[Configuration]) -> Section | None:
    """Speeds of training steps and what they count; None where no step was timed."""
    groups = [group for group in groups if group.values(lambda r: r.samples_per_second)]
    if not groups:
        return None
    rows, work = [], []
    for group in groups:
        some = next(r for r in group.records if r.status != FAILED)
        share = group.values(lambda r: r.allreduce_share)
        heads = [*names(group), str(group.plan.ranks)]
        rows.append(
            [
                *heads,
                str(group.plan.batch_size),
                median(group.values(lambda r: r.samples_per_second)),
                _seconds(group.values(lambda r: r.step_seconds)),
                _seconds(group.values(lambda r: r.longest_step_seconds), "high"),
                scaled(_middle(group.values(lambda r: r.flops_per_second)), "FLOPS"),
                scaled(_middle(group.values(lambda r: r.vflops)), "FLOPS"),
                memory(_middle(group.values(lambda r: r.peak_memory))),
                memory(_middle(group.values(lambda r: r.peak_gpu_memory))),
                percent(_middle(share)),
            ]
        )
        own = group.values(lambda r: r.optimizer_flops_per_step)
        work.append(
            [
                *heads,
                f"{some.parameters:,}" if some.parameters is not None else NONE,
                scaled(some.flops_per_sample, "FLOP"),
                scaled(_middle(own), "FLOP"),
                count(group.values(lambda r: float(r.warm_up_steps))),
                count(group.values(lambda r: float(r.timed_steps))),
                plain(some.vflops_exponent),
                "none" if some.vflops_cap is None else plain(some.vflops_cap),
            ]
        )
    columns = ["workload", "optimizer", ">ranks"]
    speeds = Table(
        "Speed of training steps after the warm-up, without evaluation: medians of trials",
        [
            *columns,
            *(">batch", ">examples/s", ">step", ">longest step", ">FLOPS", ">VFLOPS"),
            *(">memory", ">GPU memory", ">all-reduce"),
        ],
        rows,
        [
            "FLOPS: those of the network (three forward passes), never the optimizer's. VFLOPS: "
            "times (quality / target)^n, the ratio at most the cap. Memory: peak of a process. "
            "All-reduce: share of a step."
        ],
    )
    counts = Table(
        "What is counted",
        [
            *columns,
            *(">parameters", ">network, an example", ">optimizer, a step"),
            *(">warm-up steps", ">timed steps", ">VFLOPS n", ">cap"),
        ],
        work,
    )
    return Section("Speed", tables=[speeds, counts])


def energy_and_cost(groups: Sequence[Configuration]) -> Section | None:
    """Energy, power and money; None where all trials failed."""
    groups = [group for group in groups if any(r.status != FAILED for r in group.records)]
    if not groups:
        return None
    rows = []
    for group in groups:
        prices = group.values(lambda r: r.price_per_hour)
        currency = next((r.currency for r in group.records if r.currency), "")
        costs = [cost for cost in group.to_quality("cost")] if prices else []
        to_quality = group.to_quality("energy") if group.values(_joules) else []
        rows.append(
            [
                *names(group),
                str(group.plan.ranks),
                scaled(_middle(group.values(_joules)), "J"),
                scaled(_middle(spread(to_quality)), "J"),
                scaled(_middle(group.values(_watts)), "W"),
                _source(group.records),
                f"{plain(prices.median)} {currency}" if prices else NONE,
                f"{median(spread(costs))} {currency}" if costs else NONE,
            ]
        )
    sources = {r.energy["source"] for g in groups for r in g.records if r.energy}
    notes = ["Power is energy by time, until the clock's stop. Cost: hours times the stated price."]
    if "estimated" in sources:
        notes.append("Estimated energy is a stated power times time: no measurement.")
    columns = ["workload", "optimizer", ">ranks", ">energy", ">energy to quality", ">power"]
    table = Table(
        "Energy and cost, medians of trials",
        [*columns, "source", ">price of an hour", ">cost to quality"],
        rows,
        notes,
    )
    return Section("Energy and cost", tables=[table])


def _middle(value: Spread | None) -> float | None:
    return None if value is None else value.median


def _seconds(value: Spread | None, which: str = "median") -> str:
    return NONE if value is None else milliseconds(getattr(value, which))


def _joules(record: Record) -> float | None:
    return None if record.energy is None else record.energy.get("joules")


def _watts(record: Record) -> float | None:
    joules = _joules(record)
    # Energy is taken at evaluations: its time is that of the last one.
    if joules is None or not record.history or record.history[-1].seconds <= 0:
        return None
    return joules / record.history[-1].seconds


def _source(records: Sequence[Record]) -> str:
    """Where energies come from; the reason, where there are none."""
    found = []
    for record in records:
        energy = record.energy
        if energy is None:
            text = "not taken"
        else:
            source, detail = str(energy.get("source")), str(energy.get("detail"))
            text = f"{source}: {detail}" if detail else source
        if text not in found and record.status != FAILED:
            found.append(text)
    return "; ".join(found) or NONE
