"""What a trial of a workload is asked to do, and what is written down of it.

A trial is one training, from untouched data to its target or to the end of its epochs. `Plan` says
what to do; `Record` is what came out. Both are JSON objects with the fields' names, for which
docs/hpcai500.md is the schema. A record carries a digest of itself, so that a damaged one is
noticed; one that was changed on purpose is found by `models.benchmark.verification`, which derives
its numbers again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfkfac.errors import InputError
from tfkfac.files import replacing

FORMAT = 1
REACHED, MISSED, FAILED, NO_TARGET = "reached", "missed", "failed", "no target"
STATUSES = (REACHED, MISSED, FAILED, NO_TARGET)


@dataclasses.dataclass(frozen=True)
class Plan:
    """One trial, before it runs.

    Attributes:
        workload, size, optimizer: by name, as in `models.workloads`.
        settings: arguments of the optimizer.
        batch_size: examples of a step, over all ranks.
        epochs: at most.
        ranks: processes.
        repetition: 1, 2, ... of otherwise equal trials.
        seed: of weights, order and augmentation; each repetition has another.
        target: quality at which the clock stops; None measures speed alone.
        steps_per_epoch: steps between evaluations, to measure speed; None for all examples once.
        data: path of original files; None for generated ones.
    """

    workload: str
    size: str
    optimizer: str
    settings: Mapping[str, Any]
    batch_size: int
    epochs: int
    ranks: int = 1
    repetition: int = 1
    seed: int = 1
    target: float | None = None
    steps_per_epoch: int | None = None
    data: str | None = None

    @property
    def name(self) -> str:
        """Of its files, such as `hep-small-kfac-b64-r1-1`; one in a suite has it."""
        parts = [self.workload, self.size, self.optimizer, f"b{self.batch_size}", f"r{self.ranks}"]
        return "-".join([*parts, str(self.repetition)])

    @property
    def configuration_hash(self) -> str:
        """Of everything but repetition and seed: trials with the same one are repetitions."""
        values = dataclasses.asdict(self)
        del values["repetition"], values["seed"]
        return digest(values)


@dataclasses.dataclass(frozen=True)
class Conditions:
    """How trials are run and reckoned, the same for all trials of a suite.

    Attributes:
        cache: folder for generated examples; None for the user's.
        threads: of each process; None for the machine's cores divided by the ranks.
        price_per_hour: of the machines together.
        currency: of the price.
        watts: of the machines together at full load, to estimate energy where no counter is; None
            leaves it unavailable.
        vflops_exponent, vflops_cap: see `metrics.vflops`; the cap None for none.
    """

    cache: str | None = None
    threads: int | None = None
    price_per_hour: float | None = None
    currency: str = "USD"
    watts: float | None = None
    vflops_exponent: float = 5.0
    vflops_cap: float | None = 1.0


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One point of a training's history.

    Attributes:
        epoch: 1-based, just finished.
        step: of the optimizer, so far.
        seconds: since the clock's start, this evaluation included.
        quality: of the test examples, in the workload's metric; None where it is no number.
        training_loss: mean over the epoch; None where it is no number.
        training_quality: the same metric on training examples; None where it is not taken.
        joules: since the clock's start; None where there is neither a counter nor a stated power.
    """

    epoch: int
    step: int
    seconds: float
    quality: float | None
    training_loss: float | None
    training_quality: float | None = None
    joules: float | None = None


