"""Whether results can be what a suite left: complete, unchanged, and true to themselves.

Digests find what was changed by accident. What was changed on purpose, with new digests, is found
where a number follows from others: then it has to be the number that follows. docs/hpcai500.md says
which do not follow from anything; in a suite's directory the trials' logs bear witness, too.

Nothing here raises for wrong results: each problem is a line of text.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.benchmark import metrics, mllog, record, results
from models.benchmark.fields import mistyped
from models.benchmark.power import ESTIMATED, UNAVAILABLE
from models.benchmark.record import (
    FAILED,
    FORMAT,
    MISSED,
    NO_TARGET,
    REACHED,
    Conditions,
    Evaluation,
    Plan,
    Record,
)
from models.benchmark.results import Micro
from models.benchmark.summary import reaching
from tfkfac.errors import InputError

# Logs have a clock of their own, in whole milliseconds, and are written a moment later.
SLACK_SECONDS, SLACK = 1.0, 0.01
EXACT = 1e-12  # relative: another machine's powers may differ in the last bit
# What all trials of a suite share; commit, load and threads may differ.
_MACHINE = ("host", "processor", "machine_cores", "memory", "gpus", "platform", "python")


def of_path(path: Path) -> list[str]:
    """The problems of a results file, and of all that lies around it if a directory is given.

    Args:
        path: a suite's directory, or its results.json alone.

    Raises:
        InputError: if there is nothing to verify: no such file, no JSON, or no results.
    """
    if path.is_dir() and not results.file(path).exists():
        raise InputError(f"{path}: no {results.FILE} in it; `hpcai500 run --out` makes one")
    file = results.file(path)
    text, values = _read(file)
    names = {"format", "suite", "records", "micro", "digest"}
    if not isinstance(values, dict) or names - set(values):
        raise InputError(f"{file}: no results of hpcai500 run: needs {', '.join(sorted(names))}")
    found = list(of_results(values))
    if text != _as_written(values):
        found.append(
            "its text is not as it was written: other spacing, a name twice, or something that is "
            "no JSON number"
        )
    if path.is_dir():
        found += _around(path, values)
    return found


def of_results(values: Mapping[str, Any]) -> Iterator[str]:
    """The problems of the contents of results.json."""
    unknown = set(values) - {"format", "suite", "records", "micro", "digest"}
    if unknown:
        yield f"unknown entries: {', '.join(sorted(unknown))}"
    if values["format"] != FORMAT:
        yield f"format is {values['format']!r}, not {FORMAT}"
    content = {name: value for name, value in values.items() if name != "digest"}
    if record.digest(content) != values["digest"]:
        yield "its digest is not that of its contents: it was changed or damaged"
    try:
        plans = results.planned(values["suite"], "suite")
    except InputError as error:
        yield str(error)
        plans = []
    conditions, problem = _conditions(values["suite"])
    if problem:
        yield problem
    if not isinstance(values["records"], list) or not isinstance(values["micro"], list):
        yield "records and micro must be lists"
        return
    records = []
    for place, entry in enumerate(values["records"], start=1):
        made, problems = _record(entry, f"record {place}")
        yield from problems
        if made is not None:
            records.append(made)
    for made in records:
        yield from (f"{made.plan.name}: {problem}" for problem in of_record(made, conditions))
    yield from _completeness(plans, records)
    yield from _together(records)
    yield from _micro(
        values["micro"], [r.system for r in records if r.status != FAILED], conditions
    )


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
    if made.started is None or _instant(made.started) is None:
        yield f"started is {made.started!r}, not a time with its zone"
    if made.data_hash is None and plan.data is None and made.status != FAILED:
        yield "has no data_hash"


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
    for name in _differing(made, empty):
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
    yield from _priced(made, conditions)
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


def _priced(made: Record | Micro, conditions: Conditions) -> Iterator[str]:
    price = conditions.price_per_hour
    yield from _compared("price_per_hour", made.price_per_hour, price)
    yield from _compared("currency", made.currency, None if price is None else conditions.currency)


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


def _completeness(plans: Sequence[Plan], records: Sequence[Record]) -> Iterator[str]:
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
            fields = ", ".join(_differing(made.plan, planned[name]))
            yield f"{name}: its plan is not the suite's: {fields}"
    for name in planned:
        if name not in seen:
            yield f"{name}: planned, but it has no record: the suite is not complete"


def _together(records: Sequence[Record]) -> Iterator[str]:
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
        start = None if made.started is None else _instant(made.started)
        if start is not None and made.seconds is not None:
            spans.append((start, made.seconds, made.plan.name))
    spans.sort()
    for (start, seconds, name), (next_start, _, next_name) in zip(spans, spans[1:], strict=False):
        # Starts are in whole seconds.
        if next_start == start or next_start < start + seconds - 1:
            yield f"{next_name}: started before {name} had ended"


def _micro(
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
            yield from (f"{made.name}: {problem}" for problem in _priced(made, conditions))
        other = first.setdefault(made.device, made)
        if made.peak_flops != other.peak_flops:
            yield f"{made.name}: peak_flops is not that of {other.name}"


def _around(path: Path, values: Mapping[str, Any]) -> Iterator[str]:
    """The files of a suite's directory say the same, logs included."""
    suite = path / "suite.json"
    try:
        if record.read(suite) != values["suite"]:
            yield "suite.json is not the suite of results.json"
    except InputError as error:
        yield str(error)
    micro = path / "micro.json"
    try:
        if values["micro"] and record.read(micro).get("micro") != values["micro"]:
            yield "micro.json is not the micro benchmarks of results.json"
    except (InputError, AttributeError) as error:
        yield str(error)
    if not isinstance(values["records"], list):
        return
    for place, entry in enumerate(values["records"], start=1):
        made, _ = _record(entry, f"record {place}")
        if made is None:
            continue
        name = made.plan.name
        file = path / "trials" / f"{name}.json"
        try:
            if record.read(file) != entry:
                yield f"{name}: trials/{name}.json is not its record in results.json"
        except InputError as error:
            yield str(error)
        if made.status != FAILED:
            log = file.with_suffix(".mllog")
            try:
                events = mllog.read(log)
            except OSError as error:
                yield f"{name}: {log.name}: {error.strerror}"
                continue
            except ValueError as error:
                yield f"{name}: {log.name}: no log of MLLOG lines: {error}"
                continue
            yield from (f"{name}: {log.name}: {problem}" for problem in of_log(made, events))


