"""What each rank of `test_keras_2_ranks` runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tests.distributed.worker import make_model, train


def main(folder: Path) -> None:
    """Trains on this rank with this project's callbacks, and with Horovod's."""
    import horovod.keras as hvd_of_keras
    import horovod.tensorflow as hvd

    from tfkfac import KFAC
    from tfkfac.rank_callbacks import BroadcastVariables, MetricAverage

    hvd.init()
    rank, size = hvd.rank(), hvd.size()
    results: dict[str, Any] = {}
    for name in ("factor-wise", "layer-wise"):
        # Starting from weights of its own, which the broadcast replaces.
        model = make_model(rank, name)
        results[name], history = train(model, rank, size, [BroadcastVariables(), MetricAverage()])
        results[f"{name}: loss"] = history["loss"]

    # Horovod's broadcast comes after the first step: the ranks must start alike.
    model = make_model(0, "factor-wise")
    callbacks = [
        hvd_of_keras.callbacks.BroadcastGlobalVariablesCallback(0),
        hvd_of_keras.callbacks.MetricAverageCallback(),
    ]
    results["Horovod"], history = train(model, rank, size, callbacks)
    results["Horovod: loss"] = history["loss"]
    warmup = hvd_of_keras.callbacks.LearningRateWarmupCallback(0.05, warmup_epochs=1)
    _, history = train(model, rank, size, [warmup])
    results["Horovod: learning rate"] = history["lr"]

    try:
        hvd.DistributedOptimizer(KFAC())
    except TypeError as error:
        results["wrapped"] = str(error)
    np.savez(folder / f"rank{rank}.npz", **results)


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(1)
    main(Path(sys.argv[1]))
