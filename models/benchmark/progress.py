"""How far a suite is, on standard error: a line that changes on a terminal, else plain lines."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.status import Status

from models.benchmark.record import FAILED, Record


class Progress:
    """Shows trials as they begin, learn and end."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._total = self._done = 0
        self._title = ""

    def begin(self, total: int, done: int) -> None:
        """So many trials, of which so many were done before."""
        self._total, self._done = total, done
        if done:
            self._print(f"{done} of {total} trials were done before")

    def start(self, name: str) -> None:
        """A trial begins."""
        self._begin(f"{self._done + 1}/{self._total} {name}")

    def start_other(self, title: str) -> None:
        """Something begins that is no trial."""
        self._begin(title)

    def _begin(self, title: str) -> None:
        self._title = title
        if self._console.is_terminal:
            self._status = self._console.status(self._title)
            self._status.start()
        else:
            self._print(self._title)

    def line(self, text: str) -> None:
        """It says something."""
        if self._status is not None:
            self._status.update(f"{self._title}  {_plain(text)}")
        else:
            self._print(f"  {text}")

    def end(self, result: Record) -> None:
        """It ended with a record."""
        self._done += 1
        self.close()
        self._print(f"{self._title}  {summary(result)}")

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _print(self, text: str) -> None:
        self._console.print(_plain(text))


def summary(result: Record) -> str:
    """A record in a few words."""
    if result.status == FAILED:
        return f"failed: {result.error}"
    quality = "no quality" if result.quality is None else f"{result.metric} {result.quality:.4f}"
    words = [result.status, quality]
    time_taken = result.time_to_quality or result.seconds
    if time_taken is not None:
        words.append(f"{time_taken:.1f} s")
    if result.samples_per_second is not None:
        words.append(f"{result.samples_per_second:.0f} examples/s")
    if result.note:
        words.append(result.note)
    return ", ".join(words)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")  # which rich would take for markup
