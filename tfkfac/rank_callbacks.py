"""Keras callbacks for training on several Horovod ranks.

Horovod's own fail with Keras 3; with Keras 2 both work. The usual list, where all but the last are
on every rank:

    callbacks = [
        BroadcastVariables(),
        MetricAverage(),
        LearningRateWarmup(),
        keras.callbacks.EarlyStopping(monitor="val_loss"),
        AgreeToStop(),
        StallWatchdog(),
        *on_first_rank(keras.callbacks.ModelCheckpoint("best.keras")),
    ]
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfkfac.callbacks import find_kfac


class BroadcastVariables(keras.callbacks.Callback):
    """Gives every rank the model and optimizer state of rank 0 when training starts.

    Rank 0 alone may have been restored from a checkpoint.

    Raises:
        RuntimeError: Horovod is not initialised.
        ValueError: The step is compiled with XLA, which has no Horovod operations.
    """

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Broadcasts weights, optimizer variables and K-FAC's factors and bases."""
        hvd = require_horovod("BroadcastVariables")
        if self.model.jit_compile and hvd.size() > 1:
            raise ValueError(
                "XLA cannot compile Horovod's operations: compile the model with "
                "jit_compile=False to train it on several ranks"
            )
        optimizer = self.model.optimizer
        if not getattr(optimizer, "built", False):
            # Every rank must broadcast the same variables, whichever of them was restored.
            optimizer.build(self.model.trainable_variables)
        for variable in [*self.model.variables, *optimizer.variables]:
            variable.assign(hvd.broadcast(tf.convert_to_tensor(variable), root_rank=0))
        if isinstance(optimizer.learning_rate, tf.Variable):  # Keras 2 does not count it as one
            rate = tf.convert_to_tensor(optimizer.learning_rate)
            optimizer.learning_rate = hvd.broadcast(rate, root_rank=0)
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
    """Replaces each epoch's logs by their means over the ranks.

    Put it before the callbacks that use the logs, so that they decide alike on every rank.

    Raises:
        RuntimeError: Horovod is not initialised.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Averages `logs` in place."""
        hvd = require_horovod("MetricAverage")
        if not logs:
            return
        names = sorted(logs)
        values = np.array([float(logs[name]) for name in names])
        means = hvd.allreduce(tf.constant(values), name="kfac_metrics", op=hvd.Average).numpy()
        logs.update(zip(names, means.tolist(), strict=True))


class LearningRateWarmup(keras.callbacks.Callback):
    """Raises the learning rate along a line in the first epochs, batch by batch.

    Give the optimizer its final learning rate, usually that of one rank times the number of ranks
    (linear scaling rule: Goyal et al. 2017); it starts at 1/ranks of it.

    Args:
        epochs: Length of the warm-up.
        start: Fraction of the learning rate at the beginning, in [0, 1]; None for 1/ranks.
        steps_per_epoch: None to take what `fit` knows.

    Raises:
        TypeError: The learning rate is a schedule, which has its own course.
        ValueError: `start` is out of range, or nothing tells the steps in an epoch.
    """

    def __init__(
        self, epochs: float = 5, start: float | None = None, steps_per_epoch: int | None = None
    ):
        super().__init__()
        if start is not None and not 0 <= start <= 1:
            raise ValueError(f"LearningRateWarmup: start must be in [0, 1]; got {start}")
        self._epochs, self._start, self._steps = epochs, start, steps_per_epoch
        self._epoch = 0
        self._target: float | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Notes the final learning rate."""
        optimizer = self.model.optimizer
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        # Most optimizers keep a schedule in the first, those of tensorflow-addons in the second.
        rates = (getattr(inner, name, None) for name in ("_learning_rate", "learning_rate"))
        if any(isinstance(rate, _Schedule) for rate in rates):
            raise TypeError(
                "LearningRateWarmup: the learning rate follows a schedule; let the schedule warm up"
            )
        self._target = float(np.asarray(optimizer.learning_rate))
        if self._start is None:
            self._start = 1 / require_horovod("LearningRateWarmup").size()
        if self._steps is None:
            self._steps = self.params.get("steps")
        if not self._steps:
            raise ValueError("LearningRateWarmup: pass steps_per_epoch; the data have no length")

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Sets the learning rate of this batch."""
        assert self._target is not None and self._start is not None and self._steps
        passed = self._epoch + batch / self._steps
        if passed > self._epochs + 1 / self._steps:
            return
        progress = min(1.0, passed / self._epochs) if self._epochs else 1.0
        rate = self._target * (self._start + (1 - self._start) * progress)
        self.model.optimizer.learning_rate = rate


