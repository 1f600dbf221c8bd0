"""What a training needs of a data set: epochs that depend on (seed, epoch, rank) and nothing else.

An epoch's order and its augmentation are drawn with stateless random numbers from the seed and the
epoch's number. A training that resumes at epoch k therefore sees what an uninterrupted one sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf

from tfkfac.errors import InputError

# Named, so that no platform's default generator changes an epoch.
RANDOM_ALGORITHM = "philox"


@dataclass(frozen=True)
class Shard:
    """One rank's share of the examples: every `size`-th, starting with the `rank`-th.

    Raises:
        ValueError: unless 0 <= rank < size.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank {self.rank} is not one of {self.size} ranks")

    def steps(self, examples: int, batch_size: int, name: str) -> int:
        """Full batches of `batch_size` examples that every rank has in an epoch.

        Raises:
            InputError: if there is not one full batch for each rank.
        """
        steps = examples // (batch_size * self.size)
        if steps == 0:
            raise InputError(
                f"{name}: {examples} training examples do not fill one batch of {batch_size} on "
                f"each of {self.size} ranks; use a smaller batch_size"
            )
        return steps


class Dataset(Protocol):
    """Labelled images, split into training and test examples."""

    name: str
    input_shape: tuple[int, int, int]  # height, width, channels
    classes: int
    test_examples: int

    def steps_per_epoch(self, batch_size: int, shard: Shard) -> int:
        """Batches of one epoch, the same number on every rank; a smaller last batch is dropped."""

    def training(
        self, batch_size: int, seed: int, first_epoch: int = 0, shard: Shard | None = None
    ) -> tf.data.Dataset:
        """Endless batches, `steps_per_epoch` for each epoch from `first_epoch` (0-based) on.

        Elements are (images: batch x height x width x channels float32, labels: batch int32).
        Without a shard there is one rank.
        """

    def evaluation(self, batch_size: int, shard: Shard | None = None) -> tf.data.Dataset:
        """This rank's share of the test examples, once, in order; the last batch may be smaller."""


def epochs_from(
    first_epoch: int, seed: int, make_epoch: Callable[[Any], tf.data.Dataset]
) -> tf.data.Dataset:
    """Chains the data sets of epochs `first_epoch`, `first_epoch` + 1, ... without end.

    `make_epoch` gets an epoch's key, an int64 tensor [seed, epoch], to draw all its randomness
    from.
    """
    numbers = tf.data.Dataset.counter(start=first_epoch, dtype=tf.int64)
    epochs = numbers.flat_map(
        lambda epoch: make_epoch(tf.stack([tf.constant(seed, tf.int64), epoch]))
    )
    options = tf.data.Options()
    options.deterministic = True
    return epochs.with_options(options).prefetch(tf.data.AUTOTUNE)


def shuffled(values: Any, key: Any) -> Any:
    """`values` in an order that depends on `key` alone: the same on every rank."""
    return tf.random.experimental.stateless_shuffle(values, key, alg=RANDOM_ALGORITHM)


def derived_key(key: Any, number: Any) -> Any:
    """An independent key for each number, such as a batch's or an example's."""
    return tf.random.experimental.stateless_fold_in(key, number, alg=RANDOM_ALGORITHM)