def of_log(made: Record, events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where a trial's log and its record do not say the same.

    Args:
        made: the record.
        events: of the log, as `mllog.read` has them.
    """
    plan = made.plan
    try:
        found = [(str(e["key"]), e["value"], e["metadata"], e["time_ms"] / 1e3) for e in events]
    except (KeyError, TypeError) as error:
        yield f"an event is not complete: {error}"
        return
    said = {
        "submission_benchmark": plan.workload,
        "seed": plan.seed,
        "global_batch_size": plan.batch_size,
        "opt_name": plan.optimizer,
    }
    for name, value in plan.settings.items():
        said["opt_base_learning_rate" if name == "learning_rate" else f"opt_{name}"] = value
    for key, expected in said.items():
        values = [value for name, value, _, _ in found if name == key]
        if values != [expected]:
            yield f"{key} is {values}, the record's {expected!r}"
    times: dict[tuple[str, Any], float] = {}
    qualities: dict[Any, Any] = {}
    for key, value, metadata, seconds in found:
        epoch = metadata.get("epoch_num")
        times.setdefault((key, epoch), seconds)
        if key == "eval_accuracy":
            qualities[epoch] = value
    if any(now < before for (*_, before), (*_, now) in zip(found, found[1:], strict=False)):
        yield "its clock goes back"
    ends = [metadata.get("status") for key, _, metadata, _ in found if key == "run_stop"]
    expected_ends = {REACHED: ["success"], MISSED: ["aborted"]}.get(made.status)
    if len(ends) != 1 or (expected_ends is not None and ends != expected_ends):
        yield f"run_stop is {ends}, the record's status {made.status}"
    expected = {e.epoch: e.quality for e in made.history if e.quality is not None}
    measured = {epoch: value for epoch, value in qualities.items() if value is not None}
    if measured != expected:
        differing = [e for e in {**expected, **measured} if expected.get(e) != measured.get(e)]
        yield f"eval_accuracy is not the record's in epochs {', '.join(map(str, differing))}"
    yield from _log_times(made, times)


def _log_times(made: Record, times: Mapping[tuple[str, Any], float]) -> Iterator[str]:
    """An epoch takes at least from its start to its evaluation's end, at most all since the last.

    In between a quality of training examples may be taken, which the record's clock leaves out.
    """
    start = times.get(("run_start", None))
    if start is None:
        yield "has no run_start"
        return
    begun = None if made.started is None else _instant(made.started)
    if begun is not None and abs(begun - start) > 2 * SLACK_SECONDS:
        yield f"run_start is {start - begun:.1f} s after the record's start"
    before, previous = 0.0, start
    for entry in made.history:
        stop, began = times.get(("eval_stop", entry.epoch)), times.get(("epoch_start", entry.epoch))
        if began is None or (stop is None and entry.quality is not None):
            yield f"epoch {entry.epoch} is missing"
            return
        if stop is None:
            return
        taken = entry.seconds - before
        slack = SLACK_SECONDS + SLACK * taken
        least, most = stop - began, stop - previous
        if not least - slack <= taken <= most + slack:
            yield (
                f"epoch {entry.epoch} took {least:.1f} to {most:.1f} s, by the record {taken:.1f} s"
            )
        before, previous = entry.seconds, stop


def _conditions(suite: Any) -> tuple[Conditions | None, str]:
    try:
        made = Conditions(**suite["options"])
    except (KeyError, TypeError) as error:
        return None, f"suite: options: {error}"
    problems = list(mistyped(made))
    if isinstance(suite, dict) and suite.get("format") != FORMAT:
        problems.append(f"format is {suite.get('format')!r}, not {FORMAT}")
    return (None, f"suite: {'; '.join(problems)}") if problems else (made, "")


def _record(entry: Any, where: str) -> tuple[Record | None, list[str]]:
    """The record of an entry, even if its digest is wrong, and what is wrong with its form."""
    problems = []
    if isinstance(entry, dict):
        content = {name: value for name, value in entry.items() if name != "digest"}
        correct = record.digest(content)
        if entry.get("digest") != correct:
            problems.append(f"{where}: its digest is not that of its contents")
        entry = {**content, "digest": correct}
    try:
        made = record.from_json(entry, where)
    except InputError as error:
        return None, [*problems, str(error)]
    wrong = [f"{where}: {problem}" for problem in mistyped(made)]
    return (None if wrong else made), problems + wrong


def _compared(name: str, claimed: Any, derived: Any) -> Iterator[str]:
    """A line if a claimed number is not the derived one."""
    if claimed is None or derived is None or isinstance(derived, str):
        same = claimed == derived
    else:
        same = math.isclose(claimed, derived, rel_tol=EXACT)
    if not same:
        yield f"{name} is {claimed}, but {derived} follows from the rest"


def _differing(one: Any, other: Any) -> list[str]:
    return [
        field.name
        for field in dataclasses.fields(one)
        if getattr(one, field.name) != getattr(other, field.name)
    ]


def _digest(plan: Plan) -> str:
    return record.digest(dataclasses.asdict(plan))


def _instant(text: str) -> float | None:
    """Seconds since 1970; None for what is no time with a zone."""
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if time.tzinfo is None else time.timestamp()


def _read(path: Path) -> tuple[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8")
        return text, json.loads(text)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON, or cut short: {error}") from error


def _as_written(values: Any) -> str:
    """The text that `record.write` makes of it."""
    try:
        return json.dumps(values, indent=1, allow_nan=False) + "\n"
    except ValueError:
        return ""
