"""What repetitions of one configuration amount to, and how configurations scale over ranks.

A miss, and a trial that failed, took an infinite time: medians and spreads count them as such.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from models.benchmark import metrics
from models.benchmark.record import FAILED, MISSED, NO_TARGET, REACHED, Evaluation, Plan, Record
from models.benchmark.results import Results, planned

MEASURES = ("time", "epochs", "steps", "energy", "cost")


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of several values, some perhaps infinite."""

    median: float
    low: float
    high: float


def spread(values: Iterable[float | None]) -> Spread | None:
    """The spread of those values that are there; None if there are none.

    >>> spread([3.0, None, 1.0])
    Spread(median=2.0, low=1.0, high=3.0)
    """
    there = [value for value in values if value is not None]
    return Spread(statistics.median(there), min(there), max(there)) if there else None


def reaching(record: Record) -> Evaluation | None:
    """The first evaluation that is as good as the target, whatever the record claims."""
    target = record.plan.target
    for entry in record.history:
        if entry.quality is None or target is None:
            continue
        if entry.quality >= target if record.higher_is_better else entry.quality <= target:
            return entry
    return None


def to_quality(record: Record, measure: str = "time") -> float | None:
    """What it took until the target was reached: infinite for a miss or a failure.

    Args:
        record: of a trial.
        measure: one of MEASURES; `energy` in joules.

    Returns:
        None without a target, or where it was not measured.
    """
    if record.status == NO_TARGET or record.plan.target is None:
        return None
    entry = reaching(record)
    if record.status != REACHED or entry is None:
        return math.inf
    if measure == "time":
        return record.time_to_quality
    if measure == "energy":
        return record.energy_to_quality
    if measure == "cost":
        return record.cost_to_quality
    return float({"epochs": entry.epoch, "steps": entry.step}[measure])


@dataclass(frozen=True)
class Configuration:
    """The trials that differ in repetition and seed alone.

    Attributes:
        plan: of the first of them.
        planned: how many there were to be.
        records: of those that ended.
    """

    plan: Plan
    planned: int
    records: tuple[Record, ...]

    def count(self, status: str) -> int:
        """Trials that ended so."""
        return sum(record.status == status for record in self.records)

    def to_quality(self, measure: str = "time") -> list[float]:
        """`to_quality` of each trial, where there is one."""
        values = (to_quality(record, measure) for record in self.records)
        return [value for value in values if value is not None]

    def values(self, get: Callable[[Record], float | None]) -> Spread | None:
        """The spread of what `get` takes from each trial."""
        return spread(get(record) for record in self.records)

    @property
    def olympic_mean(self) -> float | None:
        """MLPerf's result of three or more trials; None of fewer."""
        times = self.to_quality()
        return metrics.olympic_mean(times) if len(times) >= 3 else None

    @property
    def higher_is_better(self) -> bool:
        """Of the quality."""
        return self.records[0].higher_is_better

    @property
    def best(self) -> Record | None:
        """The trial with the best quality, if one has any."""
        found = [record for record in self.records if record.quality is not None]
        sign = 1 if found and found[0].higher_is_better else -1
        return max(found, key=lambda record: sign * (record.quality or 0.0), default=None)


def configurations(results: Results) -> list[Configuration]:
    """All configurations of which a trial has ended, in the order of the plans."""
    plans: dict[str, list[Plan]] = {}
    records: dict[str, list[Record]] = {}
    for plan in (*planned(results.suite, "suite"), *(record.plan for record in results.records)):
        own = plans.setdefault(plan.configuration_hash, [])
        if plan not in own:
            own.append(plan)
    for record in results.records:
        records.setdefault(record.plan.configuration_hash, []).append(record)
    return [
        Configuration(own[0], len(own), tuple(records[key]))
        for key, own in plans.items()
        if key in records
    ]


@dataclass(frozen=True)
class Scaling:
    """One number of ranks in a comparison with fewer.

    Attributes:
        kind: `strong` (one batch for all ranks) or `weak` (a batch for each).
        configuration: what ran.
        samples_per_second: median of its trials.
        speedup: over the fewest ranks of the same comparison.
        efficiency: speedup by how many times the ranks: 1 is ideal.
        allreduce_share: median, where there are several ranks.
    """

    kind: str
    configuration: Configuration
    samples_per_second: float
    speedup: float
    efficiency: float
    allreduce_share: float | None


def scaling(groups: Sequence[Configuration]) -> list[Scaling]:
    """Strong and weak scaling by throughput, wherever ranks differ and nothing else does."""
    found: list[Scaling] = []
    for kind in ("strong", "weak"):
        series: dict[tuple[object, ...], list[Configuration]] = {}
        for group in groups:
            series.setdefault(_alike(group.plan, kind), []).append(group)
        for members in series.values():
            members = [m for m in members if m.values(lambda r: r.samples_per_second)]
            members.sort(key=lambda m: m.plan.ranks)
            if len({m.plan.ranks for m in members}) > 1:
                found += _against_first(kind, members)
    return found


def _alike(plan: Plan, kind: str) -> tuple[object, ...]:
    batch = plan.batch_size if kind == "strong" else plan.batch_size / plan.ranks
    same = (plan.workload, plan.size, plan.data, plan.epochs, plan.steps_per_epoch, plan.target)
    return (*same, plan.optimizer, repr(sorted(plan.settings.items())), batch)


def _against_first(kind: str, members: Sequence[Configuration]) -> list[Scaling]:
    def rate(member: Configuration) -> float:
        found = member.values(lambda r: r.samples_per_second)
        assert found is not None
        return found.median

    first = members[0]
    found = []
    for member in members:
        speedup = rate(member) / rate(first)
        share = member.values(lambda r: r.allreduce_share)
        found.append(
            Scaling(
                kind,
                member,
                rate(member),
                speedup,
                speedup * first.plan.ranks / member.plan.ranks,
                None if share is None else share.median,
            )
        )
    return found


def outcomes(group: Configuration) -> str:
    """How its trials ended, for people: `3 reached`, `2 of 3 reached, 1 missed`.

    >>> plan = Plan("hep", "tiny", "sgd", {}, 8, 1, target=0.9)
    >>> missed = Record(plan, MISSED, "AUC", True)
    >>> outcomes(Configuration(plan, 3, (missed, missed)))
    '2 missed, 1 not run'
    """
    names = {REACHED: "reached", MISSED: "missed", FAILED: "failed", NO_TARGET: "without target"}
    parts = [f"{group.count(s)} {name}" for s, name in names.items() if group.count(s)]
    if group.planned > len(group.records):
        parts.append(f"{group.planned - len(group.records)} not run")
    return ", ".join(parts)
