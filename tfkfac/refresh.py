"""Refreshing an eigenbasis by matrix products, spread over ranks, instead of decomposing anew.

A factor F changes little between two decompositions, and the old eigenvectors Q nearly diagonalise
it: M = Qᵀ F Q. One simultaneous Jacobi rotation of all pairs of columns,

    X_ij = M_ij (d_j - d_i) / ((d_j - d_i)² + 4 M_ij² + δ²),    d = diag M,
    Q ← Q (I + C + C²/2),    C = X - (QᵀQ - I)/2,

brings Q closer; the second term of C takes back the loss of orthogonality of earlier rounds. X is
antisymmetric, so that I + X + X²/2 is a rotation up to ¼|X|⁴; |X| is held below 1/2. δ leaves alone
what differs by less than the damping can see. New eigenvalues are the Rayleigh quotients of the new
columns: whatever Q, they are the best ones for it.

Each of p ranks computes n/p columns of every product: 12 n³/p operations a rank, and products are
what processors do fastest, while one eigendecomposition can occupy a single rank only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfkfac.eigen import Basis, clean

# Bound on the spectral norm of one rotation.
LARGEST_ROTATION = 0.5
# Share of the damping below which a difference of eigenvalues does not matter.
BLUR = 0.1
# Differences of eigenvalues that are rounding, in units of the largest.
ROUNDING = {tf.float32: 1e-5, tf.float64: 1e-13}
_POWER_ITERATIONS = 8

# From the columns [..., n, own] of several matrices to all columns [..., n, n] of each.
Gather = Callable[[Sequence[tf.Tensor], str], list[tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Refresh:
    """One factor's refresh.

    Attributes:
        factor: F, [..., n, n].
        vectors: The old eigenvectors, [..., n, n].
        first, count: The columns that this rank computes.
        blur: δ, [].
    """

    factor: tf.Tensor
    vectors: tf.Tensor
    first: int
    count: int
    blur: tf.Tensor

    def own(self, matrix: tf.Tensor) -> tf.Tensor:
        """This rank's columns of a matrix."""
        return matrix[..., self.first : self.first + self.count]


def refresh(tasks: Sequence[Refresh], gather: Gather) -> list[Basis]:
    """New bases of several factors, in three exchanges.

    Args:
        tasks: The factors.
        gather: Puts together the columns that the ranks computed.

    Returns:
        Bases in the order of `tasks`.
    """
    rotated, errors, quotients = [], [], []
    for task in tasks:
        vectors = task.vectors
        own = task.own(vectors)
        rotated.append(tf.matmul(vectors, tf.matmul(task.factor, own), transpose_a=True))
        identity = task.own(tf.eye(vectors.shape[-1], dtype=vectors.dtype))
        errors.append(tf.matmul(vectors, own, transpose_a=True) - identity)
        quotients.append(_diagonal(rotated[-1], task.first))
    diagonals = gather([tf.expand_dims(q, -2) for q in quotients], "quotients")
    changes = []
    for task, own_rotated, error, diagonal in zip(tasks, rotated, errors, diagonals, strict=True):
        values = tf.squeeze(diagonal, -2)
        difference = tf.expand_dims(task.own(values), -2) - tf.expand_dims(values, -1)
        noise = ROUNDING[values.dtype] * tf.reduce_max(tf.abs(values))
        scale = difference**2 + 4 * own_rotated**2 + task.blur**2 + noise**2
        # 0/0 where two eigenvalues are equal, and on the diagonal.
        rotation = tf.math.divide_no_nan(own_rotated * difference, scale)
        changes.append(rotation - error / 2)
    columns = []
    for task, change in zip(tasks, gather(changes, "rotations"), strict=True):
        bound = tf.minimum(LARGEST_ROTATION / tf.maximum(_norm(change), 1e-30), 1.0)
        change *= tf.cast(bound, change.dtype)
        own = task.own(change)
        own += tf.matmul(change, own) / 2
        columns.append(task.own(task.vectors) + tf.matmul(task.vectors, own))
    vectors = gather(columns, "vectors")
    own_values = [
        tf.reduce_sum(own * tf.matmul(task.factor, own), -2, keepdims=True)
        for task, own in zip(tasks, columns, strict=True)
    ]
    values = gather(own_values, "values")
    return [Basis(clean(tf.squeeze(v, -2)), q) for v, q in zip(values, vectors, strict=True)]


def _diagonal(columns: tf.Tensor, first: int) -> tf.Tensor:
    """Entries (first + j, j) of some columns of a matrix."""
    count = columns.shape[-1]
    return tf.linalg.diag_part(columns[..., first : first + count, :])


def _norm(matrix: tf.Tensor) -> tf.Tensor:
    """Spectral norm by power iteration on CᵀC, [..., 1, 1]; a little below the truth."""
    n = matrix.shape[-1]
    # Not orthogonal to anything in particular, and the same on every rank.
    vector = tf.cos(tf.range(n, dtype=matrix.dtype) ** 2)
    vector = tf.broadcast_to(tf.reshape(vector, [n, 1]), [*matrix.shape[:-1], 1])
    length = tf.ones([*matrix.shape[:-2], 1, 1], matrix.dtype)
    for _ in range(_POWER_ITERATIONS):
        vector /= tf.maximum(tf.norm(vector, axis=-2, keepdims=True), 1e-30)
        vector = tf.matmul(matrix, tf.matmul(matrix, vector), transpose_a=True)
        length = tf.norm(vector, axis=-2, keepdims=True)
    return tf.sqrt(length)
