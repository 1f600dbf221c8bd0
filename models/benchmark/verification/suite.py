"""Whether a suite's trials and micro benchmarks go together.

All that were planned are there, and ran one after the other on the same data and machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from models.benchmark import record, results
from models.benchmark.fields import mistyped
from models.benchmark.record import FAILED, Conditions, Plan, Record
from models.benchmark.results import Micro
from models.benchmark.verification.trial import differing, instant, priced

# What all trials of a suite share; commit, load and threads may differ.
_MACHINE = ("host", "processor", "machine_cores", "memory", "gpus", "platform", "python")


def completeness(plans: Sequence[Plan], records: Sequence[Record]) -> Iterator[str]:
    """Every planned trial has its record, and there is no other."""
    planned: dict[str, Plan] = {}
    for plan in plans:
        if plan.name in planned:
            yield f"{plan.name}: planned twice"
        planned[plan.name] = plan
    seen: dict[str, Record] = {}
    for made in records:
        name = made.plan.name
        if name in seen:
            yield f"{name}: has two records"
        seen[name] = made
        if name not in planned:
            yield f"{name}: was not planned"
        elif _digest(planned[name]) != _digest(made.plan):  # as JSON: 1 is not True
            fields = ", ".join(differing(made.plan, planned[name]))
            yield f"{name}: its plan is not the suite's: {fields}"
    for name in planned:
        if name not in seen:
            yield f"{name}: planned, but it has no record: the suite is not complete"


def _digest(plan: Plan) -> str:
    return record.digest(dataclasses.asdict(plan))


def together(records: Sequence[Record]) -> Iterator[str]:
    """Seeds, starts, metrics, data and machine, over all trials."""
    seeds: dict[tuple[str, int], str] = {}
    for made in records:
        key = (made.plan.configuration_hash, made.plan.seed)
        if key in seeds:
            yield f"{made.plan.name}: has seed {made.plan.seed}, as {seeds[key]} has"
        seeds[key] = made.plan.name
    ended = [made for made in records if made.status != FAILED]
    yield from _overlaps(ended)
    same: list[tuple[str, Callable[[Record], object], Callable[[Record], Any], bool]] = [
        ("metric", _workload, lambda r: r.metric, True),
        ("higher_is_better", _workload, lambda r: r.higher_is_better, True),
        ("data_hash", _network, lambda r: r.data_hash, False),
        ("parameters", _network, lambda r: r.parameters, False),
        ("flops_per_sample", _network, lambda r: r.flops_per_sample, False),
        (
            "optimizer_flops_per_step",
            lambda r: r.plan.configuration_hash,
            lambda r: r.optimizer_flops_per_step,
            False,
        ),
        ("steps of an epoch", _epoch, lambda r: r.history[0].step if r.history else None, False),
    ]
    for what, alike, get, failed_too in same:
        yield from _same(what, records if failed_too else ended, alike, get)
    for name in _MACHINE:
        # Whoever writes down that a trial failed does not know its GPUs.
        of = ended if name == "gpus" else records
        yield from _same(f"system.{name}", of, lambda r: None, _from_system(name))
    yield from _same("system.versions", records, lambda r: None, lambda r: r.system.get("versions"))


def _workload(made: Record) -> object:
    return made.plan.workload


def _network(made: Record) -> object:
    return (made.plan.workload, made.plan.size, made.plan.data)


def _epoch(made: Record) -> object:
    plan = made.plan
    return (
        *(plan.workload, plan.size, plan.data),
        plan.batch_size,
        plan.ranks,
        plan.steps_per_epoch,
    )


def _from_system(name: str) -> Callable[[Record], Any]:
    return lambda made: made.system.get(name)


def _same(
    what: str,
    records: Sequence[Record],
    alike: Callable[[Record], object],
    get: Callable[[Record], Any],
) -> Iterator[str]:
    """A line for each record whose value is not that of the first one alike."""
    first: dict[object, Record] = {}
    for made in records:
        other = first.setdefault(alike(made), made)
        if get(made) != get(other):
            yield (
                f"{made.plan.name}: {what} is {get(made)!r:.80}, in {other.plan.name} "
                f"{get(other)!r:.80}"
            )


def _overlaps(records: Sequence[Record]) -> Iterator[str]:
    """Trials of a suite run one after the other."""
    spans = []
    for made in records:
        start = None if made.started is None else instant(made.started)
        if start is not None and made.seconds is not None:
            spans.append((start, made.seconds, made.plan.name))
    spans.sort()
    for (start, seconds, name), (next_start, _, next_name) in zip(spans, spans[1:], strict=False):
        # Starts are in whole seconds.
        if next_start == start or next_start < start + seconds - 1:
            yield f"{next_name}: started before {name} had ended"


def micro_benchmarks(
    entries: Sequence[Any], systems: Sequence[Mapping[str, Any]], conditions: Conditions | None
) -> Iterator[str]:
    """Micro benchmarks: whole, timed, of one device's peaks, on the trials' machine."""
    first: dict[str, Micro] = {}
    for place, entry in enumerate(entries, start=1):
        try:
            made = Micro(**{**entry, "seconds": tuple(entry["seconds"])})
        except (KeyError, TypeError) as error:
            yield f"micro {place}: not complete: {error}"
            continue
        problems = list(mistyped(made))
        yield from (f"{made.name}: {problem}" for problem in problems)
        if problems:
            continue
        if not made.seconds or min(made.seconds) <= 0:
            yield f"{made.name}: seconds must be above 0"
        for name in ("flops", "traffic", "images"):
            if getattr(made, name) < 0:
                yield f"{made.name}: {name} is negative"
        yield from (f"{made.name}: {told}" for told in results.energy_problems(made.energy))
        for system in systems[:1]:
            for name in (*_MACHINE, "versions"):
                if made.system.get(name) != system.get(name):
                    yield f"{made.name}: system.{name} is not that of the trials"
        if conditions is not None:
            yield from (f"{made.name}: {problem}" for problem in priced(made, conditions))
        other = first.setdefault(made.device, made)
        if made.peak_flops != other.peak_flops:
            yield f"{made.name}: peak_flops is not that of {other.name}"
