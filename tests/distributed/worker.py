"""What each rank of `test_two_ranks` runs: a short training on its half of every batch.

The same functions train in a single process on whole batches, for comparison.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkfac import KFAC

STEPS, BATCH = 20, 16


def make_model(seed: int) -> keras.Model:
    """Convolution, normalisation without batch statistics, and a classifier."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, padding="same"),
            keras.layers.LayerNormalization(),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    model.compile(
        optimizer=KFAC(learning_rate=0.05, damping=0.03, factor_interval=3, eigen_interval=6),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def make_data() -> tuple[np.ndarray, np.ndarray]:
    """All batches in order."""
    generator = np.random.default_rng(5)
    images = generator.normal(size=(STEPS * BATCH, 6, 6, 2)).astype(np.float32)
    return images, generator.integers(0, 3, STEPS * BATCH)


def share(array: np.ndarray, rank: int, size: int) -> np.ndarray:
    """A rank's part of every batch."""
    batches = array.reshape(STEPS, BATCH, *array.shape[1:])
    part = BATCH // size
    own = batches[:, rank * part : (rank + 1) * part]
    return own.reshape(-1, *array.shape[1:])


class WeightRecorder(keras.callbacks.Callback):
    """All weights after each step, [steps, parameters]."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[np.ndarray] = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.weights.append(np.concatenate([w.ravel() for w in self.model.get_weights()]))


def train(model: keras.Model, rank: int, size: int, callbacks: list) -> tuple:
    """Weights by step, and the epoch's logs."""
    images, labels = (share(array, rank, size) for array in make_data())
    recorder = WeightRecorder()
    history = model.fit(
        images,
        labels,
        batch_size=BATCH // size,
        shuffle=False,
        verbose=0,
        callbacks=[*callbacks, recorder],
    )
    return np.array(recorder.weights), history.history


def main(folder: Path) -> None:
    """Trains on this rank, starting from weights of its own that the broadcast replaces."""
    import horovod.tensorflow as hvd

    from tfkfac.callbacks import BroadcastVariables, MetricAverage

    hvd.init()
    model = make_model(seed=hvd.rank())
    weights, history = train(model, hvd.rank(), hvd.size(), [BroadcastVariables(), MetricAverage()])
    # A second training on top of the first: the state of rank 0 reaches a rank without any.
    late = make_model(seed=7 + hvd.rank())
    if hvd.rank() == 0:
        late.set_weights(model.get_weights())
        store: dict = {}
        model.optimizer.save_own_variables(store)
        late.optimizer.build(late.trainable_variables)
        late.optimizer.load_own_variables(store)
    continued, _ = train(late, hvd.rank(), hvd.size(), [BroadcastVariables()])
    np.savez(
        folder / f"rank{hvd.rank()}.npz",
        weights=weights,
        continued=continued,
        loss=history["loss"],
        accuracy=history["accuracy"],
    )


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(1)
    main(Path(sys.argv[1]))
