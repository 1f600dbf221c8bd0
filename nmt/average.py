"""The command `nmt-average`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nmt.model_directory import ModelDirectory
from nmt.translation import writing
from tfkfac.command_line import Parser, add_options, exit_code
from tfkfac.errors import InputError
from tfkfac.options import COUNT, TEXT, from_flags, option

DESCRIPTION = """\
Average the weights that a training kept of its last or best validations (its option average), or
any weights of the same model. nmt-translate --checkpoint averaged uses the result."""
EXAMPLES = """\
examples:
  nmt-average --model model                       all weights in model/checkpoints
  nmt-average --model model --last 3              the three latest of them
  nmt-average --model one --weights one/best.weights.h5 two/best.weights.h5 --output mean.weights.h5
"""


@dataclass(frozen=True)
class Options:
    """What is averaged."""

    model: str | None = option(TEXT, None, "model directory; receives averaged.weights.h5")
    last: int | None = option(COUNT, None, "only so many of the latest weights that it kept")
    output: str | None = option(TEXT, None, "write another file instead (.weights.h5)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: those of the command line; default: the process's.

    Returns:
        The exit code: 0, 2 (wrong input) or 130 (interrupted).
    """
    return exit_code(lambda: _run(arguments))


def parser() -> Parser:
    """The command's options."""
    result = Parser(
        prog="nmt-average",
        usage="nmt-average --model DIR [options]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        argument_default=argparse.SUPPRESS,
    )
    add_options(result, Options)
    result.add_argument(
        "--weights", nargs="+", metavar="FILE", help="average these files instead of what it kept"
    )
    return result


def _run(arguments: Sequence[str] | None) -> None:
    flags = vars(parser().parse(arguments))
    options = from_flags(Options, flags)
    if options.model is None:
        raise InputError("--model: missing; give the directory of a trained model")
    directory = ModelDirectory(options.model)
    directory.read()
    given = flags.get("weights")
    if given is not None and options.last is not None:
        raise InputError("--last and --weights contradict each other")
    files = [Path(file) for file in given or sorted(directory.checkpoints.glob("*.weights.h5"))]
    if options.last is not None and options.last > len(files):
        raise InputError(
            f"--last {options.last}: there are only {len(files)} in {directory.checkpoints}"
        )
    files = files[-options.last :] if options.last is not None else files
    if not files:
        raise InputError(
            f"{directory.checkpoints}: no weights; a training with average above 0 keeps some"
        )
    target = directory.averaged if options.output is None else Path(options.output)
    writing.check(options.output, "--output")
    if not target.name.endswith(".weights.h5"):
        raise InputError(f"--output: expected a name that ends in .weights.h5, not {target.name}")
    from nmt import weights  # not before: HDF5's library takes a moment

    weights.average(files, target)
    print(f"{target}: mean of {len(files)}: {', '.join(file.name for file in files)}")


if __name__ == "__main__":
    sys.exit(main())
