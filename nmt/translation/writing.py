"""Where the lines of output go."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tfkfac.errors import InputError
from tfkfac.files import replacing


def check(path: str | None, option: str, directory: bool = False) -> None:
    """Raises InputError, naming the option, if a file, or a directory, cannot be made there."""
    if path is None:
        return
    if not Path(path).absolute().parent.is_dir():
        raise InputError(f"{option} {path}: no directory {Path(path).parent}")
    if not directory and Path(path).is_dir():
        raise InputError(f"{option} {path}: a directory, not a file")
    if directory and Path(path).is_file():
        raise InputError(f"{option} {path}: a file, not a directory")


@contextlib.contextmanager
def output(path: str | None) -> Iterator[IO[str]]:
    """A stream for lines: a file that appears whole or not at all, or standard output for None.

    It is UTF-8 and ends lines with LF whatever the locale.

    Raises:
        InputError: naming the file, if the system refuses, as when the disk is full.
    """
    with readable_errors("standard output" if path is None else path):
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
def readable_errors(name: str = "the output") -> Iterator[None]:
    """Turns what the system refuses, such as writing to a full disk, into an `InputError`.

    Args:
        name: of what is written in the block.
    """
    try:
        yield
    except BrokenPipeError:  # nobody reads any more, which is no error
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        # The name of a temporary file would tell nobody anything.
        temporary = Path(str(error.filename)).name.startswith(f".{os.getpid()}.")
        where = error.filename if error.filename and not temporary else name
        raise InputError(f"{where}: cannot be written ({reason})") from error
