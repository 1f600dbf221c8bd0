"""Whether a trial's log bears witness to its record: the same words, qualities and times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from models.benchmark.record import MISSED, REACHED, Record
from models.benchmark.verification.trial import instant

# Logs have a clock of their own, in whole milliseconds, and are written a moment later.
SLACK_SECONDS, SLACK = 1.0, 0.01


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
    yield from _times(made, times)


def _times(made: Record, times: Mapping[tuple[str, Any], float]) -> Iterator[str]:
    """An epoch takes at least from its start to its evaluation's end, at most all since the last.

    In between a quality of training examples may be taken, which the record's clock leaves out.
    """
    start = times.get(("run_start", None))
    if start is None:
        yield "has no run_start"
        return
    begun = None if made.started is None else instant(made.started)
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
