"""Learning rates as functions of the step: linear warm-up, then steps, a line or a cosine.

All are Keras learning-rate schedules and are saved with the optimizer that holds them. Steps
count from 0. During the warm-up, step s of w has the rate

    base (start + (1 - start) (s + 1) / w),

so that step w - 1 is the first at the full rate (Goyal et al. 2017, section 2.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule


def epochs_to_steps(epochs: float, steps_per_epoch: int) -> int:
    """The step at which an epoch (counted from 0, perhaps fractional) begins."""
    return round(epochs * steps_per_epoch)


class _WarmupSchedule(LearningRateSchedule):
    """What all schedules here share: `_after_warmup` scales the rate once the warm-up is over."""

    def __init__(self, base: float, warmup_steps: int, warmup_start: float) -> None:
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps must not be negative, not {warmup_steps}")
        if not 0.0 <= warmup_start <= 1.0:
            raise ValueError(f"warmup_start is a fraction of the base rate, not {warmup_start}")
        self.base = float(base)
        self.warmup_steps = int(warmup_steps)
        self.warmup_start = float(warmup_start)

    def __call__(self, step: Any) -> Any:
        step = tf.cast(step, tf.float32)
        progress = (step + 1.0) / max(self.warmup_steps, 1)
        warmup = self.warmup_start + (1.0 - self.warmup_start) * progress
        return self.base * tf.where(step < self.warmup_steps, warmup, self._after_warmup(step))

    def _after_warmup(self, step: Any) -> Any:
        """The fraction of the base rate at `step` (float32), at or after the warm-up's end."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {
            "base": self.base,
            "warmup_steps": self.warmup_steps,
            "warmup_start": self.warmup_start,
        }


@keras.saving.register_keras_serializable(package="models")
class WarmupStepDecay(_WarmupSchedule):
    """Warm-up, then multiplied by `factor` at each boundary: the papers' schedule.

    Args:
        base: rate after the warm-up.
        boundaries: steps from which on the rate is multiplied once more.
        factor: 0.1 divides it by ten.
        warmup_steps: length of the warm-up; 0 for none.
        warmup_start: fraction of `base` from which the warm-up rises.

    Raises:
        ValueError: if the warm-up's length is negative or its start no fraction.

    Example:

    >>> rate = WarmupStepDecay(0.1, boundaries=[100, 200])
    >>> [round(float(rate(step)), 4) for step in (0, 99, 100, 200)]
    [0.1, 0.1, 0.01, 0.001]
    """

    def __init__(
        self,
        base: float,
        boundaries: Sequence[int],
        factor: float = 0.1,
        warmup_steps: int = 0,
        warmup_start: float = 0.0,
    ) -> None:
        super().__init__(base, warmup_steps, warmup_start)
        self.boundaries = [int(boundary) for boundary in boundaries]
        self.factor = float(factor)

    def _after_warmup(self, step: Any) -> Any:
        fraction = tf.ones_like(step)
        for boundary in self.boundaries:
            fraction = tf.where(step >= boundary, fraction * self.factor, fraction)
        return fraction

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "boundaries": self.boundaries, "factor": self.factor}


class _WarmupToZero(_WarmupSchedule):
    """What decays from the warm-up's end to zero at `total_steps`, and stays there."""

    def __init__(
        self, base: float, total_steps: int, warmup_steps: int = 0, warmup_start: float = 0.0
    ) -> None:
        super().__init__(base, warmup_steps, warmup_start)
        if total_steps <= warmup_steps:
            raise ValueError(
                f"a warm-up of {warmup_steps} steps leaves nothing of {total_steps} steps"
            )
        self.total_steps = int(total_steps)

    def _remaining(self, step: Any) -> Any:
        """1 at the warm-up's end, 0 at `total_steps` and beyond."""
        left = (self.total_steps - step) / (self.total_steps - self.warmup_steps)
        return tf.clip_by_value(left, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "total_steps": self.total_steps}


@keras.saving.register_keras_serializable(package="models")
class WarmupLinearDecay(_WarmupToZero):
    """Warm-up, then a straight line to zero.

    Args:
        base: rate after the warm-up.
        total_steps: the step at which the rate would be zero: the training's length.
        warmup_steps: length of the warm-up; 0 for none.
        warmup_start: fraction of `base` from which the warm-up rises.

    Raises:
        ValueError: if the warm-up is as long as the training, or its start no fraction.

    Example:

    >>> rate = WarmupLinearDecay(1.0, total_steps=4)
    >>> [float(rate(step)) for step in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """

    def _after_warmup(self, step: Any) -> Any:
        return self._remaining(step)


@keras.saving.register_keras_serializable(package="models")
class WarmupCosineDecay(_WarmupToZero):
    """Warm-up, then half a cosine to zero (Loshchilov & Hutter 2017, without restarts).

    Arguments and errors are those of `WarmupLinearDecay`.

    Example:

    >>> rate = WarmupCosineDecay(1.0, total_steps=2)
    >>> [round(float(rate(step)), 6) for step in range(3)]
    [1.0, 0.5, 0.0]
    """

    def _after_warmup(self, step: Any) -> Any:
        return 0.5 * (1.0 - tf.cos(math.pi * self._remaining(step)))
