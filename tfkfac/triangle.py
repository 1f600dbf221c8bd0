"""Symmetric matrices as one triangle, so that half of their entries travel between ranks.

The upper triangle of an n x n matrix is folded into a rectangle of ceil(n/2) x (n+1) numbers: row i
of it holds the i+1 entries of triangle row n-1-i (from its end), then the n-i entries of row i.
Slices and one `where` do it, without index lists as long as the matrix.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def folded_shape(n: int) -> tuple[int, int]:
    """Shape of the rectangle for order n."""
    return (n + 1) // 2, n + 1


def fold(matrix: tf.Tensor) -> tf.Tensor:
    """[..., n, n] symmetric to [..., ceil(n/2), n+1]; only the upper triangle is read."""
    n = matrix.shape[-1]
    half, _ = folded_shape(n)
    top = _pad_columns(matrix[..., :half, :], left=1, right=0)
    turned = tf.reverse(matrix[..., n - half :, :], axis=[-2, -1])
    return tf.where(_from_below(n), _pad_columns(turned, left=0, right=1), top)


def unfold(folded: tf.Tensor) -> tf.Tensor:
    """The symmetric matrix that `fold` was given."""
    n = folded.shape[-1] - 1
    half, _ = folded_shape(n)
    below = _from_below(n)
    zero = tf.zeros([], folded.dtype)
    top = tf.where(below, zero, folded)[..., 1:]
    turned = tf.reverse(tf.where(below, folded, zero)[..., :n], axis=[-2, -1])
    # An odd order's middle row is in both halves.
    upper = tf.concat([top, turned[..., half - (n - half) :, :]], axis=-2)
    diagonal = tf.linalg.diag_part(upper)
    return tf.linalg.set_diag(upper + tf.linalg.matrix_transpose(upper), diagonal)


def _from_below(n: int) -> np.ndarray:
    """[ceil(n/2), n+1]: where the rectangle holds the turned lower rows, column <= row."""
    half, width = folded_shape(n)
    return np.arange(width)[None, :] <= np.arange(half)[:, None]


def _pad_columns(matrix: tf.Tensor, left: int, right: int) -> tf.Tensor:
    return tf.pad(matrix, [(0, 0)] * (matrix.shape.rank - 1) + [(left, right)])
