"""Which operation is which layer's contraction: the patterns of `statistics`, one for each.

A pattern is given a tensor of a gradient and what was looked through to reach it. It answers with
the use of the weight, several uses with the steps that arrange them, the reason (a text) why it
cannot tell, or None for an operation that is no contraction.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

from tfkfac import gradient_graph as graph
from tfkfac.gradient_terms import Leaf, Step, scalar_multiple, static_shape
from tfkfac.uses import (
    ConvolutionUse,
    DenseUse,
    DepthwiseUse,
    EmbeddingUse,
    Geometry,
    Multipliers,
    Operand,
    Use,
)


@dataclasses.dataclass(frozen=True)
class Match:
    """What was found for one variable: its uses, or the reason why there are none.

    Attributes:
        uses: Uses of one kind (dense and embedding uses may be mixed: tied embeddings).
        steps: Reshapes and transpositions from the contraction to the variable's gradient.
        reason: Why the variable is not matched; empty when it is.
    """

    uses: tuple[Use, ...] = ()
    steps: tuple[Step, ...] = ()
    reason: str = ""


Found = Use | Match | str | None


def _matmul(tensor: tf.Tensor, leaf: Leaf) -> Found:
    op = tensor.op
    rows_tensor, columns_tensor = map(graph.outside, op.inputs)
    rows, columns = tensor.shape.as_list()
    if rows is None:
        rows = rows_tensor.shape[1 if op.get_attr("transpose_a") else 0]
    if columns is None:
        columns = columns_tensor.shape[0 if op.get_attr("transpose_b") else 1]
    if rows is None:
        # tf.tensordot hides the size of the contracted axis behind a dynamic reshape.
        rows = _size_before_reshape(rows_tensor)
    if rows is None or columns is None:
        return "its matrix product has an unknown size"
    return DenseUse(
        Operand(rows_tensor, rows, None if op.get_attr("transpose_a") else (1, 0)),
        Operand(columns_tensor, columns, (1, 0) if op.get_attr("transpose_b") else None),
        leaf.multipliers,
    )


def _size_before_reshape(tensor: tf.Tensor) -> int | None:
    return graph.skip_shapes(tensor).shape[-1] if graph.skip_shapes(tensor).shape.rank else None


def _sum_of_products(tensor: tf.Tensor, leaf: Leaf) -> Found:
    """`Sum` over the batch axes of a `BatchMatMulV2`: EinsumDense, attention projections."""
    product = graph.skip_transparent(tensor.op.inputs[0])
    if not graph.is_symbolic(product) or product.op.type not in ("BatchMatMulV2", "BatchMatMul"):
        return None
    op = product.op
    rows, columns = product.shape[-2], product.shape[-1]
    if rows is None or columns is None:
        return "its matrix product has an unknown size"
    rank = product.shape.rank
    swap = (*range(rank - 2), rank - 1, rank - 2)
    return DenseUse(
        Operand(graph.outside(op.inputs[0]), rows, None if op.get_attr("adj_x") else swap),
        Operand(graph.outside(op.inputs[1]), columns, swap if op.get_attr("adj_y") else None),
        leaf.multipliers,
    )


def _einsum(tensor: tf.Tensor, leaf: Leaf) -> Found:
    """A two-operand einsum whose result is an outer product summed over the shared labels."""
    op = tensor.op
    equation = op.get_attr("equation")
    equation = equation.decode() if isinstance(equation, bytes) else equation
    operands, result = equation.split("->")
    labels = operands.split(",")
    if len(labels) != 2 or "." in equation:
        return f"no pattern for the einsum {equation}"
    summed = [label for label in labels[0] if label in labels[1] and label not in result]
    own = [[label for label in result if label in part] for part in labels]
    if any(label in labels[0] and label in labels[1] for label in result):
        return f"no pattern for the einsum {equation}, which keeps a shared axis"
    sides, own_shapes = [], []
    for index in (0, 1):
        source = graph.outside(op.inputs[index])
        order = tuple(labels[index].index(label) for label in (*summed, *own[index]))
        dimensions = [source.shape[labels[index].index(label)] for label in own[index]]
        if None in dimensions or len(order) != len(labels[index]):
            return f"no pattern for the einsum {equation} with unknown sizes"
        permutation = None if order == tuple(range(len(order))) else order
        sides.append(Operand(source, math.prod(dimensions), permutation))
        own_shapes.append(dimensions)
    # Rows are what comes first in the result; where the operands' axes interleave there, the
    # contraction [rows, columns] is spread out and transposed.
    first = 0 if result and result[0] in labels[0] else 1
    rows, columns = sides[first], sides[1 - first]
    spread = (*own[first], *own[1 - first])
    shape = (*own_shapes[first], *own_shapes[1 - first])
    steps = [
        ("reshape", (rows.size, columns.size), shape),
        ("transpose", tuple(spread.index(label) for label in result)),
    ]
    if spread == tuple(result):
        steps.pop()
    use = DenseUse(rows, columns, leaf.multipliers)
    return Match((use,), (*steps, *leaf.steps))


def _convolution(tensor: tf.Tensor, leaf: Leaf, depthwise: bool = False) -> Found:
    op = tensor.op
    return _convolution_use(
        op,
        static_shape(tensor.shape),
        graph.outside(op.inputs[0]),
        graph.outside(op.inputs[2]),
        leaf.multipliers,
        depthwise,
    )


def _depthwise(tensor: tf.Tensor, leaf: Leaf) -> Found:
    return _convolution(tensor, leaf, depthwise=True)


def _convolution_use(
    op: tf.Operation,
    kernel_shape: tuple[int, ...] | None,
    image: tf.Tensor,
    filters: tf.Tensor,
    multipliers: Multipliers,
    depthwise: bool,
) -> Found:
    if kernel_shape is None:
        return "its convolution's kernel has an unknown shape"
    data_format = op.get_attr("data_format").decode()
    channels_first = data_format.startswith("NC")
    spatial = slice(2, None) if channels_first else slice(1, -1)
    rank = len(kernel_shape) - 2
    strides = tuple(op.get_attr("strides"))[spatial]
    dilations = tuple(op.get_attr("dilations"))[spatial]
    padding = op.get_attr("padding").decode()
    if padding == "EXPLICIT":
        flat = op.get_attr("explicit_paddings")
        pairs = tuple(zip(flat[::2], flat[1::2], strict=True))
        padding = pairs[spatial]
    kernel_size = kernel_shape[:rank]
    space_to_batch = None
    dilated = _before_space_to_batch(image, rank)
    if dilated is not None:
        image, block, paddings = dilated
        undone = _before_space_to_batch(filters, rank)
        if undone is None:
            return "its dilated convolution has an unknown form"
        filters = undone[0]
        dilations = block
        outputs = static_shape(filters.shape[1:-1])
        if outputs is None:
            outputs = tf.shape(filters)[1:-1]
        space_to_batch = (paddings, outputs)
    channels = image.shape[1 if channels_first else -1]
    if channels is None:
        return "its convolution has an unknown number of channels"
    groups = channels if depthwise else channels // kernel_shape[-2]
    geometry = Geometry(
        kernel_size, strides, dilations, padding, groups, channels_first, space_to_batch
    )
    kind = DepthwiseUse if depthwise else ConvolutionUse
    return kind(image, filters, geometry, kernel_shape, multipliers)


def _before_space_to_batch(
    tensor: tf.Tensor, rank: int
) -> tuple[tf.Tensor, tuple[int, ...], tf.Tensor] | None:
    """Undoes the `SpaceToBatchND` by which TensorFlow dilates a convolution.

    Returns (image, block shape, paddings) with `rank` spatial dimensions, or None.
    """
    inner = graph.skip_transparent(tensor)
    expanded = False
    while graph.is_symbolic(inner) and graph.is_reshaping(inner.op):
        inner = graph.skip_transparent(inner.op.inputs[0])
        expanded = True
    if not graph.is_symbolic(inner) or inner.op.type != "SpaceToBatchND":
        return None
    sizes = graph.static_value(inner.op.inputs[1])
    if sizes is None:
        return None
    image, paddings = graph.outside(inner.op.inputs[0]), graph.outside(inner.op.inputs[2])
    block = tuple(int(size) for size in sizes)
    if expanded:  # a 1-D convolution runs as a 2-D one of height 1
        image = tf.expand_dims(image, 1)
        block = (1, *block)
        paddings = tf.concat([[[0, 0]], tf.cast(paddings, tf.int32)], axis=0)
    return (image, block, paddings) if len(block) == rank else None


def _function_call(tensor: tf.Tensor, leaf: Leaf) -> Found:
    """A contraction inside a called function whose operands are the call's own inputs.

    Keras computes grouped convolutions in such a function.
    """
    op = tensor.op
    body = graph.function_body(op)
    if body is None:
        return None
    inner = _skip_inside(body.outputs[tensor.value_index])
    if inner.op.type not in ("Conv2DBackpropFilter", "Conv3DBackpropFilterV2"):
        # Keras 2 computes recurrent layers in such a function, which cuDNN may replace.
        return OPAQUE.get(inner.op.type, "inside a called function")
    operands = []
    for operand in (inner.op.inputs[0], inner.op.inputs[2]):
        source = _skip_inside(operand)
        position = next((i for i, given in enumerate(body.inputs) if given is source), None)
        if position is None:
            return "inside a called function"
        outer = graph.outside(op.inputs[position])
        # A 1-D convolution runs as a 2-D one of height 1.
        operands.append(
            outer if outer.shape.rank == operand.shape.rank else tf.expand_dims(outer, 1)
        )
    image, filters = operands
    shape = static_shape(inner.shape)
    return _convolution_use(inner.op, shape, image, filters, leaf.multipliers, depthwise=False)


def _skip_inside(tensor: tf.Tensor) -> tf.Tensor:
    """Looks through what leaves the elements alone, within one function."""
    while tensor.op.type in ("Identity", "Cast") or graph.is_reshaping(tensor.op):
        tensor = tensor.op.inputs[0]
    return tensor


def _segment_sum(tensor: tf.Tensor, leaf: Leaf) -> Found:
    """A densified `IndexedSlices`: an embedding that shares its weight with another use."""
    values, indices = map(graph.outside, tensor.op.inputs[:2])
    if tensor.shape.rank != 2:
        return "its embedding has an unknown size"
    segments = graph.static_value(tensor.op.inputs[2])
    rows = tensor.shape[0] if segments is None else int(segments)
    columns = tensor.shape[1]
    if rows is None or columns is None:
        return "its embedding has an unknown size"
    match = match_slices(values, indices, (rows, columns), leaf.multipliers)
    return match.reason or Match(match.uses, leaf.steps)


PATTERNS: dict[str, Callable[[tf.Tensor, Leaf], Found]] = {
    "MatMul": _matmul,
    "Sum": _sum_of_products,
    "Einsum": _einsum,
    "Conv2DBackpropFilter": _convolution,
    "Conv3DBackpropFilterV2": _convolution,
    "DepthwiseConv2dNativeBackpropFilter": _depthwise,
    "PartitionedCall": _function_call,
    "StatefulPartitionedCall": _function_call,
    "UnsortedSegmentSum": _segment_sum,
}


def match_slices(
    values: tf.Tensor, indices: tf.Tensor, shape: tuple[int, ...], multipliers: Multipliers
) -> Match:
    """An embedding's gradient; several lookups of one table arrive concatenated."""
    if len(shape) != 2:
        return Match(reason="its rows are looked up, and it is not a matrix")
    leaf = Leaf(values, (), multipliers)
    values = graph.skip_transparent(values)
    while graph.is_symbolic(values) and values.op.type in ("Mul", "RealDiv"):
        scaled = scalar_multiple(values.op)
        if scaled is None:
            break
        leaf = Leaf(scaled[0], (), (*leaf.multipliers, scaled[1]))
        values = graph.skip_transparent(scaled[0])
    indices = graph.skip_transparent(indices)
    pairs = [(values, indices)]
    if values.op.type == "ConcatV2" and indices.op.type == "ConcatV2":
        pairs = list(zip(values.op.inputs[:-1], indices.op.inputs[:-1], strict=True))
    uses = []
    for value, index in pairs:
        value, index = graph.outside(value), graph.outside(index)
        uses.append(EmbeddingUse(index, value, shape, leaf.multipliers))
    return Match(tuple(uses))


OPAQUE = {
    "While": "inside a rolled loop (use unroll=True)",
    "StatelessWhile": "inside a rolled loop (use unroll=True)",
    "If": "inside tf.cond",
    "StatelessIf": "inside tf.cond",
    "PyFunc": "inside tf.py_function",
    "EagerPyFunc": "inside tf.py_function",
}
