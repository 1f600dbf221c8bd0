"""The best few of very many words."""

from __future__ import annotations

import math

import tensorflow as tf


def best_words(scores: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The largest scores of each row and their ids, as `tf.math.top_k` gives them, but faster.

    The vocabulary is cut into blocks. The `count` best words are among those of the `count` blocks
    with the largest maxima, and maxima are quick to find.

    Args:
        scores: [rows, V].
        count: at most V.

    Returns:
        Scores and int32 ids [rows, count], best first; of equal scores the lower id comes first.
    """
    vocabulary = scores.shape[-1]
    size = _block_size(vocabulary)
    blocks = -(-vocabulary // size)
    if blocks < 4 * count:
        return tf.math.top_k(scores, count)
    padding = blocks * size - vocabulary
    if padding:
        scores = tf.pad(scores, [(0, 0), (0, padding)], constant_values=-math.inf)
    blocked = tf.reshape(scores, [-1, blocks, size])
    _, chosen = tf.math.top_k(tf.reduce_max(blocked, axis=-1), count)
    chosen = tf.sort(chosen, axis=-1)  # so that the lower id still comes first
    candidates = tf.reshape(tf.gather(blocked, chosen, batch_dims=1), [-1, count * size])
    best, places = tf.math.top_k(candidates, count)
    return best, tf.gather(chosen, places // size, batch_dims=1) * size + places % size


def _block_size(vocabulary: int) -> int:
    """About the square root, and a divisor, which saves a copy, if there is one nearby."""
    root = math.isqrt(vocabulary)
    nearby = range(max(1, root // 2), 2 * root + 1)
    divisors = [size for size in nearby if vocabulary % size == 0]
    return min(divisors or [root], key=lambda size: abs(size - root))
