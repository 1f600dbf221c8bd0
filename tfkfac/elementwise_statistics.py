"""Scales, shifts and lone biases: a gradient that is a sum over examples, taken apart again."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from tfkfac import gradient_graph as graph
from tfkfac.gradient_terms import Gradient, scalar_multiple
from tfkfac.uses import ElementwiseUse

_LARGEST_ELEMENTWISE = 1 << 22


def match_elementwise(gradient: tf.Tensor, shape: tuple[int, ...]) -> ElementwiseUse | None:
    """The use of a variable of `shape` whose gradient is a sum over examples, else None."""
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
        elif op.type in ("Mul", "RealDiv") and (scaled := scalar_multiple(op)) is not None:
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
            return tf.expand_dims(summed, 1) if keep else summed

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
            return lambda: _quotient(first(), factor)
        return lambda: first() * factor
    if second is not None and first is None and op.type == "Mul":
        factor = graph.outside(op.inputs[0])
        return lambda: second() * factor
    return None


def _quotient(dividend: tf.Tensor, divisor: tf.Tensor) -> tf.Tensor:
    return dividend / tf.cast(divisor, dividend.dtype)


def _sum_inner(source: tf.Tensor, data_format: str) -> Callable[[], tf.Tensor]:
    source = graph.outside(source)
    rank = source.shape.rank
    channel = 1 if data_format.startswith("NC") else rank - 1
    axes = [axis for axis in range(1, rank) if axis != channel]
    return lambda: tf.reduce_sum(source, axis=axes) if axes else tf.identity(source)
