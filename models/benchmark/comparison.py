"""Optimizers or machines against each other: AlgoPerf's performance profiles and scores.

Contestants solve tasks, which are workloads of a size (of one optimizer, where machines compete). A
task's time is the median over repetitions, misses and failures being infinite. What is not the same
task (another target, size, metric or other data) is refused, not compared.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.benchmark import metrics, tables
from models.benchmark.record import FAILED, NO_TARGET, Record
from models.benchmark.results import Results, planned
from models.benchmark.summary import to_quality
from models.benchmark.tables import Table, number
from tfkfac.errors import InputError

BY = ("optimizer", "file")
UNITS = {"time": "s", "epochs": "epochs", "steps": "steps", "energy": "J", "cost": ""}
# Of a machine; cores in use and load may change without it being another one.
_MACHINE = ("host", "processor", "machine_cores", "memory", "gpus")


@dataclass(frozen=True)
class Comparison:
    """Who needed how much, and what that scores.

    Attributes:
        by: what contestants are, one of BY.
        measure: one of `summary.MEASURES`.
        medians: by contestant and task; infinite for misses.
        ratios: those over the best contestant's.
        scores: of each contestant, 0 to 1.
        limit: ratio from which a task counts no more.
        repetitions: by contestant and task: trials that the median is of, those that missed.
        targets: by task: what is to be reached.
        notes: what a reader should know.
    """

    by: str
    measure: str
    medians: Mapping[str, Mapping[str, float]]
    ratios: Mapping[str, Mapping[str, float]]
    scores: Mapping[str, float]
    limit: float
    repetitions: Mapping[str, Mapping[str, tuple[int, int]]]
    targets: Mapping[str, str]
    notes: Sequence[str]

    @property
    def tasks(self) -> list[str]:
        """Their names."""
        return list(self.targets)

    @property
    def ranking(self) -> list[str]:
        """Contestants, best score first."""
        return sorted(self.scores, key=lambda name: (-self.scores[name], name))

    def profile(self, contestant: str) -> list[tuple[float, float]]:
        """The corners (τ, share of tasks) of a contestant's profile from 1 to the limit."""
        own = list(self.ratios[contestant].values())
        corners = sorted({1.0, self.limit, *(r for r in own if r <= self.limit)})
        return [(tau, metrics.performance_profile(own, tau)) for tau in corners]


def compare(
    files: Mapping[str, Results],
    by: str = "optimizer",
    measure: str = "time",
    limit: float = metrics.ALGOPERF_LIMIT,
    allow_missing: bool = False,
) -> Comparison:
    """Compares all trials with a target.

    Args:
        files: results by a name of each.
        by: `optimizer`: those of all files together; `file`: each file is a contestant, such as a
            machine.
        measure: `time`, `epochs`, `steps`, `energy` or `cost` until the target was reached.
        limit: ratio to the best from which a task counts no more.
        allow_missing: count what a contestant has not run as a miss.

    Raises:
        InputError: if there is nothing to compare, or it is not comparable.
    """
    entries = [
        (name, record)
        for name, results in files.items()
        for record in results.records
        if record.plan.target is not None and record.status != NO_TARGET
    ]
    if not entries:
        raise InputError(f"{_listed(files)}: no trial with a target has ended")
    _require_comparable(entries)
    groups = _grouped(entries, by)
    contestants = list(dict.fromkeys(contestant for contestant, _ in groups))
    if len(contestants) < 2:
        of = "optimizer" if by == "optimizer" else "file"
        raise InputError(
            f"{_listed(files)}: only one {of}, {contestants[0]}: nothing to compare it with"
        )
    tasks = list(dict.fromkeys(task for _, task in groups))
    missing = [(c, t) for c in contestants for t in tasks if (c, t) not in groups]
    if missing and not allow_missing:
        names = "; ".join(f"{contestant}: {task}" for contestant, task in missing)
        raise InputError(f"not run: {names} (hpcai500 compare --allow-missing counts it as missed)")
    medians: dict[str, dict[str, float]] = {c: {} for c in contestants}
    repetitions: dict[str, dict[str, tuple[int, int]]] = {c: {} for c in contestants}
    for (contestant, task), members in groups.items():
        values = [_measured(name, record, measure) for name, record in members]
        medians[contestant][task] = statistics.median(values)
        repetitions[contestant][task] = (len(values), sum(map(math.isinf, values)))
    for contestant, task in missing:
        medians[contestant][task] = math.inf
        repetitions[contestant][task] = (0, 0)
    medians = {c: {task: medians[c][task] for task in tasks} for c in contestants}
    found = metrics.time_ratios(medians)
    ratios = {c: {task: found[c][task] for task in tasks} for c in contestants}
    return Comparison(
        by,
        measure,
        medians,
        ratios,
        {c: metrics.algoperf_score(list(ratios[c].values()), limit) for c in contestants},
        limit,
        repetitions,
        {task: _target(next(m for (_, t), m in groups.items() if t == task)) for task in tasks},
        _notes(files, groups, tasks, missing),
    )