_Schedule = keras.optimizers.schedules.LearningRateSchedule


class AgreeToStop(keras.callbacks.Callback):
    """Stops every rank as soon as one of them wants to; without it the others would wait forever.

    Put it behind the callbacks that may stop the training.

    Args:
        every_batch: Agree after each batch, for callbacks such as `TerminateOnNaN`, at the price of
            one small exchange a batch; else after each epoch.

    Raises:
        RuntimeError: Horovod is not initialised.
    """

    def __init__(self, every_batch: bool = False):
        super().__init__()
        self._every_batch = every_batch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Agrees, if it was asked to do so after each batch."""
        if self._every_batch:
            self._agree()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Agrees."""
        self._agree()

    def _agree(self) -> None:
        hvd = require_horovod("AgreeToStop")
        wish = tf.constant(int(bool(self.model.stop_training)))
        if int(hvd.allreduce(wish, name="kfac_stop", op=hvd.Max)):
            self.model.stop_training = True


class StallWatchdog(keras.callbacks.Callback):
    """Ends this process when a batch does not end, because some rank stopped taking part in it.

    A rank that waits for another waits forever, and Horovod's own check does not see every case.
    The launcher (`horovodrun`, `mpirun`) then ends the other processes. The first batch, which is
    being traced, has as long as it needs.

    Args:
        seconds: Longest time of a batch; make it longer than anything a callback of another rank
            does between two batches, such as writing a checkpoint.
    """

    def __init__(self, seconds: float = 900):
        super().__init__()
        self._seconds = seconds
        self._timer: threading.Timer | None = None
        self._is_traced = False

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Starts the clock."""
        if self._is_traced:
            self._timer = threading.Timer(self._seconds, self._give_up, (batch,))
            self._timer.daemon = True
            self._timer.start()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stops the clock."""
        self._is_traced = True
        if self._timer is not None:
            self._timer.cancel()

    def _give_up(self, batch: int) -> None:
        hvd = sys.modules.get("horovod.tensorflow")
        rank = hvd.rank() if hvd is not None and hvd.is_initialized() else 0
        print(
            f"rank {rank} has stalled: batch {batch} did not end within {self._seconds:g} s, "
            "some rank does not take part in it; giving up",
            file=sys.stderr,
            flush=True,
        )
        # The main thread is inside an operation that no exception reaches.
        os._exit(1)


def on_first_rank(*callbacks: keras.callbacks.Callback) -> list[keras.callbacks.Callback]:
    """The callbacks on rank 0, none on the others: for checkpoints, logs and progress.

    Not for callbacks that change the training (early stopping, learning rates).

    Raises:
        RuntimeError: Horovod is not initialised.
    """
    return list(callbacks) if require_horovod("on_first_rank").rank() == 0 else []


def require_horovod(name: str) -> Any:
    """The module `horovod.tensorflow`, initialised.

    Raises:
        RuntimeError: It is not.
    """
    hvd = sys.modules.get("horovod.tensorflow")
    if hvd is None or not hvd.is_initialized():
        raise RuntimeError(
            f"{name}: import horovod.tensorflow as hvd and call hvd.init() before training"
        )
    return hvd
