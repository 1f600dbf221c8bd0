"""No sequence of n words twice in a hypothesis."""

from __future__ import annotations

import math

import tensorflow as tf


def block_repeated(scores: tf.Tensor, words: tf.Tensor, count: tf.Tensor, size: int) -> tf.Tensor:
    """Scores with -inf at the words that would complete an n-gram a second time.

    Args:
        scores: [rows, V].
        words: each row's hypothesis [rows, L], of which the first `count` words are there.
        count: int32 scalar.
        size: n.
    """
    length = tf.shape(words)[1]
    starts = tf.range(tf.maximum(length - size + 1, 0))
    # An n-gram that starts at i ends with word i + size - 1, which must be there already.
    repeated = tf.tile((starts + size <= count)[tf.newaxis], [tf.shape(words)[0], 1])
    for offset in range(size - 1):
        # The last size - 1 words, which the next word would follow.
        place = tf.maximum(count - (size - 1) + offset, 0)
        last = tf.gather(words, place[tf.newaxis], axis=1)  # rows x 1
        repeated &= tf.equal(tf.gather(words, starts + offset, axis=1), last)
    completing = tf.gather(words, starts + size - 1, axis=1)
    rows = tf.broadcast_to(tf.range(tf.shape(words)[0])[:, tf.newaxis], tf.shape(completing))
    infinity = tf.constant(math.inf, scores.dtype)
    return tf.tensor_scatter_nd_min(
        scores,
        tf.stack([rows, completing], axis=-1),
        tf.where(repeated, -infinity, infinity),
    )
