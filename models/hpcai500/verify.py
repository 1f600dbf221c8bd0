"""`hpcai500 verify`: whether results are complete, unchanged and true to themselves."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from models.benchmark import results, verification

DESCRIPTION = """\
Check results: digests, completeness, seeds, clocks, and every number that follows from
others. With a directory also the trials' files and MLLOG lines."""
EPILOG = """\
Prints a line for each problem. Exit code 0: none; 1: refused; 2: nothing that could be
verified. docs/hpcai500.md says what can be found and what cannot."""


def add(subparsers: Any) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "verify",
        help="check that results are complete and unchanged",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", metavar="RESULTS", help="directory of a suite, or results.json")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Prints the problems; returns whether there are any."""
    path = Path(options.results)
    problems = verification.of_path(path)
    for problem in problems:
        print(f"{path}: {problem}")
    sys.stdout.flush()
    if problems:
        print(f"{path}: refused, problems: {len(problems)}", file=sys.stderr)
        return True
    found = results.load(path)
    counts = Counter(entry.status for entry in found.records)
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    print(
        f"{path}: verified: trials {len(found.records)}{f' ({told})' if told else ''}, "
        f"micro benchmarks {len(found.micro)}"
    )
    return False
