"""Products with a Kronecker factor's basis, whatever the factor's structure.

A gradient is [groups, rows, columns]. The functions here multiply it from the row side or from the
column side by matrices stored per block, without ever forming a padded or dense factor.
"""

from __future__ import annotations

import tensorflow as tf

from tfkfac.plan import BLOCKS, LayerPlan, Side


def to_matrix(plan: LayerPlan, weight: tf.Tensor, bias: tf.Tensor | None) -> tf.Tensor:
    """Gradients of a weight and its bias as [groups, rows, columns]; the bias is the last row."""
    for step in reversed(plan.steps):
        if step[0] == "reshape":
            weight = tf.reshape(weight, step[1])
        else:
            weight = tf.transpose(weight, _inverse(step[1]))
    columns = plan.columns.size
    if plan.groups > 1:
        weight = tf.transpose(tf.reshape(weight, [-1, plan.groups, columns]), [1, 0, 2])
    else:
        weight = tf.reshape(weight, [1, -1, columns])
    if bias is None:
        return weight
    return tf.concat([weight, tf.reshape(bias, [plan.groups, 1, columns])], axis=1)


def from_matrix(
    plan: LayerPlan, matrix: tf.Tensor, bias_shape: tuple[int, ...] | None
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """The inverse of `to_matrix`."""
    bias = None
    if plan.bias is not None:
        matrix, bias_row = tf.split(matrix, [plan.rows.size - 1, 1], axis=1)
        bias = tf.reshape(bias_row, bias_shape)
    if plan.groups > 1:
        matrix = tf.transpose(matrix, [1, 0, 2])
    weight = tf.reshape(matrix, plan.contraction_shape)
    for step in plan.steps:
        if step[0] == "reshape":
            weight = tf.reshape(weight, step[2])
        else:
            weight = tf.transpose(weight, step[1])
    return weight, bias


def _inverse(permutation: tuple[int, ...]) -> list[int]:
    return sorted(range(len(permutation)), key=permutation.__getitem__)


def multiply_rows(basis: tf.Tensor, matrix: tf.Tensor, side: Side, adjoint: bool) -> tf.Tensor:
    """basis · matrix (or basisᵀ · matrix) for [groups, rows, columns] or [rows, columns].

    A block-diagonal side works on [groups, padded rows, columns]; `pad_rows` and slicing lead in
    and out.
    """
    if side.structure != BLOCKS:
        return tf.matmul(basis, matrix, transpose_a=adjoint)
    groups, _, columns = matrix.shape
    blocks = tf.reshape(matrix, [groups, side.blocks, side.block_size, columns])
    product = tf.matmul(basis, blocks, transpose_a=adjoint)
    return tf.reshape(product, [groups, side.padded_size, columns])


def multiply_columns(matrix: tf.Tensor, basis: tf.Tensor, side: Side, adjoint: bool) -> tf.Tensor:
    """matrix · basis (or matrix · basisᵀ) for [groups, rows, columns] or [rows, columns]."""
    if side.structure != BLOCKS:
        return tf.matmul(matrix, basis, transpose_b=adjoint)
    flipped = tf.linalg.matrix_transpose(matrix)
    return tf.linalg.matrix_transpose(multiply_rows(basis, flipped, side, not adjoint))


def pad(matrix: tf.Tensor, rows: Side, columns: Side) -> tf.Tensor:
    """Pads both sides to whole blocks."""
    row_padding, column_padding = rows.padded_size - rows.size, columns.padded_size - columns.size
    if not row_padding and not column_padding:
        return matrix
    return tf.pad(matrix, [(0, 0), (0, row_padding), (0, column_padding)])


def crop(matrix: tf.Tensor, rows: Side, columns: Side) -> tf.Tensor:
    """Undoes `pad`."""
    if rows.padded_size == rows.size and columns.padded_size == columns.size:
        return matrix
    return matrix[:, : rows.size, : columns.size]
