"""Lines of a file or a pipe in windows: as many as there are, without waiting long for more."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nmt.corpus import lines, open_text
from tfkfac.errors import InputError

# A window is sorted by length before it is cut into batches, and is all that memory has to hold.
WINDOW = 1024
# How long to wait, in seconds, for more lines from a pipe before those that came are translated.
_PATIENCE = 0.05
_BLOCK = 1 << 16


class _Pipe:
    """A pipe's lines, and whether there is more to read at once.

    The descriptor is read directly: what a buffered file has in its buffer, `select` cannot see.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()
        self._ended = False

    def readline(self, size: int) -> bytes:
        """Up to the next line break, and at most `size` bytes; nothing at the end."""
        while (end := self._buffer.find(b"\n", 0, size)) < 0 and len(self._buffer) < size:
            if not self._fill():
                break
        length = end + 1 if end >= 0 else min(size, len(self._buffer))
        line = bytes(self._buffer[:length])
        del self._buffer[:length]
        return line

    def ready(self) -> bool:
        """Whether a line is there, or at least its beginning, or the end."""
        if self._ended or b"\n" in self._buffer:
            return True
        return bool(select.select([self._descriptor], [], [], _PATIENCE)[0])

    def _fill(self) -> bool:
        block = os.read(self._descriptor, _BLOCK)
        self._ended = not block
        self._buffer += block
        return bool(block)


class Lines:
    """The lines of a file, plain or compressed with gzip, or of a pipe, window by window.

    Args:
        path: the file; None for standard input.
        size: most lines in a window.
    """

    def __init__(self, path: Path | None, size: int = WINDOW) -> None:
        self._size = size
        self.name = "standard input" if path is None else str(path)
        self._pipe = _Pipe(0) if path is None else None
        self._open = contextlib.ExitStack()
        # Now, so that a missing file is noticed before anything else is done.
        stream: Any = self._pipe if path is None else self._open.enter_context(open_text(path))
        self._lines = lines(stream, self.name)

    def windows(self) -> Iterator[list[str]]:
        """Windows of at least one line; to be taken once.

        Raises:
            InputError: naming the line, if one is refused (see `nmt.corpus.lines`); the lines
                before it have been yielded by then.
        """
        with self._open:
            problem: InputError | None = None
            while problem is None:
                window: list[str] = []
                try:
                    while len(window) < self._size and (not window or self._ready()):
                        window.append(next(self._lines))
                except StopIteration:
                    if window:
                        yield window
                    return
                except InputError as error:
                    problem = error
                if window:
                    yield window
            raise problem

    def _ready(self) -> bool:
        return self._pipe is None or self._pipe.ready()
