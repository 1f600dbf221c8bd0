"""Inverse-free preconditioning in the factors' eigenbases (Pauloski et al., SC20).

    V = Q_A [ (Q_Aᵀ ∇W Q_G) / (d_A d_Gᵀ + λ) ] Q_Gᵀ

No matrix is inverted, and the damping λ acts when the gradient is preconditioned: a new λ needs no
new decomposition. A and G stand for the row and the column factor.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tfkfac.plan import BLOCKS, DIAGONAL, IDENTITY, LayerPlan, Side
from tfkfac.structure import crop, multiply_columns, multiply_rows, pad

# Eigenvalues up to this are rounding noise of a singular factor.
SMALLEST_EIGENVALUE = 1e-10


@dataclasses.dataclass(frozen=True)
class Basis:
    """Eigenvalues [groups, n] and eigenvectors of one factor, None where it is diagonal.

    Block-diagonal factors hold [groups, blocks, s] and [groups, blocks, s, s]. A side without a
    factor has neither (its eigenvalues are 1).
    """

    values: tf.Tensor | None
    vectors: tf.Tensor | None


def decompose(factor: tf.Tensor, side: Side) -> Basis:
    """Eigendecomposition of a factor; eigenvalues of at most 1e-10 become 0."""
    if side.structure == DIAGONAL:
        return Basis(clean(factor), None)
    values, vectors = tf.linalg.eigh(factor)
    return Basis(clean(values), vectors)


def clean(values: tf.Tensor) -> tf.Tensor:
    """Eigenvalues with those of at most 1e-10 set to 0."""
    return tf.where(values > SMALLEST_EIGENVALUE, values, tf.zeros([], values.dtype))


def precondition(
    matrix: tf.Tensor, plan: LayerPlan, rows: Basis, columns: Basis, damping: tf.Tensor
) -> tf.Tensor:
    """Preconditioned gradient, [groups, rows, columns] like `matrix`."""
    # Of a single group its axis is left out: plain matrix products.
    is_single = plan.groups == 1 and BLOCKS not in (plan.rows.structure, plan.columns.structure)
    if is_single:
        matrix, rows, columns = tf.squeeze(matrix, 0), _squeezed(rows), _squeezed(columns)
    rotated = pad(matrix, plan.rows, plan.columns)
    rotated = _rotate(rotated, plan, rows, columns, into=True)
    curvature = tf.expand_dims(_values(rows, plan.rows), -1)
    if plan.columns.structure != IDENTITY:
        curvature *= tf.expand_dims(_values(columns, plan.columns), -2)
    rotated /= curvature + tf.cast(damping, matrix.dtype)
    result = crop(_rotate(rotated, plan, rows, columns, into=False), plan.rows, plan.columns)
    return tf.expand_dims(result, 0) if is_single else result


def _squeezed(basis: Basis) -> Basis:
    values, vectors = basis.values, basis.vectors
    return Basis(
        None if values is None else tf.squeeze(values, 0),
        None if vectors is None else tf.squeeze(vectors, 0),
    )


def _rotate(
    matrix: tf.Tensor, plan: LayerPlan, rows: Basis, columns: Basis, into: bool
) -> tf.Tensor:
    if rows.vectors is not None:
        matrix = multiply_rows(rows.vectors, matrix, plan.rows, adjoint=into)
    if columns.vectors is not None:
        matrix = multiply_columns(matrix, columns.vectors, plan.columns, adjoint=not into)
    return matrix


def _values(basis: Basis, side: Side) -> tf.Tensor:
    assert basis.values is not None
    if side.structure == BLOCKS:
        return tf.reshape(basis.values, [-1, side.padded_size])
    return basis.values
