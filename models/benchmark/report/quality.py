"""How good the trainings became, how long that took, and whose optimizer was best at it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from models.benchmark import tables
from models.benchmark.comparison import Comparison, as_tables, target
from models.benchmark.report.section import Picture, Section, figures, names
from models.benchmark.summary import Configuration, outcomes, spread
from models.benchmark.tables import NONE, Table, count, extent, median, number


def time_to_quality(groups: Sequence[Configuration], contest: Comparison | None) -> Section | None:
    """Times until targets were reached; None where there is no target."""
    groups = [group for group in groups if group.plan.target is not None]
    if not groups:
        return None
    rows = []
    for group in groups:
        times = spread(group.to_quality())
        rows.append(
            [
                *names(group),
                str(group.plan.ranks),
                target(group.records[0]),
                outcomes(group),
                median(times),
                extent(times),
                NONE if group.olympic_mean is None else number(group.olympic_mean),
                count(spread(group.to_quality("epochs"))),
                count(spread(group.to_quality("steps"))),
            ]
        )
    columns = ["workload", "optimizer", ">ranks", "target", "trials", ">median s", ">range s"]
    table = Table(
        "Wall-clock time to quality, of training and evaluation, and what it took",
        [*columns, ">MLPerf s", ">epochs", ">steps"],
        rows,
        [
            f"{tables.INFINITE} is a miss or a failure. MLPerf: mean without the fastest and the "
            "slowest trial, of three or more. Epochs and steps are medians."
        ],
    )
    pictures = [_curve(task, members) for task, members in _by_task(groups).items()]
    if contest is not None:
        pictures.insert(0, _bars(contest))
    return Section("Time to quality", pictures=pictures, tables=[table])


def qualities(groups: Sequence[Configuration]) -> Section | None:
    """The best qualities; None where none was measured."""
    rows = []
    for group in groups:
        best = group.best
        if best is None:
            continue
        entry = next(e for e in best.history if e.quality == best.quality)
        rows.append(
            [
                *names(group),
                str(group.plan.ranks),
                group.records[0].metric + (" ↑" if group.higher_is_better else " ↓"),
                number(best.quality),
                number(entry.training_quality),
                str(entry.epoch),
                median(spread(record.quality for record in group.records)),
                extent(spread(record.quality for record in group.records)),
                str(group.plan.epochs),
            ]
        )
    if not rows:
        return None
    columns = ["workload", "optimizer", ">ranks", "metric", ">best test", ">training then"]
    table = Table(
        "Qualities of test examples",
        [*columns, ">at epoch", ">median of trials' best", ">range", ">epochs allowed"],
        rows,
        [
            "↑: higher is better, ↓: lower is better. A trial ends when it reaches its target: its "
            "best quality is no measure of how far it would have come."
        ],
    )
    # What has no target has no section of times, which shows the curves of the others.
    free = [g for g in groups if g.plan.target is None and len(g.records[0].history) > 1]
    pictures = [_curve(task, members) for task, members in _by_task(free).items()]
    return Section("Quality", pictures=pictures, tables=[table])


def performance_profile(contest: Comparison | None, why_not: str) -> Section:
    """The comparison of optimizers, or why there is none."""
    if contest is None:
        return Section("Performance profile", [f"None: {why_not}."])
    scores = ", ".join(f"{name} {contest.scores[name]:.2f}" for name in contest.ranking)
    picture = Picture(
        "Performance profile: the share of tasks that a contestant solves within τ times the best "
        "contestant's time.",
        f"Performance profile. Scores: {scores}.",
        lambda: figures().profiles(contest),
    )
    return Section("Performance profile", pictures=[picture], tables=as_tables(contest))


def _bars(contest: Comparison) -> Picture:
    told = "; ".join(winner(contest, task).rstrip(".") for task in contest.tasks)
    return Picture(
        "Median time to quality; hatched: missed.",
        f"Bar chart of the median time to quality. {told}.",
        lambda: figures().times_to_quality(contest),
    )


def _curve(task: str, groups: Sequence[Configuration]) -> Picture:
    def told(group: Configuration) -> str:
        best = group.best
        value = "no quality" if best is None else f"best {number(best.quality)}"
        return f"{group.plan.optimizer} {value}, {outcomes(group)}"

    record = groups[0].records[0]
    return Picture(
        f"{task}: quality over time of each trial; large markers where the target is reached.",
        f"Learning curves of {task}, {target(record)}: {'; '.join(map(told, groups))}.",
        lambda: figures().learning_curves(groups),
    )


def _by_task(groups: Sequence[Configuration]) -> dict[str, list[Configuration]]:
    """Configurations that are drawn together, by what they do."""
    plans = [group.plan for group in groups]
    found: dict[str, list[Configuration]] = {}
    for group in groups:
        plan = group.plan
        ranks = {p.ranks for p in plans if (p.workload, p.size) == (plan.workload, plan.size)}
        name = f"{plan.workload} {plan.size}" + (f", {plan.ranks} ranks" if len(ranks) > 1 else "")
        found.setdefault(name, []).append(group)
    return found


def winner(contest: Comparison, task: str) -> str:
    """A sentence: the optimizer that was first at a task, and how far behind the others were."""
    times = {name: contest.medians[name][task] for name in contest.medians}
    order = sorted(times, key=lambda name: (times[name], name))
    best = order[0]
    if math.isinf(times[best]):
        return f"{task}: none reached {contest.targets[task]} in more than half of its trials."
    others = [
        f"{name} {'missed' if math.isinf(times[name]) else f'{times[name] / times[best]:.2f}x'}"
        for name in order[1:]
    ]
    reached = f"{task}: {best} reached {contest.targets[task]} first, in {number(times[best])} s"
    return f"{reached} (median); {', '.join(others)}."
