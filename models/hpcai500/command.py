"""The command's entry: which subcommand, and its options."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import signal
import sys
import threading
from collections.abc import Sequence

from tfkfac.command_line import EXIT_FAILED, Parser, exit_code
from tfkfac.errors import InputError, unknown

DESCRIPTION = """\
Scientific deep-learning benchmarks after HPC AI500: time to a quality, speed, energy and
cost of workloads from physics, climate and vision, trained with SGD, AdamW, Muon or K-FAC."""
EXAMPLES = """\
examples:
  hpcai500 list                                       workloads, qualities and targets
  hpcai500 run --size tiny                            all of them, in minutes
  hpcai500 run hep cosmoflow --repetitions 3 --out runs/physics
  hpcai500 run hep --ranks 1 2 4 --scaling strong --epochs 1 --steps 50
  hpcai500 tune hep --candidates 8 --out runs/tuning  equal budgets for all optimizers
  hpcai500 report runs/physics                        tables and plots"""
# Each a module beside this one, with `add(subparsers)`.
COMMANDS = ("list", "run", "tune", "micro", "report", "compare", "verify")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: those of the command line; default: the process's.

    Returns:
        The exit code: 0, 1 (a trial failed, or a check did), 2 (wrong input), or 130 (interrupted;
        also by SIGTERM, as batch systems send it).
    """
    failed: list[bool] = []

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def command() -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, interrupt)
        options = parse(sys.argv[1:] if arguments is None else arguments)
        failed.append(bool(options.run(options)))

    code = exit_code(command)
    return EXIT_FAILED if code == 0 and any(failed) else code


def parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser, and those of the subcommands by name."""
    result = Parser(
        prog="hpcai500",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = result.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name in COMMANDS:
        if importlib.util.find_spec(f"models.hpcai500.{name}") is not None:
            importlib.import_module(f"models.hpcai500.{name}").add(subparsers)
    return result, dict(subparsers.choices)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options, among them `run`, the function that takes them.

    Raises:
        InputError: if there is no such command or option.
    """
    whole, commands = parser()
    first = arguments[0] if arguments else None
    if first is None:
        raise InputError(f"hpcai500: expected a command: {', '.join(commands)}")
    if not first.startswith("-") and first not in commands:
        raise unknown("command", first, commands, "hpcai500")
    if first.startswith("-"):
        return whole.parse(arguments)
    return commands[first].parse(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
