"""What the commands share: strict options and errors of one line."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from tfkfac.errors import InputError, TrainingError, unknown
from tfkfac.options import FLAG, as_given, flag

EXIT_FAILED = 1
EXIT_INPUT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
# What writing to a full disk raises; such errors of print() name no file.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `InputError` and names the option nearest to an unknown one.

    Options cannot be abbreviated: a new option must not change what a script's options mean.
    Description and epilog keep their line breaks.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise InputError(message.removeprefix("argument "))

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Parses `arguments`, by default those of the process.

        Raises:
            InputError: if there is one that it does not know.
        """
        known, rest = self.parse_known_args(arguments)
        for argument in rest:
            if argument.startswith("-"):
                options = [text for text in self._option_string_actions if text.startswith("--")]
                raise unknown("option", argument.split("=")[0], options, self.prog)
        if rest:
            raise InputError(f"{self.prog}: unexpected argument {rest[0]}")
        return known


def add_option(group: Any, option: dataclasses.Field) -> None:
    """Adds an option of a configuration to a parser or to a group of its arguments.

    Its value stays text, so that file and command line are converted and checked alike.
    """
    kind = option.metadata["kind"]
    value = option.default
    if option.default_factory is not dataclasses.MISSING:
        value = option.default_factory()
    default = "" if value is None else f" (default: {as_given(value)})"
    extra: dict[str, Any] = {"metavar": kind.metavar}
    if kind is FLAG:
        extra = {"action": argparse.BooleanOptionalAction}
    group.add_argument(
        flag(option.name),
        dest=option.name,
        help=option.metadata["help"].replace("%", "%%") + default,
        **extra,
    )


def add_options(group: Any, configuration: type) -> None:
    """Adds all options of a configuration, a dataclass; see `add_option`."""
    for option in dataclasses.fields(configuration):
        add_option(group, option)


def exit_code(command: Callable[[], None]) -> int:
    """Runs a command; its errors become a line on standard error and an exit code.

    Interruption and a reader of standard output that went away end it quietly. That standard
    output cannot be written, because the disk is full, is an error like those of input.
    """
    try:
        command()
        sys.stdout.flush()  # while a full disk can still be told
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return EXIT_BROKEN_PIPE
    except OSError as error:
        if error.filename is not None or error.errno not in _FULL:
            raise
        _discard_output()
        reason = os.strerror(error.errno)
        print(f"error: standard output: cannot be written ({reason})", file=sys.stderr)
        return EXIT_INPUT
    return 0


def _discard_output() -> None:
    """Nothing can be written any more: Python would try when it ends, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Keeps TensorFlow from writing to standard error while the block imports it.

    Its libraries do so before any of their settings takes effect, so the descriptor itself has to
    lead elsewhere. A failing import still shows its traceback, which is printed afterwards.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow leaves oneDNN out on processors without AVX-512, where it is faster as well.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
