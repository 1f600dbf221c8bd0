"""The report of a suite: sections of text, tables and pictures, as Markdown and as HTML.

Both are made of the results alone: the same file gives the same bytes.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.benchmark import comparison as comparing
from models.benchmark import tables
from models.benchmark.comparison import Comparison, target
from models.benchmark.fields import fits
from models.benchmark.power import MEASURED
from models.benchmark.record import FAILED, MISSED, NO_TARGET, REACHED, Plan, Record
from models.benchmark.results import Micro, Results
from models.benchmark.summary import (
    Configuration,
    Scaling,
    Spread,
    configurations,
    outcomes,
    scaling,
    spread,
)
from models.benchmark.tables import (
    NONE,
    Table,
    as_html,
    count,
    extent,
    markdown,
    median,
    memory,
    number,
    percent,
    plain,
    scaled,
)
from tfkfac.errors import InputError

TITLE = "HPC AI500 report"
SHORT = 12  # characters of a hash


@dataclass(frozen=True)
class Picture:
    """A figure of the HTML report.

    Attributes:
        caption: below it.
        alternative: what it shows, for those who do not see it.
        draw: makes the matplotlib figure.
    """

    caption: str
    alternative: str
    draw: Callable[[], Any]


@dataclass(frozen=True)
class Section:
    """A part of the report: what stands in it, in this order."""

    title: str
    lines: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = field(default=())


def sections(results: Results) -> list[Section]:
    """The whole report.

    Raises:
        InputError: if nothing has ended yet.
    """
    if not results.records and not results.micro:
        raise InputError("no trial and no micro benchmark has ended; there is nothing to report")
    groups = configurations(results)
    contest, why_not = _contest(results)
    parts = [
        _overview(results, groups, contest),
        _time_to_quality(groups, contest),
        _qualities(groups),
        _contest_section(contest, why_not),
        _speed(groups),
        _energy(groups),
        _scaling(scaling(groups)),
        _micro(results.micro),
        _trials(results),
        _settings(groups),
        _system(results),
    ]
    return [part for part in parts if part is not None]


def as_markdown(results: Results) -> str:
    """The report without pictures."""
    text = [f"# {TITLE}"]
    for section in sections(results):
        text.append(f"## {section.title}")
        if section.lines:
            text.append("\n".join(f"- {line}" for line in section.lines))
        text += [markdown(table) for table in section.tables]
    return "\n\n".join(text) + "\n"


def as_page(results: Results) -> str:
    """The report as an HTML page that needs nothing else: pictures and style are in it."""
    body, links = [], []
    for place, section in enumerate(sections(results), start=1):
        anchor = f"section-{place}"
        links.append(f'<li><a href="#{anchor}">{html.escape(section.title)}</a></li>')
        body.append(f'<section id="{anchor}">\n<h2>{html.escape(section.title)}</h2>')
        if section.lines:
            items = "\n".join(f"<li>{html.escape(line)}</li>" for line in section.lines)
            body.append(f"<ul>\n{items}\n</ul>")
        if section.pictures:
            body.append('<div class="pictures">')
        for picture in section.pictures:
            data = base64.b64encode(_figures().svg(picture.draw())).decode("ascii")
            alternative = html.escape(picture.alternative, quote=True)
            body.append(
                f'<figure><img src="data:image/svg+xml;base64,{data}" alt="{alternative}">'
                f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
            )
        if section.pictures:
            body.append("</div>")
        body += [as_html(table) for table in section.tables]
        body.append("</section>")
    contents = "\n".join(body)
    return _PAGE.format(title=TITLE, links="".join(links), contents=contents)


def _contest(results: Results) -> tuple[Comparison | None, str]:
    """The comparison of optimizers, or why there is none."""
    try:
        return comparing.compare({"these results": results}), ""
    except InputError as error:
        return None, str(error)


def _overview(
    results: Results, groups: Sequence[Configuration], contest: Comparison | None
) -> Section:
    planned = sum(group.planned for group in groups)
    ended = {record.plan.name for record in results.records}
    waiting = sum(_named(values) not in ended for values in results.suite["plans"])
    statuses = (REACHED, MISSED, FAILED, NO_TARGET)
    counts = {s: sum(record.status == s for record in results.records) for s in statuses}
    parts = [f"{n} {status}" for status, n in counts.items() if n]
    lines = []
    if planned or waiting:
        lines.append(f"{len(results.records)} trials: {', '.join(parts) or 'none ended'}.")
    if waiting:
        lines.append(f"The suite is not complete: {waiting} planned trials have not ended.")
    if counts[MISSED] or counts[FAILED]:
        lines.append(
            "Misses and failures count as infinite times: medians and scores contain them "
            f"({tables.INFINITE})."
        )
    if contest is not None:
        lines += [_winner(contest, task) for task in contest.tasks]
    if results.micro:
        lines.append(f"Micro benchmarks: {len(results.micro)}.")
    return Section("Overview", lines)


def _winner(contest: Comparison, task: str) -> str:
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


def _time_to_quality(groups: Sequence[Configuration], contest: Comparison | None) -> Section | None:
    groups = [group for group in groups if group.plan.target is not None]
    if not groups:
        return None
    rows = []
    for group in groups:
        times = spread(group.to_quality())
        rows.append(
            [
                *_names(group),
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


def _bars(contest: Comparison) -> Picture:
    told = "; ".join(_winner(contest, task).rstrip(".") for task in contest.tasks)
    return Picture(
        "Median time to quality; hatched: missed.",
        f"Bar chart of the median time to quality. {told}.",
        lambda: _figures().times_to_quality(contest),
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
        lambda: _figures().learning_curves(groups),
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


def _qualities(groups: Sequence[Configuration]) -> Section | None:
    rows = []
    for group in groups:
        best = group.best
        if best is None:
            continue
        entry = next(e for e in best.history if e.quality == best.quality)
        rows.append(
            [
                *_names(group),
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


def _contest_section(contest: Comparison | None, why_not: str) -> Section | None:
    if contest is None:
        return Section("Performance profile", [f"None: {why_not}."])
    scores = ", ".join(f"{name} {contest.scores[name]:.2f}" for name in contest.ranking)
    picture = Picture(
        "Performance profile: the share of tasks that a contestant solves within τ times the best "
        "contestant's time.",
        f"Performance profile. Scores: {scores}.",
        lambda: _figures().profiles(contest),
    )
    return Section("Performance profile", pictures=[picture], tables=comparing.as_tables(contest))


def _speed(groups: Sequence[Configuration]) -> Section | None:
    groups = [group for group in groups if _has(group, lambda r: r.samples_per_second)]
    if not groups:
        return None
    rows, work = [], []
    for group in groups:
        some = next(r for r in group.records if r.status != FAILED)
        share = group.values(lambda r: r.allreduce_share)
        names = [*_names(group), str(group.plan.ranks)]
        rows.append(
            [
                *names,
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
                *names,
                f"{some.parameters:,}" if some.parameters is not None else NONE,
                scaled(some.flops_per_sample, "FLOP"),
                scaled(_middle(own), "FLOP"),
                count(group.values(lambda r: float(r.warm_up_steps))),
                count(group.values(lambda r: float(r.timed_steps))),
                plain(some.vflops_exponent),
                "none" if some.vflops_cap is None else plain(some.vflops_cap),
            ]
        )
    heads = ["workload", "optimizer", ">ranks"]
    speeds = Table(
        "Speed of training steps after the warm-up, without evaluation: medians of trials",
        [
            *heads,
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
            *heads,
            *(">parameters", ">network, an example", ">optimizer, a step"),
            *(">warm-up steps", ">timed steps", ">VFLOPS n", ">cap"),
        ],
        work,
    )
    return Section("Speed", tables=[speeds, counts])


def _energy(groups: Sequence[Configuration]) -> Section | None:
    groups = [group for group in groups if any(r.status != FAILED for r in group.records)]
    if not groups:
        return None
    rows = []
    for group in groups:
        prices = group.values(lambda r: r.price_per_hour)
        currency = next((r.currency for r in group.records if r.currency), "")
        costs = [cost for cost in group.to_quality("cost")] if prices else []
        to_quality = group.to_quality("energy") if _has(group, _joules) else []
        rows.append(
            [
                *_names(group),
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


def _scaling(points: Sequence[Scaling]) -> Section | None:
    if not points:
        return None
    rows = []
    for point in points:
        plan = point.configuration.plan
        rows.append(
            [
                f"{plan.workload} {plan.size}",
                plan.optimizer,
                point.kind,
                str(plan.ranks),
                str(plan.batch_size),
                plain(plan.batch_size / plan.ranks),
                str(len(point.configuration.records)),
                number(point.samples_per_second),
                f"{point.speedup:.2f}",
                percent(point.efficiency),
                percent(point.allreduce_share),
            ]
        )
    columns = ["workload", "optimizer", "scaling", ">ranks", ">batch", ">batch of a rank"]
    table = Table(
        "Scaling by throughput",
        [*columns, ">trials", ">examples/s", ">speedup", ">efficiency", ">all-reduce"],
        rows,
        [
            "Strong: all ranks share one batch. Weak: each has one of the same size. Efficiency is "
            "the speedup over the fewest ranks by how many times the ranks. Ranks on one machine "
            "share its cores and memory: see the system."
        ],
    )
    told = "; ".join(
        f"{p.kind} {p.configuration.plan.workload} {p.configuration.plan.optimizer} on "
        f"{p.configuration.plan.ranks} ranks {p.speedup:.2f}"
        for p in points
    )
    picture = Picture(
        "Speedup over ranks; grey: ideal.",
        f"Speedup in examples a second. {told}.",
        lambda: _figures().scaling(points),
    )
    return Section("Scaling", pictures=[picture], tables=[table])


def _micro(entries: Sequence[Micro]) -> Section | None:
    if not entries:
        return None
    rows = []
    for entry in entries:
        flops, roofline = entry.flops_per_second, entry.roofline
        energy = entry.energy or {}
        joules = energy.get("joules")
        rows.append(
            [
                entry.name,
                entry.device,
                str(entry.ranks),
                str(len(entry.seconds)),
                scaled(entry.median, "s") if entry.median >= 1 else _milliseconds(entry.median),
                scaled(flops, "FLOPS"),
                number(entry.images / entry.median) if entry.images else NONE,
                scaled(entry.traffic / entry.median, "B/s") if entry.traffic else NONE,
                scaled(roofline, "FLOPS"),
                percent(flops / roofline if flops and roofline else None),
                NONE if joules is None else scaled(joules / sum(entry.seconds), "W"),
                energy.get("source", NONE),
            ]
        )
    columns = ["operation", "device", ">ranks", ">runs", ">median", ">FLOPS", ">images/s"]
    first = entries[0]
    reasons = dict.fromkeys(
        f"Energy is {entry.energy['source']}: {entry.energy['detail']}."
        for entry in entries
        if entry.energy is not None and entry.energy["source"] != MEASURED
    )
    table = Table(
        "Micro benchmarks: single operations",
        [*columns, ">bytes", ">roofline", ">share of it", ">power", "energy is"],
        rows,
        [
            "FLOPS by formula over the median run. Roofline: the measured peak "
            f"({scaled(first.peak_flops, 'FLOPS')}), or what the measured bandwidth "
            f"({scaled(first.bandwidth, 'B/s')}) can feed.",
            *reasons,
        ],
    )
    return Section("Micro benchmarks", tables=[table])


def _trials(results: Results) -> Section | None:
    if not results.records:
        return None
    rows = [
        [
            record.plan.name,
            str(record.plan.seed),
            record.status,
            number(record.time_to_quality),
            number(record.quality),
            number(record.seconds),
            str(len(record.history)),
            record.started or NONE,
            record.configuration_hash[:SHORT],
            (record.data_hash or NONE)[:SHORT],
            _remark(record),
        ]
        for record in results.records
    ]
    columns = ["trial", ">seed", "status", ">s to quality", ">best quality", ">s in all"]
    table = Table(
        "All trials",
        [*columns, ">epochs", "started (UTC)", "configuration", "data", "remark"],
        rows,
        [f"Hashes: the first {SHORT} characters."],
    )
    return Section("Trials", tables=[table])


def _settings(groups: Sequence[Configuration]) -> Section | None:
    if not groups:
        return None
    rows = [
        [
            *_names(group),
            str(group.plan.ranks),
            str(group.plan.batch_size),
            str(group.plan.epochs),
            "all" if group.plan.steps_per_epoch is None else str(group.plan.steps_per_epoch),
            group.plan.data or "generated",
            ", ".join(f"{name}={value}" for name, value in group.plan.settings.items()),
        ]
        for group in groups
    ]
    columns = ["workload", "optimizer", ">ranks", ">batch", ">epochs", ">steps of an epoch"]
    return Section(
        "Settings",
        tables=[Table("What was planned", [*columns, "data", "optimizer's settings"], rows)],
    )


def _system(results: Results) -> Section:
    """Targets, conditions, hardware, software and source."""
    aims = dict.fromkeys(
        (record.plan.workload, record.plan.size, target(record)) for record in results.records
    )
    told = results.suite.get("targets")
    how = told if isinstance(told, Mapping) else {}
    found = [
        Table(
            "Targets, and how they were set",
            ["workload", "target", "how it was set"],
            [[f"{name} {size}", aim, str(how.get(name, "as planned"))] for name, size, aim in aims],
        )
    ]
    options = results.suite.get("options")
    if isinstance(options, Mapping) and options:
        rows = [[str(name), _plain(value)] for name, value in options.items()]
        found.append(Table("Conditions of all trials", ["condition", "value"], rows))
    systems = [r.system for r in results.records] + [entry.system for entry in results.micro]
    values: dict[str, list[str]] = {}
    for system in systems:
        for name, value in _flat(system):
            own = values.setdefault(name, [])
            if value not in own:
                own.append(value)
    rows = [[name, "; ".join(own)] for name, own in values.items()]
    notes = (
        ["Several values: trials differ."] if any(len(own) > 1 for own in values.values()) else []
    )
    found.append(Table("Hardware and software", ["what", "value"], rows, notes))
    return Section("System and conditions", tables=[t for t in found if t.rows])


def _flat(system: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values, objects in the object among them; the load is a range of its own."""
    found = []
    for name, value in system.items():
        if isinstance(value, Mapping):
            found += [(f"{name}: {inner}", _plain(entry)) for inner, entry in value.items()]
        elif name == "memory" and fits(value, int):
            found.append((name, memory(value)))
        elif name != "load":
            found.append((name, _plain(value)))
    return found


