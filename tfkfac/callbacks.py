"""Keras callbacks for K-FAC: hyperparameters by epoch, TensorBoard scalars, several ranks."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfkfac.optimizer import KFAC
from tfkfac.report import spectrum


def find_kfac(optimizer: Any) -> KFAC | None:
    """The KFAC in `optimizer`, which may be a `LossScaleOptimizer` around it, or None."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
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


class BroadcastVariables(keras.callbacks.Callback):
    """Gives every Horovod rank the model and optimizer state of rank 0 when training starts.

    Raises:
        RuntimeError: Horovod is not initialised.
    """

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Broadcasts weights, optimizer variables and K-FAC's factors and bases."""
        hvd = _require_horovod("BroadcastVariables")
        optimizer = self.model.optimizer
        if not optimizer.built:
            # Every rank must broadcast the same variables, whichever of them was restored.
            optimizer.build(self.model.trainable_variables)
        for variable in [*self.model.variables, *optimizer.variables]:
            variable.assign(hvd.broadcast(tf.convert_to_tensor(variable), root_rank=0))
        kfac = find_kfac(optimizer)
        if kfac is not None:
            # Factors exist only where a step was taken or a checkpoint loaded: the other ranks
            # learn the layer plans together with the values.
            store: dict[str, Any] = {}
            if hvd.rank() == 0:
                kfac.save_own_variables(store)
            store = hvd.broadcast_object(store, root_rank=0)
            if hvd.rank() != 0:
                kfac.load_own_variables(store)


class MetricAverage(keras.callbacks.Callback):
    """Replaces each epoch's logs by their means over Horovod's ranks.

    Put it before the callbacks that use the logs.

    Raises:
        RuntimeError: Horovod is not initialised.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Averages `logs` in place."""
        hvd = _require_horovod("MetricAverage")
        if not logs:
            return
        names = sorted(logs)
        values = np.array([float(logs[name]) for name in names])
        means = hvd.allreduce(tf.constant(values), name="kfac_metrics", op=hvd.Average).numpy()
        logs.update(zip(names, means.tolist(), strict=True))


def _require_kfac(callback: keras.callbacks.Callback) -> KFAC:
    optimizer = find_kfac(callback.model.optimizer)
    if optimizer is None:
        raise ValueError(
            f"{type(callback).__name__} needs a model compiled with KFAC, not with "
            f"{type(callback.model.optimizer).__name__}"
        )
    return optimizer


def _require_horovod(name: str) -> Any:
    hvd = sys.modules.get("horovod.tensorflow")
    if hvd is None or not hvd.is_initialized():
        raise RuntimeError(
            f"{name}: import horovod.tensorflow as hvd and call hvd.init() before training"
        )
    return hvd