@dataclasses.dataclass(frozen=True)
class Record:
    """One trial, after it ran. Numbers that were not measured are None.

    Attributes:
        plan: what was asked for.
        status: one of STATUSES.
        error: why it failed; None otherwise.
        note: what else a reader should know, such as that the training diverged; None otherwise.
        metric, higher_is_better: of the quality.
        history: evaluations in their order.
        time_to_quality: seconds until the target was first reached.
        seconds: from the clock's start to its stop.
        started: ISO 8601, UTC.
        samples_per_second: over training steps after the warm-up, evaluation left out.
        step_seconds: median of the steps after the warm-up.
        longest_step_seconds: of the same.
        warm_up_steps: left out of the three before.
        timed_steps: that went into them.
        parameters: of the network that are trained.
        flops_per_sample: three forward passes, products only.
        optimizer_flops_per_step: of products beyond the network's own; no part of what follows.
        flops_per_second: flops_per_sample times samples_per_second.
        vflops: those times (quality / target) ** vflops_exponent, the ratio at most vflops_cap.
        vflops_exponent, vflops_cap: as used.
        energy: joules until the clock's stop, `source` and `detail` as of `power.Energy`.
        energy_to_quality: joules until the target was reached.
        price_per_hour, currency: of the machines together, as stated by whoever ran it.
        cost_to_quality: in that currency.
        peak_memory: bytes of a process, the largest of all ranks.
        peak_gpu_memory: the same on a GPU; None without one.
        allreduce_share: of a step's time that is spent in exchange between ranks.
        configuration_hash: the plan's.
        data_hash: of the examples, where they are generated; else of names and sizes of files.
        system: hardware and software, as `models.benchmark.system.describe` has them.
    """

    plan: Plan
    status: str
    metric: str
    higher_is_better: bool
    history: tuple[Evaluation, ...] = ()
    error: str | None = None
    note: str | None = None
    time_to_quality: float | None = None
    seconds: float | None = None
    started: str | None = None
    samples_per_second: float | None = None
    step_seconds: float | None = None
    longest_step_seconds: float | None = None
    warm_up_steps: int = 0
    timed_steps: int = 0
    parameters: int | None = None
    flops_per_sample: float | None = None
    optimizer_flops_per_step: float | None = None
    flops_per_second: float | None = None
    vflops: float | None = None
    vflops_exponent: float | None = None
    vflops_cap: float | None = None
    energy: Mapping[str, Any] | None = None
    energy_to_quality: float | None = None
    price_per_hour: float | None = None
    currency: str | None = None
    cost_to_quality: float | None = None
    peak_memory: int | None = None
    peak_gpu_memory: int | None = None
    allreduce_share: float | None = None
    configuration_hash: str = ""
    data_hash: str | None = None
    system: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def quality(self) -> float | None:
        """The best of the history."""
        values = [
            entry.quality
            for entry in self.history
            if entry.quality is not None and math.isfinite(entry.quality)
        ]
        if not values:
            return None
        return max(values) if self.higher_is_better else min(values)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def to_json(record: Record) -> dict[str, Any]:
    """A JSON object with the record's fields, `format` and `digest`."""
    values = {"format": FORMAT, **_finite(dataclasses.asdict(record))}
    return {**values, "digest": digest(values)}


def from_json(values: Any, where: str) -> Record:
    """The record of a JSON object.

    Args:
        values: as made by `to_json`.
        where: file, and place in it, for messages.

    Raises:
        InputError: if it is no record, lacks something, is of a newer format, or its digest is not
            that of its contents.
    """
    if not isinstance(values, dict) or "digest" not in values or "format" not in values:
        raise InputError(f"{where}: no record of a trial: format and digest are missing")
    if values["format"] != FORMAT:
        raise InputError(f"{where}: has format {values['format']!r}; this version reads {FORMAT}")
    rest = {name: value for name, value in values.items() if name != "digest"}
    if digest(rest) != values["digest"]:
        raise InputError(f"{where}: its digest is not that of its contents: it was changed")
    del rest["format"]
    try:
        plan = Plan(**rest.pop("plan"))
        history = tuple(Evaluation(**entry) for entry in rest.pop("history"))
        record = Record(plan=plan, history=history, **rest)
    except (KeyError, TypeError) as error:
        raise InputError(f"{where}: no complete record of a trial: {error}") from error
    if record.status not in STATUSES:
        raise InputError(f"{where}: status {record.status!r} is none of {', '.join(STATUSES)}")
    return record


def write(path: Path, value: Any) -> None:
    """Writes a JSON value, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read(path: Path) -> Any:
    """A JSON value.

    Raises:
        InputError: if the file cannot be read or is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON, or cut short: {error}") from error


def write_task(path: Path, plan: Plan, conditions: Conditions) -> None:
    """The plan file that `models.benchmark.trial` takes."""
    write(path, {"plan": dataclasses.asdict(plan), "conditions": dataclasses.asdict(conditions)})


def read_task(path: Path) -> tuple[Plan, Conditions]:
    """A plan and its conditions from a file.

    Raises:
        InputError: if it is none.
    """
    values = read(path)
    try:
        return Plan(**values["plan"]), Conditions(**values["conditions"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: no plan of a trial: {error}") from error


def _finite(value: Any) -> Any:
    """The value with None for what JSON has no number for: a diverged training's losses."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
