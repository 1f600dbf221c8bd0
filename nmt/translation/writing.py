"""Where the lines of output go."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tfkfac.errors import InputError
from tfkfac.files import replacing


def check(path: str | None, option: str) -> None:
    """Raises InputError, naming the option, if there is no directory for a file to be written."""
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise InputError(f"{option} {path}: no directory {Path(path).parent}")


@contextlib.contextmanager
def output(path: str | None) -> Iterator[IO[str]]:
    """A stream for lines: a file that appears whole or not at all, or standard output for None.

    It is UTF-8 and ends lines with LF whatever the locale.
    """
    if path is None:
        with open(1, "w", encoding="utf-8", newline="\n", closefd=False) as stream:
            yield stream
        return
    with (
        replacing(Path(path)) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as stream,
    ):
        yield stream


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turns what the system refuses, such as writing to a full disk, into an `InputError`."""
    try:
        yield
    except BrokenPipeError:  # nobody reads any more, which is no error
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"{error.filename or 'the output'}: {reason}") from error
