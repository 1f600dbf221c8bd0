"""Layer inputs and output gradients, read off the graph of a weight's gradient.

The gradient of a kernel is the contraction of exactly the two tensors that K-FAC needs: the
layer's input and the gradient of its output. In graph mode that contraction is an operation whose
operands can be looked up; no hook, wrapped layer or registration is needed. Each pattern below
knows one such operation. A match can be proved: `Use.contract` forms the gradient from the two
tensors again.

=================================================  ==========================  =====================
the gradient's producer                            layer                       kind
=================================================  ==========================  =====================
`MatMul`, `Sum` of `BatchMatMulV2`, `Einsum`       Dense on any rank,          dense
                                                   EinsumDense, attention
                                                   projections, unrolled RNN
`Conv2DBackpropFilter`, `Conv3DBackpropFilterV2`   Conv1D/2D/3D, transposed,   convolution
(also inside a `PartitionedCall`)                  dilated, grouped
`DepthwiseConv2dNativeBackpropFilter`              depthwise, separable        depthwise convolution
`IndexedSlices`                                    Embedding                   embedding
a sum over examples of anything else               scale and shift of          elementwise
                                                   normalisation, lone biases
=================================================  ==========================  =====================
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from tfkfac import gradient_graph as graph
from tfkfac.uses import (
    ConvolutionUse,
    DenseUse,
    DepthwiseUse,
    ElementwiseUse,
    EmbeddingUse,
    Geometry,
    Multipliers,
    Operand,
    Use,
)

# What differentiation gives for a variable.
Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices | None
# A reshape or transposition, see `LayerPlan.steps`.
Step = tuple[Any, ...]


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


def match_gradient(gradient: Gradient, shape: tuple[int, ...]) -> Match:
    """Finds the uses of a variable of static `shape` from its symbolic `gradient`."""
    if gradient is None:
        return Match(reason="no gradient: not used by the loss")
    if not graph.is_symbolic(gradient):
        return Match(reason="its gradient is a constant of the training step")
    if isinstance(gradient, tf.IndexedSlices):
        return _match_slices(gradient.values, gradient.indices, shape, ())
    matches = [_match_term(term, shape) for term in _leaves(gradient)]
    found = [match for match in matches if match is not None]
    reasons = [match.reason for match in found if match.reason]
    if found and not reasons:
        combined = _combine(found)
        if not combined.reason:
            return combined
        reasons = [combined.reason]
    elementwise = _match_elementwise(gradient, shape)
    if elementwise is not None:
        return Match((elementwise,))
    return Match(reason=reasons[0] if reasons else "its gradient does not depend on the data")


def _combine(found: list[Match]) -> Match:
    uses = tuple(use for match in found for use in match.uses)
    if len({match.steps for match in found}) > 1:
        return Match(reason="its uses arrange its elements differently")
    if len({use.contraction_shape for use in uses}) > 1:
        return Match(reason="its uses contract over different shapes")
    kinds = {use.kind for use in uses}
    if len(kinds) > 1 and kinds != {"dense", "embedding"}:
        return Match(reason=f"it is used as {' and as '.join(sorted(kinds))}")
    return Match(uses, found[0].steps)


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """A summand of the gradient after looking through reshapes, transpositions and scales."""

    tensor: tf.Tensor
    steps: tuple[Step, ...] = ()
    multipliers: Multipliers = ()


def _leaves(gradient: tf.Tensor) -> list[_Leaf]:
    return _peel(_Leaf(gradient))


def _peel(leaf: _Leaf) -> list[_Leaf]:
    tensor = graph.skip_transparent(leaf.tensor)
    if not graph.is_symbolic(tensor):
        return [dataclasses.replace(leaf, tensor=tensor)]
    op = tensor.op
    if graph.is_reshaping(op):
        before, after = op.inputs[0].shape, tensor.shape
        # The shape of a reduced batch of products is not known statically; it is the
        # contraction's own, and reading the gradient matrix back needs only that.
        step = ("reshape", _static(before), _static(after))
        steps = leaf.steps if step[1] == step[2] and step[1] is not None else (step, *leaf.steps)
        return _peel(dataclasses.replace(leaf, tensor=op.inputs[0], steps=steps))
    if op.type == "Transpose":
        permutation = graph.static_value(op.inputs[1])
        if permutation is not None:
            transposition = ("transpose", tuple(int(axis) for axis in permutation))
            return _peel(_Leaf(op.inputs[0], (transposition, *leaf.steps), leaf.multipliers))
    if op.type in ("Mul", "RealDiv"):
        scaled = _scalar_multiple(op)
        if scaled is not None:
            other, multiplier = scaled
            return _peel(_Leaf(other, leaf.steps, (*leaf.multipliers, multiplier)))
    if op.type == "Neg":
        minus_one = lambda: tf.constant(-1.0)  # noqa: E731
        return _peel(_Leaf(op.inputs[0], leaf.steps, (*leaf.multipliers, minus_one)))
    if op.type in ("AddN", "AddV2", "Add"):
        if any(summand.shape != tensor.shape for summand in op.inputs):
            return [dataclasses.replace(leaf, tensor=tensor)]
        return [
            found
            for summand in op.inputs
            for found in _peel(dataclasses.replace(leaf, tensor=summand))
        ]
    return [dataclasses.replace(leaf, tensor=tensor)]


def _static(shape: tf.TensorShape) -> tuple[int, ...] | None:
    return tuple(shape.as_list()) if shape.is_fully_defined() else None


def _scalar_multiple(op: tf.Operation) -> tuple[tf.Tensor, Callable[[], tf.Tensor]] | None:
    """(tensor, multiplier) of a product or quotient with a scalar, else None."""
    first, second = op.inputs
    if second.shape.rank == 0 and first.shape.rank != 0:
        if op.type == "RealDiv":
            return first, lambda: 1.0 / tf.cast(graph.outside(second), tf.float32)
        return first, lambda: graph.outside(second)
    if op.type == "Mul" and first.shape.rank == 0 and second.shape.rank != 0:
        return second, lambda: graph.outside(first)
    return None


def _match_term(leaf: _Leaf, shape: tuple[int, ...]) -> Match | None:
    """The use behind one summand; None for a summand that does not depend on data."""
    tensor = leaf.tensor
    if not graph.is_symbolic(tensor):
        return None
    pattern = _PATTERNS.get(tensor.op.type)
    result = pattern(tensor, leaf) if pattern is not None else None
    if isinstance(result, Use):
        result = Match((result,), leaf.steps)
    if isinstance(result, Match):
        return _place(result, _static(tensor.shape), shape)
    if not graph.depends_on_data(tensor):
        return None
    if result is not None:
        return Match(reason=result)
    return Match(reason=_OPAQUE.get(tensor.op.type, f"no pattern for {tensor.op.type}"))


def _place(match: Match, result_shape: tuple[int, ...] | None, shape: tuple[int, ...]) -> Match:
    """Ties the uses behind a summand of `result_shape` to the variable's shape by static steps."""
    uses, steps = match.uses, match.steps
    contraction_shape = uses[0].contraction_shape
    # Only the contraction's own shape may be unknown to the graph.
    if any(step[0] == "reshape" and None in step[1:] for step in steps[1:]):
        return Match(reason="its gradient is reshaped dynamically")
    if steps and steps[0][0] == "reshape":
        if steps[0][2] is None:
            return Match(reason="its gradient is reshaped dynamically")
        steps = (("reshape", contraction_shape, steps[0][2]), *steps[1:])
    elif result_shape is not None:
        steps = (("reshape", contraction_shape, result_shape), *steps)
    if math.prod(contraction_shape) != math.prod(shape):
        return Match(reason="only part of it is used")
    steps = _without_no_ops(steps)
    dense = [use for use in uses if isinstance(use, DenseUse)]
    if steps and steps[0] == ("transpose", (1, 0)) and len(dense) == len(uses):
        # A product with the transposed weight: exchange the operands instead.
        uses = tuple(DenseUse(use.columns, use.rows, use.multipliers) for use in dense)
        steps = steps[1:]
    return Match(uses, steps)


