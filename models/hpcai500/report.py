"""`hpcai500 report`: tables and pictures of results."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from models.benchmark import report, results
from tfkfac.errors import InputError
from tfkfac.files import replacing

NAMES = ("report.md", "report.html")
DESCRIPTION = """\
Report results: times to quality, qualities, speed, energy, cost, scaling, micro
benchmarks, and what they were measured on. Works while a suite still runs."""
EPILOG = """\
examples:
  hpcai500 report runs/hpcai500                      Markdown, on the terminal
  hpcai500 report runs/hpcai500 --out runs/hpcai500  report.md and report.html there
  hpcai500 report results.json --out page.html       one page: tables and pictures in one file"""


def add(subparsers: Any) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "report",
        help="tables and plots of results",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", metavar="RESULTS", help="directory of a suite, or results.json")
    parser.add_argument(
        "--out",
        nargs="+",
        default=[],
        metavar="PATH",
        help="files to write, .md or .html, or a directory for both "
        "(default: Markdown on standard output)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Prints or writes it."""
    files = [file for path in options.out for file in _files(Path(path))]
    made = results.load(Path(options.results))
    if not files:
        sys.stdout.write(report.as_markdown(made))
        sys.stdout.flush()
        return
    for file in files:
        make = report.as_markdown if file.suffix == ".md" else report.as_page
        text = make(made)
        try:
            with replacing(file) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"--out {file}: {error.strerror}") from error
        print(f"wrote {file}")


def _files(path: Path) -> list[Path]:
    """What `--out` stands for."""
    if path.is_dir():
        return [path / name for name in NAMES]
    if path.suffix not in (".md", ".html"):
        raise InputError(f"--out {path}: expected a name in .md or .html, or a directory")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: no directory {path.parent}")
    return [path]
