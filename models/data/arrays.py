"""Images that fit into memory, prepared a whole batch at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from models.data.dataset import Shard, derived_key, epochs_from, shuffled
from models.data.generated import digest


class ArrayDataset:
    """A `Dataset` over arrays.

    Args:
        name: what error messages call it.
        x_train, x_test: images, N x height x width x channels, of any type.
        y_train, y_test: labels 0 ... classes - 1, shape N.
        classes: number of classes.
        prepare: from a batch of images as stored to float32 network inputs, for evaluation.
        augment: the same for training, with a random key as second argument; default: `prepare`.
    """

    def __init__(
        self,
        name: str,
        x_train: np.ndarray,
        y_train: np.ndarray,
        x_test: np.ndarray,
        y_test: np.ndarray,
        classes: int,
        prepare: Callable[[Any], Any],
        augment: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        height, width, channels = x_train.shape[1:]
        self.name = name
        self.input_shape: tuple[int, int, int] = (height, width, channels)
        self.classes = classes
        self.test_examples = len(x_test)
        self._training_examples = len(x_train)
        self._prepare = prepare
        self._augment = augment or (lambda images, key: prepare(images))
        with tf.device("cpu:0"):  # tf.data runs there: no copy through an accelerator
            self._train = tf.constant(x_train), tf.constant(y_train, tf.int32)
            self._test = tf.constant(x_test), tf.constant(y_test, tf.int32)

    def steps_per_epoch(self, batch_size: int, shard: Shard) -> int:
        return shard.steps(self._training_examples, batch_size, self.name)

    def training(
        self, batch_size: int, seed: int, first_epoch: int = 0, shard: Shard | None = None
    ) -> tf.data.Dataset:
        shard = shard or Shard()
        steps = self.steps_per_epoch(batch_size, shard)
        images, labels = self._train

        def batch(step: Any, chosen: Any, key: Any) -> Any:
            augmentation_key = derived_key(key, step * shard.size + shard.rank)
            return (
                self._augment(tf.gather(images, chosen), augmentation_key),
                tf.gather(labels, chosen),
            )

        def epoch(key: Any) -> tf.data.Dataset:
            order = shuffled(tf.range(self._training_examples), key)
            mine = order[shard.rank :: shard.size][: steps * batch_size]
            batches = tf.data.Dataset.from_tensor_slices(
                (tf.range(steps), tf.reshape(mine, [steps, batch_size]))
            )
            return batches.map(
                lambda step, chosen: batch(step, chosen, key), num_parallel_calls=tf.data.AUTOTUNE
            )

        return epochs_from(first_epoch, seed, epoch)

    def evaluation(self, batch_size: int, shard: Shard | None = None) -> tf.data.Dataset:
        shard = shard or Shard()
        images, labels = (part[shard.rank :: shard.size] for part in self._test)
        batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)
        return batches.map(
            lambda images, labels: (self._prepare(images), labels),
            num_parallel_calls=tf.data.AUTOTUNE,
        ).prefetch(tf.data.AUTOTUNE)

    def training_share(self) -> ArrayDataset:
        """The same with as many training examples in the test examples' place, the first ones."""
        share = copy.copy(self)
        share._test = images, labels = tuple(part[: self.test_examples] for part in self._train)
        share.test_examples = len(labels)
        return share

    def digest(self) -> str:
        """Of all examples."""
        parts = zip(("train", "test"), (self._train, self._test), strict=True)
        named = {
            f"{part} {kind}": array.numpy()
            for part, arrays in parts
            for kind, array in zip(("images", "labels"), arrays, strict=True)
        }
        return digest(named).tobytes().hex()
