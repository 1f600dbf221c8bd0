"""Preconditioning by explicit damped inverses, the baseline that SC20 compares with.

    V = (A + π √λ I)⁻¹ ∇W (G + √λ / π I)⁻¹,   π² = (tr A / dim A) / (tr G / dim G)

The damping is split between the factors (Martens & Grosse 2015, section 6.3) and is part of the
inverses: a new damping acts from the next inversion on.
"""

from __future__ import annotations

import tensorflow as tf

from tfkfac.plan import BLOCKS, DIAGONAL, IDENTITY, LayerPlan, Side
from tfkfac.structure import crop, multiply_columns, multiply_rows, pad


def damp(
    plan: LayerPlan, row_factor: tf.Tensor, column_factor: tf.Tensor | None, damping: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """A layer's factors with their share of the damping, in their own structure.

    Groups are layers of their own, each with its own π.
    """
    damping = tf.cast(damping, row_factor.dtype)
    if column_factor is None:
        return row_factor + damping, None
    row_mean = _mean_diagonal(row_factor, plan.rows)
    column_mean = _mean_diagonal(column_factor, plan.columns)
    positive = (row_mean > 0) & (column_mean > 0)
    safe = tf.where(positive, column_mean, tf.ones_like(column_mean))
    pi = tf.sqrt(tf.where(positive, row_mean / safe, tf.ones_like(row_mean)))
    root = tf.sqrt(damping)
    return (
        _shifted(row_factor, plan.rows, root * pi),
        _shifted(column_factor, plan.columns, root / pi),
    )


def _mean_diagonal(factor: tf.Tensor, side: Side) -> tf.Tensor:
    """Mean eigenvalue per group, [groups]."""
    diagonal = factor if side.structure == DIAGONAL else tf.linalg.diag_part(factor)
    return tf.reduce_sum(diagonal, axis=list(range(1, diagonal.shape.rank))) / side.size


def _shifted(factor: tf.Tensor, side: Side, shift: tf.Tensor) -> tf.Tensor:
    shift = tf.reshape(shift, [-1] + [1] * (factor.shape.rank - 1))
    return factor + (shift if side.structure == DIAGONAL else shift * _identity(factor))


def _identity(factor: tf.Tensor) -> tf.Tensor:
    return tf.broadcast_to(tf.eye(factor.shape[-1], dtype=factor.dtype), tf.shape(factor))


def invert(damped: tf.Tensor, side: Side) -> tf.Tensor:
    """Inverse of a damped factor; it undoes itself."""
    if side.structure == DIAGONAL:
        return 1.0 / damped
    return tf.linalg.cholesky_solve(tf.linalg.cholesky(damped), _identity(damped))


def precondition(
    matrix: tf.Tensor,
    plan: LayerPlan,
    row_inverse: tf.Tensor,
    column_inverse: tf.Tensor | None,
) -> tf.Tensor:
    """Preconditioned gradient, [groups, rows, columns] like `matrix`."""
    # Of a single group its axis is left out: plain matrix products.
    is_single = plan.groups == 1 and BLOCKS not in (plan.rows.structure, plan.columns.structure)
    if is_single:
        matrix, row_inverse = tf.squeeze(matrix, 0), tf.squeeze(row_inverse, 0)
        column_inverse = None if column_inverse is None else tf.squeeze(column_inverse, 0)
    result = pad(matrix, plan.rows, plan.columns)
    if plan.rows.structure == DIAGONAL:
        result *= tf.expand_dims(row_inverse, -1)
    else:
        result = multiply_rows(row_inverse, result, plan.rows, adjoint=False)
    if plan.columns.structure == DIAGONAL:
        result *= tf.expand_dims(column_inverse, -2)
    elif plan.columns.structure != IDENTITY:
        result = multiply_columns(result, column_inverse, plan.columns, adjoint=False)
    result = crop(result, plan.rows, plan.columns)
    return tf.expand_dims(result, 0) if is_single else result
