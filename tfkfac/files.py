"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tfkfac.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, with its suffix, renamed to `path` if the block succeeds.

    Devices and pipes, such as /dev/null, are not replaced: for them it is `path` itself. Of a
    symbolic link, it is the file behind it that is replaced.

    Example:

    >>> with replacing(Path("notes.txt")) as temporary:  # doctest: +SKIP
    ...     temporary.write_text("done")
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    path = path.resolve() if path.is_symlink() else path
    temporary = path.with_name(f".{os.getpid()}.{path.name}")  # see remove_leftovers
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_new_directory(path: Path, overwrite: bool, option: str = "--out") -> None:
    """Raises InputError if a training that begins in `path` would lose files that are there.

    Args:
        path: it need not exist.
        overwrite: whether it may.
        option: what named the path, for the message.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{option} {path}: not a directory")
    if not overwrite and path.is_dir() and any(path.iterdir()):
        raise InputError(
            f"{option} {path}: already exists; continue it with --resume, replace it with "
            "--overwrite, or choose another"
        )


def remove_leftovers(path: Path) -> None:
    """Removes the temporary files for `path` of processes that were killed while writing."""
    for leftover in path.parent.glob(f".*.{path.name}"):
        leftover.unlink(missing_ok=True)
