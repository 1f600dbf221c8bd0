"""`hpcai500 compare`: optimizers or machines against each other."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from models.benchmark import comparison, results
from models.benchmark.metrics import ALGOPERF_LIMIT
from models.benchmark.summary import MEASURES
from models.benchmark.tables import markdown
from tfkfac import options as option_kinds
from tfkfac.errors import InputError, unknown
from tfkfac.options import Kind

LIMIT = Kind("a number above 1", option_kinds.number, lambda value: value > 1)
DESCRIPTION = """\
Compare results: AlgoPerf's performance profiles and scores. A contestant's time for a
workload is the median of its trials; a miss or a failure took for ever. Its score is the
mean share of workloads that it solves within τ times the best contestant's time, for τ
from 1 to 4."""
EPILOG = """\
examples:
  hpcai500 compare runs/hpcai500                          optimizers of one suite
  hpcai500 compare runs/sgd runs/kfac --plot profile.svg  optimizers of two
  hpcai500 compare runs/node1 runs/node2 --by file        machines
Exit code 2: the results are not comparable; the message says why."""


def add(subparsers: Any) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "compare",
        help="optimizers or machines against each other",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "results", nargs="+", metavar="RESULTS", help="directories of suites, or results.json files"
    )
    group = parser.add_argument_group("what is compared")
    group.add_argument(
        "--by",
        default="optimizer",
        metavar="{optimizer,file}",
        help="what the contestants are (default: optimizer)",
    )
    group.add_argument(
        "--measure",
        default="time",
        metavar=f"{{{','.join(MEASURES)}}}",
        help="what it took until the target was reached (default: time)",
    )
    group.add_argument(
        "--limit",
        default=f"{ALGOPERF_LIMIT:g}",
        metavar="X",
        help="the largest τ (default: 4, as AlgoPerf's)",
    )
    group.add_argument(
        "--allow-missing", action="store_true", help="what was not run counts as missed"
    )
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="a JSON object in place of tables")
    group.add_argument("--plot", metavar="FILE", help="the profiles: .png, .svg or .pdf")
    group.add_argument("--bars", metavar="FILE", help="the medians, likewise")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Prints the comparison, and draws it where asked to."""
    if options.by not in comparison.BY:
        raise unknown("contestants", options.by, comparison.BY, "--by")
    if options.measure not in MEASURES:
        raise unknown("measure", options.measure, MEASURES, "--measure")
    limit = option_kinds.convert(option_kinds.option(LIMIT, 0, ""), options.limit, "--limit")
    wanted = [
        (option, Path(given), draw)
        for option, given, draw in (
            ("--plot", options.plot, "profiles"),
            ("--bars", options.bars, "times_to_quality"),
        )
        if given is not None
    ]
    if wanted:
        from models.benchmark import figures  # imports matplotlib

        for option, path, _ in wanted:
            figures.check_format(path, option)
    found = comparison.compare(
        _loaded(options.results), options.by, options.measure, limit, options.allow_missing
    )
    for option, path, draw in wanted:
        try:
            figures.save(getattr(figures, draw)(found), path)
        except OSError as error:
            raise InputError(f"{option} {path}: {error.strerror}") from error
    if options.json:
        print(json.dumps(comparison.as_json(found), indent=1, ensure_ascii=False))
    else:
        print("\n\n".join(markdown(table) for table in comparison.as_tables(found)))
    sys.stdout.flush()


def _loaded(paths: list[str]) -> dict[str, results.Results]:
    """Results by a short name: the directory's, or the whole path where two share one."""
    files = [Path(path) for path in paths]
    resolved = [results.file(path).resolve() for path in files]
    if len(set(resolved)) < len(resolved):
        raise InputError("compare: one file is given twice")
    names = [
        (file.parent if file.name == results.FILE else file.with_suffix("")).name
        for file in resolved
    ]
    if len(set(names)) < len(names):
        names = paths
    return {name: results.load(path) for name, path in zip(names, files, strict=True)}
