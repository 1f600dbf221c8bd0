"""Kronecker factors A and G of one layer, from its uses in a training step.

With N examples, S output positions per example, input rows ā (a convolution's patches, in the
kernel's own order, with a 1 appended when the layer has a bias) and output gradients g of a loss
that is a mean over the batch (KFC of Grosse & Martens 2016, empirical Fisher):

    A = 1 / (N S²) Σ ā āᵀ        G = N S Σ g gᵀ        (sums over all N·S rows)

Several uses of one weight count as further positions: S is the sum over the uses. Both sums are
linear in the examples, so that averaging A and G over ranks equals one rank with the whole batch.

That takes gradients of different positions for unrelated (KFAC-expand of Eschenhagen et al. 2023).
Where a network averages over positions they are alike, and A ⊗ G can be too small by a factor of up
to S. For such networks there is KFAC-reduce: with b_n the mean of an example's ā over its positions
and h_n the sum of its g,

    A = 1 / N Σ_n b_n b_nᵀ        G = N Σ_n h_n h_nᵀ

It is exact for a linear layer in front of global average pooling, as KFAC-expand is for one whose
positions have losses of their own. Several uses of a weight stay further positions.

An embedding's input is one-hot, so its A is exactly diagonal. An elementwise parameter (scale and
shift of a normalisation layer) gets the exact diagonal of the empirical Fisher,
F = N Σ_n u_n² over the examples' gradients u_n.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfkfac.plan import BLOCKS, DIAGONAL, IDENTITY, LayerPlan, Side
from tfkfac.uses import ConvolutionUse, DenseUse, ElementwiseUse, EmbeddingUse, Use

Moments = list[tuple[tf.Tensor, tf.Tensor | None]]

# How positions that share a weight are taken.
EXPAND, REDUCE = "expand", "reduce"


def second_moments(
    plan: LayerPlan, uses: Sequence[Use], dtype: tf.DType, weight_sharing: str = EXPAND
) -> Moments:
    """Normalised second moments of rows and columns, one pair per orientation of use.

    There is one pair unless some uses multiply with the weight and others with its transpose (tied
    embeddings). All tensors are linear in the examples: average them over ranks, then `combine`.

    Args:
        plan: The layer.
        uses: Of its weight.
        dtype: Of the result.
        weight_sharing: `"expand"` or `"reduce"`. Embeddings and elementwise parameters, which are
            exact over positions, have no choice.
    """
    examples = uses[0].examples(dtype)
    if plan.columns.structure == IDENTITY:
        return [(examples * tf.add_n([_sums(plan, use, dtype)[0] for use in uses]), None)]
    reduced = weight_sharing == REDUCE and not any(isinstance(u, EmbeddingUse) for u in uses)
    if reduced:
        positions = tf.constant(len(uses), dtype)
    else:
        positions = tf.add_n([use.positions(dtype) for use in uses]) / examples
    of_input = 1.0 / (examples * tf.square(positions))
    of_gradient = examples * positions
    pairs = []
    for transposed in (False, True):
        chosen = [use for use in uses if use.transposed is transposed]
        if not chosen:
            continue
        sums = [_sums(plan, use, dtype, reduced) for use in chosen]
        rows, columns = [pair[0] for pair in sums], [pair[1] for pair in sums]
        row_scale, column_scale = (of_gradient, of_input) if transposed else (of_input, of_gradient)
        pairs.append((row_scale * tf.add_n(rows), column_scale * tf.add_n(columns)))
    return pairs


def combine(moments: Moments, rows: Side, columns: Side) -> tuple[tf.Tensor, tf.Tensor | None]:
    """The layer's two new factors from averaged `second_moments`.

    Pairs of opposite orientation are rescaled to equal traces of rows and columns, which leaves
    each Kronecker product alone, and added: (R₁ + R₂) ⊗ (C₁ + C₂) bounds R₁⊗C₁ + R₂⊗C₂.
    """
    if len(moments) == 1:
        return moments[0]
    balanced = []
    for row_moment, column_moment in moments:
        tiny = tf.constant(1e-30, row_moment.dtype)
        ratio = tf.sqrt((trace(column_moment, columns) + tiny) / (trace(row_moment, rows) + tiny))
        balanced.append((row_moment * ratio, column_moment / ratio))
    return tf.add_n([pair[0] for pair in balanced]), tf.add_n([pair[1] for pair in balanced])


def trace(factor: tf.Tensor, side: Side) -> tf.Tensor:
    """Sum of the diagonal over all groups."""
    if side.structure == DIAGONAL:
        return tf.reduce_sum(factor)
    return tf.reduce_sum(tf.linalg.trace(factor))


def _sums(
    plan: LayerPlan, use: Use, dtype: tf.DType, reduced: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Unnormalised second moments of one use's rows and columns.

    They are quadratic in the output gradient, and so in the scale on it.
    """
    rows, columns = (_reduced_sums if reduced else _unscaled_sums)(plan, use, dtype)
    if not use.multipliers:
        return rows, columns
    square = tf.square(use.scale(dtype))
    of_rows = use.transposed or isinstance(use, ElementwiseUse)
    return (rows * square, columns) if of_rows else (rows, columns * square)


