"""A rank of a job in which something goes wrong, as the first argument says."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf


class Fault(keras.callbacks.Callback):
    """What happens to rank 1 in the middle of the second epoch."""

    def __init__(self, fault: str):
        super().__init__()
        self._fault = fault
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if (self._epoch, batch) != (1, 1):
            return
        if self._fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fault == "raises":
            raise OSError("the data set went away")
        if self._fault == "stalls":
            time.sleep(3600)


class WantsToStop(keras.callbacks.Callback):
    """Had enough after one epoch."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.model.stop_training = True


def main(fault: str, folder: Path) -> None:
    """Trains two epochs of four steps; rank 0 saves after each."""
    import horovod.tensorflow as hvd

    from tfkfac import KFAC
    from tfkfac.rank_callbacks import (
        AgreeToStop,
        BroadcastVariables,
        StallWatchdog,
        on_first_rank,
    )

    if fault == "absent" and os.environ["HOROVOD_RANK"] == "1":
        time.sleep(3600)
    hvd.init()
    units = 3 + (hvd.rank() if fault == "different models" else 0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(units, activation="tanh"), keras.layers.Dense(1)]
    )
    options: dict[str, Any] = (
        {"damping": 0.1 * (1 + hvd.rank())} if fault == "different damping" else {}
    )
    model.compile(optimizer=KFAC(eigen_interval=2, factor_interval=2, **options), loss="mse")
    if fault == "wrapped":
        hvd.DistributedOptimizer(KFAC())
    generator = np.random.default_rng(hvd.rank())
    x = generator.normal(size=(32, 4)).astype(np.float32)
    callbacks = [] if fault == "different models" else [BroadcastVariables()]
    callbacks += [StallWatchdog(15)]
    callbacks += on_first_rank(keras.callbacks.ModelCheckpoint(folder / "last.keras"))
    if hvd.rank() == 1:
        callbacks.append(Fault(fault))
    if fault == "wants to stop":
        if hvd.rank() == 1:
            callbacks.append(WantsToStop())
        callbacks.append(AgreeToStop())
    history = model.fit(x, x[:, :1], batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
    print(f"rank {hvd.rank()} finished after {len(history.history['loss'])} epochs")


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(1)
    main(sys.argv[1], Path(sys.argv[2]))
