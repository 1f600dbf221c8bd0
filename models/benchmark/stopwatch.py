"""A trial's clock: seconds and joules since its start, without what does not belong to it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from models.benchmark.power import MEASURED, UNAVAILABLE, Energy, EnergyMeter, estimate
from tfkfac.errors import TrainingError


@dataclass(frozen=True)
class Reading:
    """Since the start: seconds, and joules where they are known."""

    seconds: float
    energy: Energy


class Stopwatch:
    """Runs from its making on.

    Args:
        meter: counts energy, from now on.
        watts: stated power, for an estimate where the meter has no counters.
        now: a clock in seconds that never goes back.

    Example:

    >>> times = iter([10.0, 12.0, 15.0, 16.0])
    >>> watch = Stopwatch(now=lambda: next(times))
    >>> with watch.paused():
    ...     pass
    >>> watch.read().seconds
    3.0
    """

    def __init__(
        self,
        meter: EnergyMeter | None = None,
        watts: float | None = None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._meter, self._watts, self._now = meter, watts, now
        self._left_out_seconds = self._left_out_joules = 0.0
        self._start = self._last = now()

    def now(self) -> float:
        """The clock's time.

        Raises:
            TrainingError: if it has gone back.
        """
        time = self._now()
        if time < self._last:
            raise TrainingError(f"the clock went back by {self._last - time:.3g} s")
        self._last = time
        return time

    def read(self) -> Reading:
        """Seconds and joules so far."""
        seconds = self.now() - self._start - self._left_out_seconds
        energy = self._counted()
        if energy.source == MEASURED and energy.joules is not None:
            energy = Energy(energy.joules - self._left_out_joules, MEASURED, energy.detail)
        elif self._watts is not None:
            energy = estimate(seconds, self._watts, load=1.0)
        return Reading(seconds, energy)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens in the block is left out."""
        start, joules = self.now(), self._counted().joules or 0.0
        try:
            yield
        finally:
            self._left_out_seconds += self.now() - start
            self._left_out_joules += (self._counted().joules or 0.0) - joules

    def _counted(self) -> Energy:
        if self._meter is None:
            return Energy(None, UNAVAILABLE, "not asked for")
        self._meter.update()
        return self._meter.reading()
