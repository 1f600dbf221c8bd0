"""`hpcai500 tune`: settings of optimizers, with an equal budget for each."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.benchmark import record
from models.benchmark.progress import Progress
from models.benchmark.record import FAILED, Conditions, Plan, Record
from models.benchmark.suite import locked, require_equal, run_trial, saving
from models.hpcai500 import arguments
from tfkfac.command_line import quiet_tensorflow
from tfkfac.options import COUNT

OUT = "runs/hpcai500-tuning"


def add(subparsers: Any) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "tune",
        help="find settings of optimizers, with an equal budget for each",
        description="Train each optimizer with as many candidate settings, on a seed that no "
        "measured trial has, and write the best to DIR/settings.yaml for `hpcai500 run "
        "--settings`. Goes on where it was interrupted.",
    )
    arguments.add_choice(parser)
    group = parser.add_argument_group("budget")
    group.add_argument(
        "--candidates", default="5", metavar="N", help="of each optimizer (default: 5)"
    )
    group.add_argument("--seed", default="1000", metavar="N", help="of all (default: 1000)")
    arguments.add_conditions(parser)
    group = parser.add_argument_group("results")
    group.add_argument("--out", default=OUT, metavar="DIR", help=f"(default: {OUT})")
    group.add_argument("--retry-failed", action="store_true", help="run failed trials again")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Tunes; returns whether a trial failed."""
    conditions = arguments.conditions(options)
    count = arguments.value(COUNT, options.candidates, "--candidates")
    seed = arguments.seed(options.seed)
    with quiet_tensorflow():
        from models import workloads
        from models.benchmark import plans, tuning
    choice = arguments.choice(options, workloads.names())
    starts = plans.make(plans.Request(**choice, seed=seed))
    out, progress = Path(options.out), Progress()
    file, about = out / "tuning.json", {"conditions": dataclasses.asdict(conditions)}
    with locked(out):
        if file.exists():
            require_equal(
                record.read(file)["conditions"], about["conditions"], str(file), "this tuning"
            )
        with saving(file):
            record.write(file, about)
        try:
            found = _search(
                starts, count, out / "trials", conditions, progress, options.retry_failed
            )
        except KeyboardInterrupt:
            progress.close()
            print("\ninterrupted; the same command goes on from here", file=sys.stderr)
            raise
        finally:
            progress.close()
        chosen = out / "settings.yaml"
        with saving(chosen):
            tuning.write(chosen, choice["size"], seed, found)
    records = [result for own in found.values() for tried in own.values() for result in tried]
    print(f"{len(records)} trials; settings in {chosen}", file=sys.stderr)
    ends = [
        f"{optimizer} on {workload}"
        for workload, own in found.items()
        for optimizer, candidates in own.items()
        if tuning.at_an_end(candidates)
    ]
    if ends:
        print(
            f"at an end of their candidates, beyond which may be better ones: {', '.join(ends)}",
            file=sys.stderr,
        )
    return any(result.status == FAILED for result in records)


def _search(
    starts: Sequence[Plan],
    count: int,
    folder: Path,
    conditions: Conditions,
    progress: Progress,
    retry_failed: bool,
) -> dict[str, dict[str, list[Record]]]:
    """Trains `count` candidates of each plan; records by workload and optimizer, in their order."""
    from models.benchmark import tuning

    names = [tuning.name(start, number) for start in starts for number in range(1, count + 1)]
    progress.begin(len(names), sum((folder / f"{name}.json").exists() for name in names))
    found: dict[str, dict[str, list[Record]]] = {}
    for start in starts:
        tried: list[float] = []
        records = found.setdefault(start.workload, {}).setdefault(start.optimizer, [])
        for number in range(1, count + 1):
            tried.append(tuning.next_position(tried, records))
            settings = tuning.candidate(start.optimizer, start.settings, tried[-1])
            plan = dataclasses.replace(start, settings=settings)
            name = tuning.name(start, number)
            records.append(run_trial(folder, name, plan, conditions, progress, retry_failed))
    return found
