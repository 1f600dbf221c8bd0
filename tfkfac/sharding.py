"""Each rank's part of the data, with the same number of steps on every rank.

A rank that has one batch more than the others would wait for them forever.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


def shard(data: Any, rank: int, size: int, remainder: str = "drop") -> Any:
    """Elements rank, rank + size, rank + 2 size, ... of `data`; as many on every rank.

    Shard before shuffling and batching; all ranks must see the data in the same order.

    Args:
        data: A `tf.data.Dataset` of single examples, an array with examples along its first axis,
            or a tuple, list or dict of such arrays.
        rank: This rank, as `hvd.rank()`.
        size: Number of ranks, as `hvd.size()`.
        remainder: What becomes of the last few examples that do not reach all ranks: `"drop"`, or
            `"repeat"`: the first examples again, so that every rank has one more.

    Returns:
        The same kind of data.

    Raises:
        ValueError: Arguments out of range, arrays of different lengths, fewer examples than ranks,
            or `"repeat"` for a dataset of unknown length.

    Example:

    >>> shard(np.arange(7), rank=1, size=3)
    array([1, 4])
    """
    if not 0 <= rank < size:
        raise ValueError(f"shard: rank must be in [0, {size}); got {rank}")
    if remainder not in ("drop", "repeat"):
        raise ValueError(f'shard: remainder must be "drop" or "repeat"; got {remainder!r}')
    if isinstance(data, tf.data.Dataset):
        return _shard_dataset(data, rank, size, remainder)
    arrays = tf.nest.flatten(data)
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1:
        raise ValueError(f"shard: arrays of different lengths {sorted(lengths)}")
    indices = np.arange(_length(lengths.pop(), size, remainder))[rank::size]
    return tf.nest.map_structure(lambda array: array[indices % len(array)], data)


def _length(length: int, size: int, remainder: str) -> int:
    if length < size:
        raise ValueError(f"shard: {length} examples for {size} ranks")
    return length // size * size if remainder == "drop" else -(-length // size) * size


def _shard_dataset(
    dataset: tf.data.Dataset, rank: int, size: int, remainder: str
) -> tf.data.Dataset:
    length = int(dataset.cardinality())
    if length == tf.data.INFINITE_CARDINALITY:
        return dataset.shard(size, rank)
    if length != tf.data.UNKNOWN_CARDINALITY:
        wanted = _length(length, size, remainder)
        return dataset.repeat(2).take(wanted).shard(size, rank)
    if remainder == "repeat":
        raise ValueError(
            'shard: remainder="repeat" needs a dataset of known length; '
            "apply tf.data.experimental.assert_cardinality"
        )
    # Whole rounds of `size` elements, whatever their shapes: a window ends up in none of the ranks
    # unless it is full.
    rounds = dataset.window(size, drop_remainder=True)

    def own(*window: Any) -> tf.data.Dataset:
        nested = window if len(window) > 1 else window[0]
        parts = [part.skip(rank).take(1) for part in tf.nest.flatten(nested)]
        packed = tf.nest.pack_sequence_as(nested, parts)
        return tf.data.Dataset.zip(packed) if isinstance(packed, (tuple, dict)) else packed

    return rounds.flat_map(own)
