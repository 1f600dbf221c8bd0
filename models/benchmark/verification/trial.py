"""Whether one trial's record is true to itself.

A number that follows from others has to be the one that follows; the rest has to be possible.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Iterator
from typing import Any

from models.benchmark import metrics, results
from models.benchmark.power import ESTIMATED, UNAVAILABLE
from models.benchmark.record import (
    FAILED,
    MISSED,
    NO_TARGET,
    REACHED,
    Conditions,
    Evaluation,
    Record,
)
from models.benchmark.results import Micro
from models.benchmark.summary import reaching

EXACT = 1e-12  # relative: another machine's powers may differ in the last bit


def of_record(made: Record, conditions: Conditions | None = None) -> Iterator[str]:
    """The problems of one record, whose fields are of the right types.

    Args:
        made: the record.
        conditions: those of its suite; None leaves them unchecked.
    """
    plan = made.plan
    if made.configuration_hash != plan.configuration_hash:
        yield "configuration_hash is not that of its plan"
    if min(plan.batch_size, plan.ranks, plan.epochs) < 1 or plan.batch_size % plan.ranks:
        yield f"its plan has {plan.batch_size} examples for {plan.ranks} ranks"
        return
    if conditions is not None:
        yield from _threads(made, conditions)
    if made.status == FAILED:
        yield from _failure(made)
        return
    if made.error is not None:
        yield "has an error, but its status is not failed"
    if not made.history:
        yield f"status is {made.status}, but there is no history"
        return
    yield from _history(made)
    yield from _status(made)
    yield from _speed(made)
    yield from _derived(made)
    yield from _energy(made)
    if conditions is not None:
        yield from _as_conditions(made, conditions)
    if made.started is None or instant(made.started) is None:
        yield f"started is {made.started!r}, not a time with its zone"
    if made.data_hash is None and plan.data is None and made.status != FAILED:
        yield "has no data_hash"


def _threads(made: Record, conditions: Conditions) -> Iterator[str]:
    """Threads are as asked for, or a rank's part of the cores that were there."""
    threads, cores = made.system.get("threads"), made.system.get("cores")
    if made.status == FAILED and threads is None:  # unknown to whoever wrote down that it failed
        return
    expected = conditions.threads
    if expected is None and type(cores) is int:
        expected = max(1, cores // made.plan.ranks)
    if expected is not None and threads != expected:
        yield f"system.threads is {threads}, not {expected} for {made.plan.ranks} ranks"
    if cores is not None and type(cores) is not int:
        yield f"system.cores is {cores!r}"


def _failure(made: Record) -> Iterator[str]:
    """A failed trial says why, and nothing else: it measured nothing."""
    if not made.error:
        yield "failed, but does not say why"
    empty = Record(
        made.plan,
        FAILED,
        made.metric,
        made.higher_is_better,
        error=made.error,
        note=made.note,
        configuration_hash=made.configuration_hash,
        system=made.system,
    )
    for name in differing(made, empty):
        yield f"failed, but has {name}"


def _history(made: Record) -> Iterator[str]:
    """The clock, steps and energy only go on; epochs are counted."""
    plan, history = made.plan, made.history
    if len(history) > plan.epochs:
        yield f"history has {len(history)} epochs, {plan.epochs} were planned"
    first = history[0]
    steps = plan.steps_per_epoch or first.step
    before = Evaluation(0, 0, 0.0, None, None, joules=0.0)
    for number, entry in enumerate(history, start=1):
        where = f"history {number}"
        if entry.epoch != number:
            yield f"{where}: epoch is {entry.epoch}"
        if entry.seconds <= before.seconds:
            yield f"{where}: the clock goes from {before.seconds} to {entry.seconds} s"
        if entry.joules is not None and entry.joules < (before.joules or 0.0):
            yield f"{where}: joules go from {before.joules} to {entry.joules}"
        if (entry.joules is None) != (first.joules is None):
            yield f"{where}: some evaluations have joules and some have none"
        # A training that is given up ends within an epoch.
        gave_up = number == len(history) and entry.quality is None and made.note
        if entry.step != number * steps and not (gave_up and before.step < entry.step):
            yield f"{where}: step is {entry.step}, not {number} epochs of {steps}"
        before = entry


def _status(made: Record) -> Iterator[str]:
    """What is claimed of the target is what the history says."""
    plan = made.plan
    if plan.target is None:
        if made.status != NO_TARGET:
            yield f"status is {made.status}, but there is no target"
        for name in ("time_to_quality", "energy_to_quality", "cost_to_quality", "vflops"):
            if getattr(made, name) is not None:
                yield f"has {name}, but there is no target"
        return
    qualities = [(e.seconds, e.quality) for e in made.history if e.quality is not None]
    try:
        time = metrics.time_to_quality(qualities, plan.target, made.higher_is_better)
    except ValueError:  # the clock, of which _history tells
        return
    expected = MISSED if time is None else REACHED
    if made.status != expected:
        yield f"status is {made.status}, its history says {expected}"
    yield from _compared("time_to_quality", made.time_to_quality, time)
    entry = reaching(made)
    if entry is not None and entry is not made.history[-1]:
        yield f"went on after its target was reached in epoch {entry.epoch}"
    joules = None if entry is None else entry.joules
    yield from _compared("energy_to_quality", made.energy_to_quality, joules)
    gave_up = made.history[-1].quality is None and made.note
    if entry is None and len(made.history) < plan.epochs and not gave_up:
        yield f"missed after {len(made.history)} of {plan.epochs} epochs, and does not say why"


def _speed(made: Record) -> Iterator[str]:
    """Speeds fit the steps and the time that there was."""
    last = made.history[-1]
    yield from _compared("seconds", made.seconds, last.seconds)
    if min(made.warm_up_steps, made.timed_steps) < 0:
        yield "counts of steps are negative"
    if made.warm_up_steps + made.timed_steps != last.step:
        yield (
            f"{made.warm_up_steps} steps of warm-up and {made.timed_steps} timed ones are not "
            f"the {last.step} of its history"
        )
    rate, median, longest = made.samples_per_second, made.step_seconds, made.longest_step_seconds
    if made.timed_steps < 1:
        if (rate, median, longest) != (None, None, None):
            yield "no step was timed, but there are speeds"
        return
    if rate is None or median is None or longest is None or min(rate, median, longest) <= 0:
        yield "steps were timed, but samples_per_second or step_seconds are missing or not positive"
        return
    count = made.timed_steps
    total = made.plan.batch_size * count / rate
    lower, upper = count - count // 2, count // 2  # steps from the median on, and below it
    if median > longest * (1 + 1e-9):
        yield f"step_seconds {median} is above longest_step_seconds {longest}"
    # Below the median steps take more than nothing, above it no longer than the longest.
    least = longest + (lower - 1) * median if count > 2 else count * median
    most = lower * longest + upper * median if count > 2 else count * median
    if not least * (1 - 1e-9) <= total <= most * (1 + 1e-9):
        yield (
            f"{count} steps take {total:.6g} s by samples_per_second, {least:.6g} to {most:.6g} s "
            "by step_seconds and longest_step_seconds"
        )
    if total > last.seconds * (1 + 1e-9):
        yield f"{count} steps take {total:.6g} s by samples_per_second, the clock {last.seconds} s"


def _derived(made: Record) -> Iterator[str]:
    """FLOPS, VFLOPS and cost follow from others."""
    rate, work, plan = made.samples_per_second, made.flops_per_sample, made.plan
    flops = None if rate is None or work is None else rate * work
    yield from _compared("flops_per_second", made.flops_per_second, flops)
    valid = None
    if flops is not None and made.quality is not None and plan.target is not None:
        exponent = made.vflops_exponent
        if exponent is None:
            yield "has no vflops_exponent"
        else:
            try:
                valid = metrics.vflops(
                    flops,
                    made.quality,
                    plan.target,
                    exponent,
                    made.higher_is_better,
                    made.vflops_cap,
                )
            except (ValueError, OverflowError):  # no ratio
                valid = None
    yield from _compared("vflops", made.vflops, valid)
    price, time = made.price_per_hour, made.time_to_quality
    cost = None if price is None or time is None else metrics.cost(time, price)
    yield from _compared("cost_to_quality", made.cost_to_quality, cost)
    if (made.currency is None) != (price is None):
        yield "price_per_hour and currency do not go together"
    for name in ("parameters", "flops_per_sample", "peak_memory", "peak_gpu_memory"):
        value = getattr(made, name)
        if value is not None and value <= 0:
            yield f"{name} is {value}"
    share = made.allreduce_share
    if share is not None and (plan.ranks == 1 or share < 0):
        yield f"allreduce_share is {share} on {plan.ranks} ranks"
    if (made.peak_gpu_memory is None) == bool(made.system.get("gpus")):
        yield f"peak_gpu_memory is {made.peak_gpu_memory}, with GPUs {made.system.get('gpus')}"
    if made.optimizer_flops_per_step is not None and made.optimizer_flops_per_step < 0:
        yield f"optimizer_flops_per_step is {made.optimizer_flops_per_step}"


def _energy(made: Record) -> Iterator[str]:
    """A source that goes with the joules, which are those of the last evaluation."""
    if made.energy is None:
        yield "has no energy, not even why there is none"
        return
    problems = list(results.energy_problems(made.energy))
    yield from problems
    if not problems:
        yield from _compared("energy.joules", made.energy["joules"], made.history[-1].joules)


def _as_conditions(made: Record, conditions: Conditions) -> Iterator[str]:
    """Price, exponent, cap and stated power are the suite's."""
    yield from priced(made, conditions)
    yield from _compared("vflops_exponent", made.vflops_exponent, conditions.vflops_exponent)
    yield from _compared("vflops_cap", made.vflops_cap, conditions.vflops_cap)
    source = (made.energy or {}).get("source")
    if source == ESTIMATED:
        if conditions.watts is None:
            yield "energy is estimated, but the suite states no power"
            return
        for number, entry in enumerate(made.history, start=1):
            expected = conditions.watts * entry.seconds
            yield from _compared(f"history {number}: joules", entry.joules, expected)
    if source == UNAVAILABLE and conditions.watts is not None:
        yield "energy is unavailable, but the suite states a power to estimate it with"


def priced(made: Record | Micro, conditions: Conditions) -> Iterator[str]:
    """The price of an hour is the suite's."""
    price = conditions.price_per_hour
    yield from _compared("price_per_hour", made.price_per_hour, price)
    yield from _compared("currency", made.currency, None if price is None else conditions.currency)


def _compared(name: str, claimed: Any, derived: Any) -> Iterator[str]:
    """A line if a claimed number is not the derived one."""
    if claimed is None or derived is None or isinstance(derived, str):
        same = claimed == derived
    else:
        same = math.isclose(claimed, derived, rel_tol=EXACT)
    if not same:
        yield f"{name} is {claimed}, but {derived} follows from the rest"


def differing(one: Any, other: Any) -> list[str]:
    """Names of the fields in which two of the same class differ."""
    return [
        field.name
        for field in dataclasses.fields(one)
        if getattr(one, field.name) != getattr(other, field.name)
    ]


def instant(text: str) -> float | None:
    """Seconds since 1970; None for what is no time with a zone."""
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if time.tzinfo is None else time.timestamp()