def _without_no_ops(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return tuple(s for s in steps if not (s[0] == "reshape" and s[1] == s[2]))


_OPAQUE = {
    "While": "inside a rolled loop (use unroll=True)",
    "StatelessWhile": "inside a rolled loop (use unroll=True)",
    "If": "inside tf.cond",
    "StatelessIf": "inside tf.cond",
    "PyFunc": "inside tf.py_function",
    "EagerPyFunc": "inside tf.py_function",
}


# --- patterns: (tensor, leaf) -> a use, uses with steps, a reason (str), or None ---

Found = Use | Match | str | None


def _matmul(tensor: tf.Tensor, leaf: _Leaf) -> Found:
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


def _sum_of_products(tensor: tf.Tensor, leaf: _Leaf) -> Found:
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


def _einsum(tensor: tf.Tensor, leaf: _Leaf) -> Found:
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


def _convolution(tensor: tf.Tensor, leaf: _Leaf, depthwise: bool = False) -> Found:
    op = tensor.op
    return _convolution_use(
        op,
        _static(tensor.shape),
        graph.outside(op.inputs[0]),
        graph.outside(op.inputs[2]),
        leaf.multipliers,
        depthwise,
    )


def _depthwise(tensor: tf.Tensor, leaf: _Leaf) -> Found:
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


def _function_call(tensor: tf.Tensor, leaf: _Leaf) -> Found:
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
        return _OPAQUE.get(inner.op.type, "inside a called function")
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
    shape = _static(inner.shape)
    return _convolution_use(inner.op, shape, image, filters, leaf.multipliers, depthwise=False)


def _skip_inside(tensor: tf.Tensor) -> tf.Tensor:
    """Looks through what leaves the elements alone, within one function."""
    while tensor.op.type in ("Identity", "Cast") or graph.is_reshaping(tensor.op):
        tensor = tensor.op.inputs[0]
    return tensor


def _segment_sum(tensor: tf.Tensor, leaf: _Leaf) -> Found:
    """A densified `IndexedSlices`: an embedding that shares its weight with another use."""
    values, indices = map(graph.outside, tensor.op.inputs[:2])
    if tensor.shape.rank != 2:
        return "its embedding has an unknown size"
    segments = graph.static_value(tensor.op.inputs[2])
    rows = tensor.shape[0] if segments is None else int(segments)
    columns = tensor.shape[1]
    if rows is None or columns is None:
        return "its embedding has an unknown size"
    match = _match_slices(values, indices, (rows, columns), leaf.multipliers)
    return match.reason or Match(match.uses, leaf.steps)


_PATTERNS: dict[str, Callable[[tf.Tensor, _Leaf], Found]] = {
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


def _match_slices(
    values: tf.Tensor, indices: tf.Tensor, shape: tuple[int, ...], multipliers: Multipliers
) -> Match:
    """An embedding's gradient; several lookups of one table arrive concatenated."""
    if len(shape) != 2:
        return Match(reason="its rows are looked up, and it is not a matrix")
    leaf = _Leaf(values, (), multipliers)
    values = graph.skip_transparent(values)
    while graph.is_symbolic(values) and values.op.type in ("Mul", "RealDiv"):
        scaled = _scalar_multiple(values.op)
        if scaled is None:
            break
        leaf = _Leaf(scaled[0], (), (*leaf.multipliers, scaled[1]))
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


# --- elementwise: a sum over examples, taken apart again ---

_LARGEST_ELEMENTWISE = 1 << 22


def _match_elementwise(gradient: tf.Tensor, shape: tuple[int, ...]) -> ElementwiseUse | None:
    if math.prod(shape) > _LARGEST_ELEMENTWISE:
        return None
    per_example = _per_example(gradient)
    if per_example is None:
        return None
    return ElementwiseUse(per_example, shape, _reduced_key(gradient))


def _reduced_key(gradient: tf.Tensor) -> tuple[int, str] | None:
    """Identity of the tensor that `gradient` is the plain sum of (a bias: the output gradient)."""
    tensor = graph.skip_transparent(gradient)
    while graph.is_symbolic(tensor):
        op = tensor.op
        if op.type == "BiasAddGrad" or (op.type == "Sum" and _summed_axes(op) is not None):
            return graph.key(graph.skip_shapes(op.inputs[0]))
        if graph.is_reshaping(op):
            tensor = graph.skip_transparent(op.inputs[0])
        elif op.type in ("Mul", "RealDiv") and (scaled := _scalar_multiple(op)) is not None:
            tensor = graph.skip_transparent(scaled[0])
        else:
            return None
    return None


def reduced_keys(gradient: Gradient) -> frozenset[tuple[int, str] | None]:
    """The tensors whose sums make up `gradient`; `{None}` if it is anything else."""
    if not graph.is_symbolic(gradient) or isinstance(gradient, tf.IndexedSlices):
        return frozenset({None})
    summands = [term for term in graph.terms(gradient) if graph.depends_on_data(term)]
    return frozenset(_reduced_key(term) for term in summands) or frozenset({None})


def _summed_axes(op: tf.Operation) -> list[int] | None:
    """The axes of a `Sum` over (at least) the examples, axis 0; None for another one."""
    value = graph.static_value(op.inputs[1])
    axes = [] if value is None else [int(axis) for axis in value.reshape(-1)]
    return axes if 0 in axes else None


def _per_example(tensor: tf.Tensor) -> Callable[[], tf.Tensor] | None:
    """How to form a tensor [N, ...] whose sum over N is `tensor`; None where that is unknown.

    Follows the operations that are linear in the output gradient up to the sum over examples.
    Factors that are not (statistics of batch normalisation, say) count as constants.
    """
    tensor = graph.outside(tensor)
    if not graph.is_symbolic(tensor):
        return None
    op = tensor.op
    if op.type == "BiasAddGrad":
        return _sum_inner(op.inputs[0], op.get_attr("data_format").decode())
    if op.type == "Sum":
        axes = _summed_axes(op)
        if axes is None:
            return None
        inner_axes = sorted({axis % op.inputs[0].shape.rank for axis in axes} - {0})
        keep = bool(op.get_attr("keep_dims"))
        source = graph.outside(op.inputs[0])

        def build() -> tf.Tensor:
            summed = tf.reduce_sum(source, axis=inner_axes, keepdims=keep)
            return summed[:, tf.newaxis] if keep else summed

        return build
    if op.type in ("Identity", "IdentityN", "Neg", "Cast"):
        inner = _per_example(graph.passed_on(tensor))
        if inner is None:
            return None
        return (lambda: -inner()) if op.type == "Neg" else lambda: tf.cast(inner(), tensor.dtype)
    if graph.is_reshaping(op):
        before = _per_example(op.inputs[0])
        if before is None or not tensor.shape.is_fully_defined():
            return None
        return lambda: tf.reshape(before(), [-1, *tensor.shape.as_list()])
    if op.type in ("AddN", "AddV2", "Add", "Sub"):
        of_data = [part for part in op.inputs if graph.depends_on_data(part)]
        parts = [part for part in map(_per_example, of_data) if part is not None]
        if not parts or len(parts) < len(of_data):
            return None
        if op.type == "Sub":
            return (lambda: parts[0]() - parts[1]()) if len(parts) == 2 else None
        return lambda: tf.add_n([part() for part in parts])
    if op.type in ("Mul", "RealDiv"):
        return _per_example_product(op)
    return None


def _per_example_product(op: tf.Operation) -> Callable[[], tf.Tensor] | None:
    first, second = _per_example(op.inputs[0]), _per_example(op.inputs[1])
    if first is not None and second is None:
        factor = graph.outside(op.inputs[1])
        if op.type == "RealDiv":
            return lambda: first() / tf.cast(factor, first().dtype)
        return lambda: first() * factor
    if second is not None and first is None and op.type == "Mul":
        factor = graph.outside(op.inputs[0])
        return lambda: second() * factor
    return None


def _sum_inner(source: tf.Tensor, data_format: str) -> Callable[[], tf.Tensor]:
    source = graph.outside(source)
    rank = source.shape.rank
    channel = 1 if data_format.startswith("NC") else rank - 1
    axes = [axis for axis in range(1, rank) if axis != channel]
    return lambda: tf.reduce_sum(source, axis=axes) if axes else tf.identity(source)