def _plain(value: Any) -> str:
    if value is None:
        return NONE
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _figures() -> Any:
    """The module, which imports matplotlib: Markdown has no pictures."""
    from models.benchmark import figures

    return figures


def _names(group: Configuration) -> list[str]:
    return [f"{group.plan.workload} {group.plan.size}", group.plan.optimizer]


def _named(values: Any) -> str:
    return Plan(**values).name


def _remark(record: Record) -> str:
    return "; ".join(text for text in (record.error, record.note) if text) or NONE


def _has(group: Configuration, get: Callable[[Record], float | None]) -> bool:
    return any(get(record) is not None for record in group.records)


def _middle(value: Spread | None) -> float | None:
    return None if value is None else value.median


def _seconds(value: Spread | None, which: str = "median") -> str:
    return NONE if value is None else _milliseconds(getattr(value, which))


def _milliseconds(seconds: float) -> str:
    return f"{number(1000 * seconds)} ms"


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


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light; }}
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 90rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; }}
h1 {{ font-size: 1.8rem; margin: 1rem 0; }}
h2 {{ font-size: 1.3rem; margin: 2.5rem 0 .5rem; border-bottom: 2px solid #0072b2; }}
nav ul {{ display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; }}
a {{ color: #005a8e; }}
.wide {{ overflow-x: auto; margin: 1rem 0 .25rem; }}
.wide:focus-visible {{ outline: 2px solid #005a8e; }}
table {{ border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; font-weight: 600; padding: .25rem 0; }}
th, td {{ padding: .3rem .7rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid #d5d5d5; }}
thead th {{ border-bottom: 2px solid #595959; white-space: nowrap; }}
tbody th {{ font-weight: 500; white-space: nowrap; }}
.number {{ text-align: right; white-space: nowrap; }}
tbody tr:nth-child(even) {{ background: #f5f7f9; }}
.note, figcaption {{ color: #4a4a4a; font-size: .875rem; margin: .25rem 0 1rem; max-width: 60rem; }}
.pictures {{ display: flex; flex-wrap: wrap; align-items: end; column-gap: 2rem; }}
figure {{ margin: 1rem 0; flex: 0 1 41rem; }}
img {{ max-width: 100%; height: auto; }}
</style>
</head>
<body>
<header>
<h1>{title}</h1>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{contents}
</main>
</body>
</html>
"""
