"""What the commands that train have in common: switches, resuming, interruption."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from tfkfac.command_line import Parser
from tfkfac.errors import InputError
from tfkfac.options import as_given


def parser(command: str, description: str, examples: str, presets: Sequence[str]) -> Parser:
    """A parser that takes `--config` alone, and has no value for an option that is not given.

    Args:
        command: its name.
        description, examples: for the help; the latter has a `{}` where the presets belong.
        presets: configurations that come with the command.
    """
    result = Parser(
        prog=command,
        usage=f"{command} [--config FILE] [options]",
        description=description,
        epilog=examples.format("\n  ".join(presets)),
        argument_default=argparse.SUPPRESS,
    )
    result.add_argument(
        "--config",
        default=None,
        metavar="FILE",
        help="YAML file with options, or the name of one that comes with it (see below)",
    )
    return result


def add_switches(output: Any, execution: Any, directory: str) -> None:
    """Adds what no configuration holds.

    Args:
        output: the parser's group for `--resume` and `--overwrite`.
        execution: that for `--horovod`.
        directory: what the help calls the directory that is written.
    """
    for group, switch, meaning in (
        (
            output,
            "--resume",
            f"continue the training in the {directory} exactly; without --config, its options "
            "are those saved there",
        ),
        (output, "--overwrite", f"remove the files of an earlier training in the {directory}"),
        (
            execution,
            "--horovod",
            "join other processes; implied by horovodrun, needed under mpirun",
        ),
    ):
        group.add_argument(switch, action="store_true", default=False, help=meaning)


def check_switches(resume: bool, overwrite: bool) -> None:
    """Raises InputError if they contradict each other."""
    if resume and overwrite:
        raise InputError("--resume and --overwrite contradict each other")


def check_continuation(
    names: Iterable[str],
    saved: Callable[[str], Any],
    new: Callable[[str], Any],
    free: Collection[str],
    out: str,
) -> None:
    """Raises InputError if an option would make a resumed training another one.

    Args:
        names: of all options.
        saved, new: an option's value in the training's beginning, and now.
        free: options that may change.
        out: the training's directory.
    """
    for name in names:
        if name not in free and saved(name) != new(name):
            raise InputError(
                f"--resume: {name} is {as_given(new(name))}, but the training in {out} has "
                f"{as_given(saved(name))}; it must stay the same"
            )


def check_tensorboard(wanted: bool) -> None:
    """Raises InputError if TensorBoard is wanted and not installed."""
    if wanted and importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard: TensorBoard is missing: pip install tensorboard")


@contextlib.contextmanager
def interruptible(first: bool, what_is_safe: Callable[[], str]) -> Iterator[None]:
    """Says what a block that was interrupted leaves.

    Args:
        first: whether this is the first of several ranks, the others of which say nothing.
        what_is_safe: words for it.
    """
    try:
        yield
    except KeyboardInterrupt:
        if first:
            print(f"\ninterrupted; {what_is_safe()}", file=sys.stderr)
        raise
