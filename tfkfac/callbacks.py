"""Keras callbacks for K-FAC: hyperparameters by epoch, and TensorBoard scalars."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfkfac.optimizer import KFAC
from tfkfac.report import spectrum


def find_kfac(optimizer: Any) -> KFAC | None:
    """The KFAC in `optimizer`, which may be a `LossScaleOptimizer` around it, or None."""
    if isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer if isinstance(optimizer, KFAC) else None


class KFACParameterScheduler(keras.callbacks.Callback):
    """Sets damping and intervals at the start of each epoch, from their base values.

    Each argument maps an epoch (0, 1, ...) to a multiplier of the value given to the constructor of
    KFAC; multipliers never compound. Intervals are rounded and stay at least 1.

    Args:
        damping: Multiplier of the damping by epoch, or None.
        factor_interval: Likewise for the factor interval.
        eigen_interval: Likewise for the decomposition interval.

    Raises:
        TypeError: At the first epoch, when KFAC was given a schedule for one of them.

    Example:

    >>> scheduler = KFACParameterScheduler(damping=lambda epoch: 0.5 ** (epoch // 40))
    """

    def __init__(
        self,
        damping: Callable[[int], float] | None = None,
        factor_interval: Callable[[int], float] | None = None,
        eigen_interval: Callable[[int], float] | None = None,
    ):
        super().__init__()
        given = {
            "damping": damping,
            "factor_interval": factor_interval,
            "eigen_interval": eigen_interval,
        }
        self._multipliers = {name: value for name, value in given.items() if value is not None}

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Sets the values of this epoch."""
        optimizer = _require_kfac(self)
        for option, multiplier in self._multipliers.items():
            base = optimizer.base_values[option]
            if callable(base):
                raise TypeError(
                    f"KFACParameterScheduler: {option} follows the schedule given to KFAC's "
                    "constructor and cannot be multiplied"
                )
            setattr(optimizer, option, base * multiplier(epoch))


class KFACTensorBoard(keras.callbacks.Callback):
    """Writes K-FAC's scalars after each epoch.

    They are: KL clip, damping, intervals, updates that were not finite, skipped statistics, failed
    decompositions, and each layer's smallest and largest curvature eigenvalue.

    Args:
        log_dir: Folder for TensorBoard's event files.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    def __init__(self, log_dir: str):
        super().__init__()
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError("KFACTensorBoard: TensorBoard is missing: pip install tensorboard")
        self._writer = tf.summary.create_file_writer(str(log_dir))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the scalars."""
        optimizer = _require_kfac(self)
        report = optimizer.report()
        with self._writer.as_default(step=epoch):
            tf.summary.scalar("kfac/kl_clip", report.kl_clip)
            tf.summary.scalar("kfac/non_finite_updates", report.non_finite_steps)
            for option in ("damping", "factor interval", "eigen interval"):
                tf.summary.scalar(f"kfac/{option.replace(' ', '_')}", report.values[option])
            for counter in ("non_finite", "unused", "failed_decompositions"):
                total = sum(getattr(row, counter) for row in report.rows)
                tf.summary.scalar(f"kfac/{counter}", total)
            for state in optimizer.layers:
                low, high = spectrum(state)
                tf.summary.scalar(f"kfac/smallest_eigenvalue/{state.plan.name}", low)
                tf.summary.scalar(f"kfac/largest_eigenvalue/{state.plan.name}", high)
        self._writer.flush()


def _require_kfac(callback: keras.callbacks.Callback) -> KFAC:
    optimizer = find_kfac(callback.model.optimizer)
    if optimizer is None:
        raise ValueError(
            f"{type(callback).__name__} needs a model compiled with KFAC, not with "
            f"{type(callback.model.optimizer).__name__}"
        )
    return optimizer
