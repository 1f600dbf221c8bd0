"""Work of several requests done together, in one thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

Work = Callable[[Any, Sequence[str]], Sequence[Any]]


class Full(RuntimeError):
    """More waits to be done than is allowed."""


@dataclass
class _Job:
    key: Hashable
    lines: Sequence[str]
    future: Future = field(default_factory=Future)


class Batcher:
    """Collects jobs that come within moments of each other, and does those of one key together.

    Jobs are done in the order in which the first of a batch came. A job whose future was cancelled
    before its turn is dropped.

    Args:
        work: what is done: (key, lines) -> a result for each line; called in one thread only.
        most: no more jobs are collected once there are as many lines as this.
        timeout: seconds to wait for more jobs after the first.
        most_waiting: lines that may wait at most.
    """

    def __init__(
        self, work: Work, most: int = 64, timeout: float = 0.005, most_waiting: int = 10_000
    ) -> None:
        self._work, self._most, self._timeout = work, most, timeout
        self._most_waiting = most_waiting
        self._jobs: list[_Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Lines whose turn has not come."""
        with self._changed:
            return self._lines()

    def submit(self, key: Hashable, lines: Sequence[str]) -> Future:
        """A future for the list of the lines' results.

        Raises:
            Full: if too much waits already.
        """
        job = _Job(key, lines)
        with self._changed:
            if self._closed:
                raise Full("shutting down")
            if self._jobs and self._lines() + len(lines) > self._most_waiting:
                raise Full(f"more than {self._most_waiting:,} lines are waiting")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Takes no more jobs, and returns when all are done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _lines(self) -> int:
        return sum(len(job.lines) for job in self._jobs)

    def _run(self) -> None:
        while batch := self._next():
            running = [job for job in batch if job.future.set_running_or_notify_cancel()]
            lines = [line for job in running for line in job.lines]
            try:
                results = list(self._work(batch[0].key, lines)) if lines else []
            except BaseException as error:
                for job in running:
                    job.future.set_exception(error)
                continue
            start = 0
            for job in running:
                job.future.set_result(results[start : start + len(job.lines)])
                start += len(job.lines)

    def _next(self) -> list[_Job]:
        """The next jobs of one key; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            self._changed.wait_for(
                lambda: self._closed or self._lines() >= self._most, timeout=self._timeout
            )
            batch: list[_Job] = []
            left: list[_Job] = []
            count = 0
            for job in self._jobs:
                fits = not batch or count + len(job.lines) <= self._most
                if job.key == self._jobs[0].key and fits:
                    batch.append(job)
                    count += len(job.lines)
                else:
                    left.append(job)
            self._jobs = left
            return batch
