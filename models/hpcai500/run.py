"""`hpcai500 run`: trains workloads, and measures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from models.benchmark.progress import Progress
from models.benchmark.record import FAILED
from models.benchmark.suite import Directory, check_launcher, locked, measure_micro, run_trials
from models.hpcai500 import arguments
from tfkfac.command_line import quiet_tensorflow
from tfkfac.errors import unknown
from tfkfac.options import COUNT

OUT = "runs/hpcai500"
EPILOG = """\
A trial is one training in a process of its own. Its record is written when it ends, and a
suite that is run again with the same options skips what it has; more options add to it.
Exit code 1: a trial failed; the others' results are there. See docs/hpcai500.md."""


def add(subparsers: Any) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "run",
        help="train workloads, and measure",
        description="Train workloads and measure time to quality, speed, energy and cost.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_choice(parser)
    group = parser.add_argument_group("how often and on how many ranks")
    group.add_argument(
        "--repetitions",
        default="1",
        metavar="N",
        help="trials with seeds of their own (default: 1)",
    )
    group.add_argument(
        "--seed",
        default="1",
        metavar="N",
        help="of the first repetition; the others count on (default: 1)",
    )
    group.add_argument(
        "--ranks",
        nargs="+",
        default=["1"],
        metavar="N",
        help="numbers of processes under horovodrun (default: 1)",
    )
    group.add_argument(
        "--scaling",
        default="strong",
        metavar="{strong,weak}",
        help="strong: ranks share the batch; weak: each has a whole one (default: strong)",
    )
    group.add_argument(
        "--settings",
        metavar="FILE",
        help="of optimizers, as `hpcai500 tune` writes them (default: untuned ones)",
    )
    arguments.add_conditions(parser)
    group = parser.add_argument_group("results")
    group.add_argument("--out", default=OUT, metavar="DIR", help=f"(default: {OUT})")
    group.add_argument(
        "--micro", action="store_true", help="measure micro benchmarks before the trials, too"
    )
    group.add_argument("--retry-failed", action="store_true", help="run failed trials again")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Runs it; returns whether a trial failed."""
    from models.benchmark import plans

    if options.scaling not in (plans.STRONG, plans.WEAK):
        raise unknown("scaling", options.scaling, (plans.STRONG, plans.WEAK), "--scaling")
    conditions = arguments.conditions(options)
    ranks = arguments.several(COUNT, options.ranks, "--ranks")
    repetitions = arguments.value(COUNT, options.repetitions, "--repetitions")
    seed = arguments.seed(options.seed)
    with quiet_tensorflow():
        from models import workloads
        from models.benchmark import tuning
    tuned = None if options.settings is None else tuning.read(Path(options.settings))
    choice = arguments.choice(options, workloads.names())
    if tuned is not None:
        tuned.check(choice["size"], range(seed, seed + repetitions))
    planned = plans.make(
        plans.Request(
            **choice,
            ranks=ranks,
            scaling=options.scaling,
            repetitions=repetitions,
            seed=seed,
            settings={} if tuned is None else tuned.settings,
        )
    )
    check_launcher(ranks)
    directory, progress = Directory(Path(options.out)), Progress()
    for name in dict.fromkeys(plan.workload for plan in planned if plan.target is None):
        print(f"{name}: has no target, its speed alone is measured", file=sys.stderr)
    for plan in planned if tuned is not None else ():
        assert tuned is not None
        if plan.repetition == 1 and plan.optimizer not in tuned.settings.get(plan.workload, {}):
            print(
                f"{plan.workload}: {options.settings} has no settings of {plan.optimizer}; it is "
                "not tuned",
                file=sys.stderr,
            )
    with locked(directory.path):
        set_by = {name: "set by --target" for name in choice["targets"]}
        own = {plan.workload: "the workload's own" for plan in planned if plan.target is not None}
        directory.open(planned, conditions, own | {n: t for n, t in set_by.items() if n in own})
        try:
            if options.micro and not directory.micro.exists():
                measure_micro(directory, ranks, {"size": options.size}, conditions, progress)
                directory.write_results()
            records = run_trials(
                directory.trials,
                {plan.name: plan for plan in planned},
                conditions,
                progress,
                options.retry_failed,
                directory.write_results,
            )
        except KeyboardInterrupt:
            progress.close()
            done = sum(directory.record(plan.name).exists() for plan in planned)
            print(
                f"\ninterrupted; {done} of {len(planned)} trials are safe in {directory.path}; "
                "the same command goes on with the others",
                file=sys.stderr,
            )
            raise
        finally:
            progress.close()
        directory.write_results()
    print(f"{len(records)} trials in {directory.results}", file=sys.stderr)
    return any(result.status == FAILED for result in records.values())
