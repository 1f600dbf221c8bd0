"""What each rank of `test_ranks` runs: short trainings on its part of every batch.

The same functions train in a single process on whole batches, for comparison.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfkfac import KFAC

STEPS, BATCH = 20, 16
# Several factor and decomposition steps; the checkpoint falls between two of both.
INTERVALS: dict[str, Any] = {"factor_interval": 3, "eigen_interval": 6}
CHECKPOINT_STEP = 11

# Settings by name.
SETTINGS: dict[str, dict[str, Any]] = {
    "factor-wise": {},
    "layer-wise": {"placement": "layer-wise"},
    "hybrid": {"placement": "hybrid", "gradient_worker_fraction": 0.5},
    "memory": {"placement": "layer-wise", "balance": "memory"},
    "inverse": {"method": "inverse"},
    "inverse, layer-wise": {"method": "inverse", "placement": "layer-wise"},
    # Equal eigenvalues have no eigenvectors of their own, and a refreshed basis depends on those
    # that it began with: no identity to start from, and no layer normalisation, see `make_model`.
    "refresh": {"refresh_above": 4, "debias": True},
    "refresh, hybrid": {"refresh_above": 4, "debias": True, "placement": "hybrid"},
    "refresh left out": {"debias": True},
    "half": {"gradient_compression": "float16", "factor_compression": "float16"},
    # One layer for all ranks: some have nothing to decompose and nothing to precondition.
    "one layer": {},
    "one layer, hybrid": {"placement": "hybrid"},
}
# What is trained on how many ranks. Several placements on four leave a rank without work.
SCENARIOS = {
    4: ["factor-wise", "layer-wise", "hybrid", "inverse, layer-wise", "refresh, hybrid"]
    + ["one layer, hybrid"],
    2: ["factor-wise", "layer-wise", "hybrid", "memory", "refresh", "half"],
}


def make_model(seed: int, name: str) -> keras.Model:
    """A convolution, normalisation without batch statistics, and dense layers; or one of these."""
    keras.utils.set_random_seed(seed)
    dtype = precision(name)
    # Channels that sum to zero would make several eigenvalues zero.
    normalization = [] if name.startswith("refresh") else [keras.layers.LayerNormalization()]
    layers = [
        keras.layers.Conv2D(4, 3, strides=2, dtype=dtype),
        *normalization,
        keras.layers.Flatten(dtype=dtype),
        keras.layers.Dense(5, activation="tanh", dtype=dtype),
    ]
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2), dtype=dtype),
            *([keras.layers.Flatten()] if name.startswith("one layer") else layers),
            keras.layers.Dense(3, dtype=dtype),
        ]
    )
    # Keras 2 computes losses in the precision of the predictions, and has no such argument.
    wide = {"dtype": dtype} if dtype == "float64" else {}
    model.compile(
        optimizer=KFAC(learning_rate=0.05, damping=0.03, **INTERVALS, **SETTINGS[name]),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, **wide),
        metrics=["accuracy"],
    )
    return model


def precision(name: str) -> str:
    """Of the model. Refreshed bases are compared without rounding, which they amplify."""
    return "float64" if name.startswith("refresh") else "float32"


def make_data() -> tuple[np.ndarray, np.ndarray]:
    """All batches in order."""
    generator = np.random.default_rng(5)
    images = generator.normal(size=(STEPS * BATCH, 6, 6, 2)).astype(np.float32)
    return images, generator.integers(0, 3, STEPS * BATCH)


def share(array: np.ndarray, rank: int, size: int, first: int) -> np.ndarray:
    """A rank's part of every batch from step `first` on."""
    batches = array.reshape(STEPS, BATCH, *array.shape[1:])[first:]
    part = BATCH // size
    own = batches[:, rank * part : (rank + 1) * part]
    return own.reshape(-1, *array.shape[1:])


class Recorder(keras.callbacks.Callback):
    """All weights after each step, [steps, parameters], and a checkpoint on the way."""

    def __init__(self, checkpoint: Path | None) -> None:
        super().__init__()
        self.weights: list[np.ndarray] = []
        self._checkpoint = checkpoint

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.weights.append(np.concatenate([w.ravel() for w in self.model.get_weights()]))
        if self._checkpoint is not None and batch + 1 == CHECKPOINT_STEP:
            self.model.save(self._checkpoint)


def train(
    model: keras.Model,
    rank: int,
    size: int,
    callbacks: list,
    first: int = 0,
    checkpoint: Path | None = None,
) -> tuple[np.ndarray, dict]:
    """Weights by step, and the epoch's logs."""
    images, labels = (share(array, rank, size, first) for array in make_data())
    recorder = Recorder(checkpoint)
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

    from tfkfac.rank_callbacks import BroadcastVariables, MetricAverage

    hvd.init()
    rank, size = hvd.rank(), hvd.size()
    results: dict[str, Any] = {}
    for name in SCENARIOS[size]:
        model = make_model(rank, name)
        checkpoint = folder / f"{name}.keras" if rank == 0 else None
        callbacks = [BroadcastVariables(), MetricAverage()]
        weights, history = train(model, rank, size, callbacks, checkpoint=checkpoint)
        results[name] = weights
        results[f"{name}: loss"] = history["loss"]
        results[f"{name}: accuracy"] = history["accuracy"]
        layers = model.optimizer.layers
        results[f"{name}: decompositions"] = [int(s.counters.numpy()[4]) for s in layers]
        results[f"{name}: memory"] = model.optimizer.report().memory
    # Checkpoints of an earlier launch, on another number of ranks: rank 0 loads them, and the
    # others, which have the optimizer's settings, learn its state by broadcast.
    for checkpoint in sorted((folder / "earlier").glob("*.keras")):
        model = make_model(7 + rank, checkpoint.stem)
        if rank == 0:
            model = keras.models.load_model(checkpoint)
        weights, _ = train(model, rank, size, [BroadcastVariables()], CHECKPOINT_STEP)
        results[f"resumed {checkpoint.stem}"] = weights
    np.savez(folder / f"rank{rank}.npz", **results)


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(1)
    main(Path(sys.argv[1]))
