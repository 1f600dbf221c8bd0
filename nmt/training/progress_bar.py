"""Progress on standard error, where that is a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

# Between two looks at numbers that the device has to be asked for, in seconds.
_INTERVAL = 0.5


class ProgressBar:
    """A context in which a bar shows what goes on; nothing at all without a terminal.

    Args:
        shown: whether to show it at all.
    """

    def __init__(self, shown: bool = True) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),  # of 80 columns, numbers need the rest
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=Console(stderr=True),
            # Lines on a standard output that is another file must not end up in the terminal.
            redirect_stdout=sys.stdout.isatty(),
            disable=not (shown and sys.stderr.isatty()),
        )
        self._task: TaskID | None = None
        self._looked = time.perf_counter()

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def begin(
        self, what: str, total: int | None = None, completed: int = 0, detail: str = ""
    ) -> None:
        """Goes over to something else, of `total` steps if that is known."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=total, completed=completed, detail=detail)

    def at(self, completed: int) -> None:
        """So many steps are done."""
        if self._task is not None:
            self._progress.update(self._task, completed=completed)

    def detail(self, text: str) -> None:
        """Shows text behind the bar."""
        if self._task is not None:
            self._progress.update(self._task, detail=text)

    def due(self) -> bool:
        """Whether it is time for new details, and a bar is there to show them."""
        now = time.perf_counter()
        if self._progress.disable or now - self._looked < _INTERVAL:
            return False
        self._looked = now
        return True