def _unscaled_sums(plan: LayerPlan, use: Use, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
    has_bias = plan.bias is not None
    if isinstance(use, ElementwiseUse):
        squares = tf.reduce_sum(tf.square(use.per_example(dtype)), axis=0)
        return tf.expand_dims(squares, 0), squares
    if isinstance(use, EmbeddingUse):
        values = use.values(dtype)
        ones = tf.ones_like(use.indices(), dtype)
        counts = tf.math.unsorted_segment_sum(ones, use.indices(), use.contraction_shape[0])
        return tf.expand_dims(counts, 0), gram(values, plan.columns)
    if isinstance(use, DenseUse):
        rows, columns = use.rows.matrix(dtype), use.columns.matrix(dtype)
        if use.transposed:
            return gram(rows, plan.rows), gram(columns, plan.columns)
        return gram(rows, plan.rows, has_bias), gram(columns, plan.columns)
    assert isinstance(use, ConvolutionUse)
    return _patch_moments(plan, use, has_bias, dtype), _filter_moments(plan, use, dtype)


def _reduced_sums(plan: LayerPlan, use: Use, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
    """Of inputs averaged and output gradients summed over each example's positions."""
    sums = use.sums(plan.groups, dtype)
    assert sums is not None
    rows, columns = sums  # [N, groups, n]
    share = use.examples(dtype) / use.positions(dtype)
    if use.transposed:
        return _grouped_gram(rows, plan.rows), _grouped_gram(share * columns, plan.columns)
    rows *= share
    if plan.bias is not None:
        rows = tf.pad(rows, [(0, 0), (0, 0), (0, 1)], constant_values=1)
    return _grouped_gram(rows, plan.rows), _grouped_gram(columns, plan.columns)


def _grouped_gram(vectors: tf.Tensor, side: Side) -> tf.Tensor:
    """Second moments Σ v·vᵀ over N of vectors [N, groups, n] in the structure of `side`."""
    if side.structure == DIAGONAL:
        return tf.reduce_sum(tf.square(vectors), axis=0)
    if side.structure == BLOCKS:
        padding, groups = side.padded_size - side.size, vectors.shape[1]
        padded = tf.pad(vectors, [(0, 0), (0, 0), (0, padding)])
        blocks = tf.reshape(padded, [-1, groups, side.blocks, side.block_size])
        return tf.einsum("ngbi,ngbj->gbij", blocks, blocks)
    by_group = tf.transpose(vectors, [1, 0, 2])
    return tf.matmul(by_group, by_group, transpose_a=True)


def gram(matrix: tf.Tensor, side: Side, append_one: bool = False) -> tf.Tensor:
    """Second moment Σ row·rowᵀ of a matrix [M, n] in the structure of `side`, with one group.

    With `append_one`, of the rows with a 1 appended.
    """
    if side.structure == DIAGONAL:
        squares = tf.reduce_sum(tf.square(matrix), axis=0)
        if append_one:
            squares = tf.concat([squares, tf.reshape(_row_count(matrix), [1])], 0)
        return tf.expand_dims(squares, 0)
    if side.structure == BLOCKS:
        if append_one:
            matrix = tf.pad(matrix, [(0, 0), (0, 1)], constant_values=1)
        padding = side.padded_size - side.size
        blocks = tf.reshape(
            tf.pad(matrix, [(0, 0), (0, padding)]), [-1, side.blocks, side.block_size]
        )
        return tf.expand_dims(tf.einsum("mbi,mbj->bij", blocks, blocks), 0)
    moment = tf.expand_dims(tf.matmul(matrix, matrix, transpose_a=True), 0)
    if append_one:
        sums = tf.reduce_sum(matrix, axis=0, keepdims=True)
        moment = _with_bias(moment, sums, _row_count(matrix))
    return moment


def _row_count(matrix: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.shape(matrix)[0], matrix.dtype)


def _with_bias(moment: tf.Tensor, sums: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """[groups, n, n] to [groups, n + 1, n + 1], the last coordinate being constantly 1."""
    column = tf.expand_dims(sums, 2)
    count = tf.fill([moment.shape[0], 1, 1], count)
    bottom = tf.concat([tf.linalg.matrix_transpose(column), count], axis=2)
    return tf.concat([tf.concat([moment, column], axis=2), bottom], axis=1)


def _patch_moments(
    plan: LayerPlan, use: ConvolutionUse, has_bias: bool, dtype: tf.DType
) -> tf.Tensor:
    image, count = use.image(dtype), use.positions(dtype)
    if plan.rows.structure == DIAGONAL:
        squares = use.patch_sum(tf.square(image))
        if has_bias:
            squares = tf.concat([squares, tf.fill([plan.groups, 1], count)], axis=1)
        return squares
    moment = use.patch_second_moment(image)
    if has_bias:
        moment = _with_bias(moment, use.patch_sum(image), count)
    return diagonal_blocks(moment, plan.rows) if plan.rows.structure == BLOCKS else moment


def diagonal_blocks(factor: tf.Tensor, side: Side) -> tf.Tensor:
    """The diagonal blocks [groups, blocks, s, s] of dense factors [groups, n, n]."""
    padding = side.padded_size - side.size
    padded = tf.pad(factor, [(0, 0), (0, padding), (0, padding)])
    size = side.block_size
    blocks = [
        padded[:, i * size : (i + 1) * size, i * size : (i + 1) * size] for i in range(side.blocks)
    ]
    return tf.stack(blocks, axis=1)


def _filter_moments(plan: LayerPlan, use: ConvolutionUse, dtype: tf.DType) -> tf.Tensor:
    filters = use.filters(dtype)
    matrix = tf.reshape(filters, [-1, filters.shape[-1]])
    if plan.groups == 1:
        return gram(matrix, plan.columns)
    grouped = tf.reshape(matrix, [-1, plan.groups, plan.columns.size])
    if plan.columns.structure == DIAGONAL:
        return tf.reduce_sum(tf.square(grouped), axis=0)
    moment = tf.einsum("mgi,mgj->gij", grouped, grouped)
    return diagonal_blocks(moment, plan.columns) if plan.columns.structure == BLOCKS else moment
