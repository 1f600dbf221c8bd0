"""Learning rates as functions of the update, counted from 1, without any framework.

In the warm-up, update u of w has the rate base · u / w; the schedules differ in what follows, and
all begin with the base itself at the warm-up's end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nmt.config import Optimization


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each update.

    After the warm-up of w updates (at least 1), with base b and U updates in all:

        constant      b
        inverse-sqrt  b · sqrt(w / u)              (Vaswani et al. 2017, section 5.3)
        linear        b · left(u), left(u) = (U - u + 1) / (U - w), at least 0
        cosine        b · (1 - cos(π left(u))) / 2
        plateau       b · factor ^ reductions

    Args:
        kind: one of these.
        base: highest rate.
        warmup: updates of linear warm-up; 0 for none.
        updates: of the whole training.
        factor: of a reduction.

    Example:

    >>> Schedule("inverse-sqrt", base=1.0, warmup=4).rate(16)
    0.5
    """

    kind: str
    base: float
    warmup: int = 0
    updates: int = 0
    factor: float = 1.0

    @classmethod
    def of(cls, options: Optimization, updates: int) -> Schedule:
        """The configured one for a training of so many updates."""
        return cls(
            options.schedule,
            options.learning_rate,
            options.warmup,
            updates,
            options.plateau_factor,
        )

    def rate(self, update: int, reductions: int = 0) -> float:
        """The learning rate of an update.

        Args:
            update: its number, counted from 1.
            reductions: how often validation stopped improving; of use for "plateau" alone.
        """
        if update <= self.warmup:
            return self.base * update / self.warmup
        if self.kind == "inverse-sqrt":
            return self.base * math.sqrt(max(self.warmup, 1) / update)
        if self.kind == "plateau":
            return self.base * self.factor**reductions
        if self.kind == "constant":
            return self.base
        left = max(0.0, (self.updates - update + 1) / (self.updates - self.warmup))
        return self.base * (left if self.kind == "linear" else (1 - math.cos(math.pi * left)) / 2)


@dataclass(frozen=True)
class Plateau:
    """How long validation has not improved, by a measure of which more is better.

    Args:
        patience: validations without improvement that are one too many.
        best: highest measure so far; None before the first.
        waiting: validations since then, or since the last reduction.
        reductions: how often patience ran out.
    """

    patience: int
    best: float | None = None
    waiting: int = 0
    reductions: int = 0

    def after(self, measure: float) -> Plateau:
        """The state after one more validation."""
        if self.best is None or measure > self.best:
            return Plateau(self.patience, measure, 0, self.reductions)
        if self.waiting + 1 < self.patience:
            return Plateau(self.patience, self.best, self.waiting + 1, self.reductions)
        return Plateau(self.patience, self.best, 0, self.reductions + 1)
