"""A made-up suite with everything that a real one has: two workloads, two optimizers, ranks."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.benchmark import metrics, record, results
from models.benchmark.record import Evaluation, Plan, Record
from models.benchmark.results import Micro, Results
from models.benchmark.summary import reaching

OPTIONS: dict[str, Any] = {
    "cache": None,
    "threads": None,
    "price_per_hour": 1.5,
    "currency": "USD",
    "watts": None,
    "vflops_exponent": 5.0,
    "vflops_cap": 1.0,
}
TARGETS = {"hep": "the workload's own", "cosmoflow": "set by --target"}
SYSTEM: dict[str, Any] = {
    "host": "node1",
    "processor": "Processor X",
    "cores": 2,
    "machine_cores": 2,
    "memory": 8 * 2**30,
    "gpus": [],
    "threads": 2,
    "platform": "Linux",
    "python": "3.11.9",
    "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"},
    "source": {"commit": "0123abcd", "changed": False},
    "environment": {},
    "load": 0.5,
}
START = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
MEASURED = {"joules": 0.0, "source": "measured", "detail": "package-0"}


def plan(workload: str = "hep", optimizer: str = "sgd", **changes: Any) -> Plan:
    """A plan of two steps an epoch."""
    values: dict[str, Any] = {
        "settings": {"learning_rate": 0.1},
        "batch_size": 8,
        "epochs": 4,
        "target": 0.9 if workload == "hep" else 0.5,
        **changes,
    }
    return Plan(workload, "tiny", optimizer, **values)


def trial(
    of: Plan, qualities: Sequence[float | None], pace: float = 10.0, start: float = 0.0
) -> Record:
    """The record of a trial with these qualities after each epoch, an epoch taking `pace` seconds.

    Its derived numbers follow from the others by the definitions.
    """
    higher = of.workload == "hep"
    history = tuple(
        Evaluation(
            epoch,
            2 * epoch,
            pace * epoch,
            quality,
            None if quality is None else 1.0 / epoch,
            None if quality is None else quality + 0.01,
            joules=50 * pace * epoch,
        )
        for epoch, quality in enumerate(qualities, start=1)
    )
    timed = 2 * len(history) // 2
    rate = of.batch_size / (pace / 4)
    made = Record(
        of,
        record.NO_TARGET if of.target is None else record.MISSED,
        "AUC" if higher else "MAE",
        higher,
        history,
        seconds=pace * len(history),
        started=(START + datetime.timedelta(seconds=start)).isoformat(),
        samples_per_second=rate,
        step_seconds=pace / 4,
        longest_step_seconds=pace / 4,
        warm_up_steps=2 * len(history) - timed,
        timed_steps=timed,
        parameters=1234,
        flops_per_sample=1e9,
        optimizer_flops_per_step=2e6 if of.ranks == 1 else None,
        flops_per_second=1e9 * rate,
        vflops_exponent=5.0,
        vflops_cap=1.0,
        energy={**MEASURED, "joules": history[-1].joules},
        price_per_hour=1.5,
        currency="USD",
        peak_memory=2**30,
        allreduce_share=None if of.ranks == 1 else 0.25,
        configuration_hash=of.configuration_hash,
        data_hash=f"data of {of.workload}",
        system={**SYSTEM, "threads": max(1, 2 // of.ranks)},
    )
    if of.target is not None and made.quality is not None:
        valid = metrics.vflops(1e9 * rate, made.quality, of.target, 5.0, higher, 1.0)
        made = dataclasses.replace(made, vflops=valid)
    entry = reaching(made)
    if entry is None:
        return made
    return dataclasses.replace(
        made,
        status=record.REACHED,
        time_to_quality=entry.seconds,
        energy_to_quality=entry.joules,
        cost_to_quality=metrics.cost(entry.seconds, 1.5),
    )


def failed(of: Plan) -> Record:
    """The record of a trial whose process failed."""
    return Record(
        of,
        record.FAILED,
        "AUC" if of.workload == "hep" else "MAE",
        of.workload == "hep",
        error="events.h5: cut short",
        configuration_hash=of.configuration_hash,
        system=SYSTEM,
    )


def results_of(records: Sequence[Record], micro: Sequence[Micro] = ()) -> Results:
    """A complete suite of these records."""
    plans = [dataclasses.asdict(entry.plan) for entry in records]
    return Results(
        {"format": record.FORMAT, "plans": plans, "options": OPTIONS, "targets": TARGETS},
        tuple(records),
        tuple(micro),
    )


def suite() -> Results:
    """K-FAC reaches both targets, SGD the first one later, the second in one of three trials.

    hep: SGD 20 s, K-FAC 10 s. cosmoflow: SGD 40 s, a miss, and a failure; K-FAC 30 s. SGD also runs
    hep on two ranks, with the same batch (1.6 times as fast) and with twice the batch, without a
    target.
    """
    records: list[Record] = []
    for repetition in (1, 2, 3):
        for name, optimizer, qualities, pace in (
            ("hep", "sgd", [0.7, 0.92], 10.0),
            ("hep", "kfac", [0.95], 10.0),
            ("cosmoflow", "sgd", [0.8, 0.7, 0.6, 0.5 if repetition == 1 else 0.55], 10.0),
            ("cosmoflow", "kfac", [0.6, 0.4], 15.0),
        ):
            of = plan(name, optimizer, repetition=repetition, seed=repetition)
            if (name, optimizer, repetition) == ("cosmoflow", "sgd", 3):
                records.append(failed(of))
                continue
            records.append(trial(of, qualities, pace, start=100.0 * len(records)))
    for batch, ranks, pace in ((8, 1, 10.0), (8, 2, 6.25), (16, 2, 12.5)):
        of = plan(batch_size=batch, ranks=ranks, target=None, steps_per_epoch=2, repetition=9)
        records.append(trial(of, [0.6], pace, start=100.0 * len(records)))
    return results_of(records, [micro()])


def micro() -> Micro:
    """An operation at half of its roofline, which is the peak: 1 GFLOP in 10 ms of 200 GFLOPS."""
    return Micro(
        "convolution 2-D forward",
        "CPU",
        (0.009, 0.01, 0.02),
        1e9,
        1e6,
        32,
        peak_flops=2e11,
        bandwidth=1e10,
        price_per_hour=1.5,
        currency="USD",
        system=SYSTEM,
    )


def write(directory: Path, made: Results) -> Path:
    """A result directory with all files of a suite."""
    (directory / "trials").mkdir(parents=True)
    record.write(directory / "suite.json", made.suite)
    for entry in made.records:
        stem = directory / "trials" / entry.plan.name
        record.write(stem.with_name(f"{stem.name}.json"), record.to_json(entry))
        if entry.status != record.FAILED:
            events = "\n".join(map(_line, events_of(entry)))
            stem.with_name(f"{stem.name}.mllog").write_text(f"{events}\n", encoding="utf-8")
    entries = [dataclasses.asdict(entry) for entry in made.micro]
    record.write(directory / "micro.json", {"format": record.FORMAT, "micro": entries})
    results.save(directory, made)
    return directory


def events_of(entry: Record) -> list[dict[str, Any]]:
    """What the trial's process logs; taking the training quality lasts 3 s after each epoch."""
    of, start = entry.plan, datetime.datetime.fromisoformat(entry.started or "").timestamp()
    found: list[dict[str, Any]] = []

    def add(seconds: float, kind: str, key: str, value: Any = None, **metadata: Any) -> None:
        found.append(
            {
                "namespace": "",
                "time_ms": round(1000 * (start + seconds)),
                "event_type": kind,
                "key": key,
                "value": value,
                "metadata": metadata,
            }
        )

    add(-1, "POINT_IN_TIME", "submission_benchmark", of.workload, size=of.size)
    add(-1, "POINT_IN_TIME", "seed", of.seed)
    add(-1, "POINT_IN_TIME", "global_batch_size", of.batch_size)
    add(-1, "POINT_IN_TIME", "opt_name", of.optimizer)
    add(-1, "POINT_IN_TIME", "opt_base_learning_rate", of.settings["learning_rate"])
    add(0, "INTERVAL_START", "run_start")
    before = pause = 0.0
    for point in entry.history:
        number = {"epoch_num": point.epoch}
        middle = (before + point.seconds) / 2
        add(before + pause, "INTERVAL_START", "epoch_start", **number)
        add(middle + pause, "INTERVAL_END", "epoch_stop", **number)
        add(middle + pause, "INTERVAL_START", "eval_start", **number)
        add(point.seconds + pause, "INTERVAL_END", "eval_stop", **number)
        add(point.seconds + pause, "POINT_IN_TIME", "eval_accuracy", point.quality, **number)
        before, pause = point.seconds, pause + 3
    reached = entry.status in (record.REACHED, record.NO_TARGET)
    status = "success" if reached else "aborted"
    add((entry.seconds or 0) + pause, "INTERVAL_END", "run_stop", status=status)
    return found


def _line(event: dict[str, Any]) -> str:
    return f":::MLLOG {json.dumps(event)}"