def as_tables(comparison: Comparison) -> list[Table]:
    """Scores, and what they are made of."""
    ranking, unit = comparison.ranking, UNITS[comparison.measure]
    score = Table(
        f"Scores: mean share of tasks within τ times the best, τ from 1 to {comparison.limit:g}",
        [comparison.by, ">score", ">best of all in", ">reached", ">within 1.5x", ">within 2x"],
        [
            [
                name,
                f"{comparison.scores[name]:.3f}",
                *(
                    f"{sum(test(ratio) for ratio in own)} of {len(own)}"
                    for own in [list(comparison.ratios[name].values())]
                    for test in (
                        lambda r: r == 1,
                        math.isfinite,
                        lambda r: r <= 1.5,
                        lambda r: r <= 2,
                    )
                ),
            ]
            for name in ranking
        ],
        ["1 is best at every task, 0 never reached or slower than the limit."],
    )

    def cell(name: str, task: str) -> str:
        trials, misses = comparison.repetitions[name][task]
        if not trials:
            return "not run"
        value, ratio = comparison.medians[name][task], comparison.ratios[name][task]
        text = number(value) if math.isinf(value) else f"{number(value)} ({ratio:.2f}x)"
        return f"{text}, {misses} of {trials} missed" if misses else text

    what = f"{comparison.measure} to quality" + (f" in {unit}" if unit in ("s", "J") else "")
    details = Table(
        f"{what.capitalize()}, median of trials, and ratio to the best",
        ["task", "target", *(f">{name}" for name in ranking)],
        [
            [task, comparison.targets[task], *(cell(name, task) for name in ranking)]
            for task in comparison.tasks
        ],
        [f"{tables.INFINITE}: half of the trials or more missed the target.", *comparison.notes],
    )
    return [score, details]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as a JSON object; infinite values are null."""

    def finite(values: Mapping[str, float]) -> dict[str, float | None]:
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

    return {
        "by": comparison.by,
        "measure": comparison.measure,
        "limit": comparison.limit,
        "targets": dict(comparison.targets),
        "contestants": {
            name: {
                "score": comparison.scores[name],
                "medians": finite(comparison.medians[name]),
                "ratios": finite(comparison.ratios[name]),
                "trials": {t: n for t, (n, _) in comparison.repetitions[name].items()},
                "misses": {t: n for t, (_, n) in comparison.repetitions[name].items()},
                "profile": [list(corner) for corner in comparison.profile(name)],
            }
            for name in comparison.ranking
        },
        "notes": list(comparison.notes),
    }


_Entry = tuple[str, Record]
_Groups = dict[tuple[str, str], list[_Entry]]


def _require_comparable(entries: Sequence[_Entry]) -> None:
    """Raises InputError where trials of a workload differ in what makes it the same task."""
    first: dict[str, _Entry] = {}
    hashed: dict[str, _Entry] = {}
    for name, record in entries:
        plan = record.plan
        other, reference = first.setdefault(plan.workload, (name, record))
        for what, own, its in (
            ("size", plan.size, reference.plan.size),
            ("target", plan.target, reference.plan.target),
            ("metric", record.metric, reference.metric),
            ("direction of the metric", record.higher_is_better, reference.higher_is_better),
            ("steps of an epoch", plan.steps_per_epoch, reference.plan.steps_per_epoch),
        ):
            if own != its:
                raise InputError(
                    f"{plan.workload}: not comparable: {what} is {its} in {other} "
                    f"({reference.plan.name}) and {own} in {name} ({plan.name})"
                )
        if record.status == FAILED or record.data_hash is None:
            continue  # it may have failed before it read its data
        other, reference = hashed.setdefault(plan.workload, (name, record))
        if record.data_hash != reference.data_hash:
            raise InputError(
                f"{plan.workload}: not comparable: its data are not the same in {other} "
                f"({reference.plan.name}, {str(reference.data_hash)[:12]}) and {name} "
                f"({plan.name}, {record.data_hash[:12]})"
            )


def _grouped(entries: Sequence[_Entry], by: str) -> _Groups:
    """Trials by contestant and task.

    Ranks are part of a task's name where a contestant has run it on several numbers of them.
    """

    def contestant(name: str, record: Record) -> str:
        return record.plan.optimizer if by == "optimizer" else name

    def base(record: Record) -> str:
        plan = record.plan
        return f"{plan.workload} {plan.size}" + (f", {plan.optimizer}" if by == "file" else "")

    ranks: dict[tuple[str, str], set[int]] = {}
    for name, record in entries:
        ranks.setdefault((contestant(name, record), base(record)), set()).add(record.plan.ranks)
    several = {task for (_, task), numbers in ranks.items() if len(numbers) > 1}
    groups: _Groups = {}
    for name, record in entries:
        task = base(record)
        if task in several:
            task += f", {record.plan.ranks} ranks"
        groups.setdefault((contestant(name, record), task), []).append((name, record))
    for (who, task), members in groups.items():
        _require_one(who, task, members)
    return groups


def _require_one(who: str, task: str, members: Sequence[_Entry]) -> None:
    """Raises InputError unless trials are repetitions of each other."""
    (name, first), *others = members
    seeds = {first.plan.seed}
    for other, record in others:
        if record.plan.configuration_hash != first.plan.configuration_hash:
            raise InputError(
                f"{who}: two configurations of {task}, {first.plan.name} in {name} and "
                f"{record.plan.name} in {other}; compare files that have one each"
            )
        if other != name and any(
            record.system.get(key) != first.system.get(key) for key in _MACHINE
        ):
            raise InputError(
                f"{who}: {task} ran on different machines in {name} and {other}; --by file "
                "compares machines"
            )
        if record.plan.seed in seeds:
            raise InputError(
                f"{who}: {task} has two trials with seed {record.plan.seed}, one of them in "
                f"{other}; --by file compares files"
            )
        seeds.add(record.plan.seed)


def _measured(name: str, record: Record, measure: str) -> float:
    value = to_quality(record, measure)
    if value is None:
        energy = record.energy or {}
        reason = {
            "energy": f"energy is unavailable: {energy.get('detail', 'not measured')}",
            "cost": "no price was stated (--price-per-hour of hpcai500 run)",
        }.get(measure, f"no {measure}")
        raise InputError(f"{name}: {record.plan.name}: {reason}")
    return value


def _target(members: Sequence[_Entry]) -> str:
    record = members[0][1]
    return target(record)


def target(record: Record) -> str:
    """What is to be reached, for people: `AUC >= 0.95`."""
    if record.plan.target is None:
        return f"{record.metric}, none"
    return f"{record.metric} {'>=' if record.higher_is_better else '<='} {record.plan.target:g}"


def _notes(
    files: Mapping[str, Results],
    groups: _Groups,
    tasks: Sequence[str],
    missing: Sequence[tuple[str, str]],
) -> list[str]:
    """What differs besides the contestants, and what is left out."""
    notes = [f"Not run, counted as missed: {who}: {task}." for who, task in missing]
    for task in tasks:
        own = {who: [r for _, r in members] for (who, t), members in groups.items() if t == task}
        for what, get in (
            ("epochs allowed", lambda r: r.plan.epochs),
            ("examples of a step", lambda r: r.plan.batch_size),
            ("ranks", lambda r: r.plan.ranks),
            ("trials", None),
        ):
            values = {who: len(rs) if get is None else get(rs[0]) for who, rs in own.items()}
            if len(set(values.values())) > 1:
                listed = ", ".join(f"{who} {value}" for who, value in values.items())
                notes.append(f"{task}: {what} differ: {listed}.")
        failed = {who: sum(r.status == FAILED for r in rs) for who, rs in own.items()}
        notes += [f"{task}: {n} failed, not only missed: {who}." for who, n in failed.items() if n]
    for name, results in files.items():
        ended = {record.plan.name for record in results.records}
        waiting = [p.name for p in planned(results.suite, name) if p.name not in ended]
        if waiting:
            notes.append(f"{name}: {len(waiting)} planned trials have not ended.")
    left_out = sum(
        record.status == NO_TARGET for results in files.values() for record in results.records
    )
    if left_out:
        notes.append(f"Left out: {left_out} trials without a target.")
    return notes


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
