"""Batch normalisation's statistics under several ranks."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class BatchNormAverage(keras.callbacks.Callback):
    """Gives every rank the mean of all ranks' moving statistics before each evaluation.

    Each rank gathers statistics of its own examples. Averaged, they stand for all examples, the
    ranks evaluate the same model, and a checkpoint of one rank is a checkpoint of all.
    """

    def on_test_begin(self, logs: Any = None) -> None:
        import horovod.tensorflow as hvd

        statistics = [
            variable
            for variable in self.model.non_trainable_variables
            if variable.dtype.startswith("float")  # seeds of random layers are whole numbers
        ]
        if not statistics:
            return
        means = hvd.grouped_allreduce(
            [tf.convert_to_tensor(variable) for variable in statistics],
            name="batch_norm_average",
            op=hvd.Average,
        )
        for variable, mean in zip(statistics, means, strict=True):
            variable.assign(mean)
