"""Values that may be numbers or schedules: damping, factor interval, decomposition interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tfkfac")
class StepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A base value multiplied by `factor` at each boundary that was reached.

    The value is always computed from the base value, never from the value before. For an interval,
    use a factor above 1: it is rounded, and never becomes less than 1.

    Args:
        base: Value before the first boundary.
        boundaries: Steps (optimizer updates) at which the value changes.
        factor: Multiplier per boundary, or one multiplier (of the base value) per boundary.

    Example:

    >>> damping = StepDecay(0.002, boundaries=[4000, 8000], factor=0.5)
    >>> float(damping(0)), float(damping(5000)), float(damping(9000))
    (0.0020000000949949026, 0.0010000000474974513, 0.0005000000237487257)
    """

    def __init__(self, base: float, boundaries: Sequence[int], factor: float | Sequence[float]):
        if isinstance(factor, (int, float)):
            factor = [float(factor) ** (i + 1) for i in range(len(boundaries))]
        if len(factor) != len(boundaries):
            raise ValueError(
                f"StepDecay: {len(boundaries)} boundaries need as many factors, got {len(factor)}"
            )
        if list(boundaries) != sorted(boundaries):
            raise ValueError(f"StepDecay: boundaries must ascend, got {list(boundaries)}")
        self.base, self.boundaries = float(base), [int(b) for b in boundaries]
        self.factors = [float(f) for f in factor]

    def __call__(self, step: Any) -> tf.Tensor:
        """The value at `step`, a float32 scalar."""
        step = tf.cast(step, tf.float32)
        value = tf.constant(self.base)
        for boundary, factor in zip(self.boundaries, self.factors, strict=True):
            value = tf.where(step >= boundary, self.base * factor, value)
        return value

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {"base": self.base, "boundaries": self.boundaries, "factor": self.factors}


Schedulable = float | int | Callable[[Any], Any]


def as_interval(value: Any) -> tf.Tensor:
    """A number of steps: rounded to int64 and never below 1."""
    if value.dtype.is_floating:
        value = tf.round(value)
    return tf.maximum(tf.cast(value, tf.int64), 1)
