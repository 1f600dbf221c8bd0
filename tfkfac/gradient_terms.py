"""The summands of a weight's gradient, seen through what only scales or arranges them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from tfkfac import gradient_graph as graph
from tfkfac.uses import Multipliers

# What differentiation gives for a variable.
Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices | None
# A reshape or transposition, see `LayerPlan.steps`.
Step = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A summand of the gradient after looking through reshapes, transpositions and scales."""

    tensor: tf.Tensor
    steps: tuple[Step, ...] = ()
    multipliers: Multipliers = ()


def leaves(gradient: tf.Tensor) -> list[Leaf]:
    """All summands of a symbolic `gradient`."""
    return _peel(Leaf(gradient))


def _peel(leaf: Leaf) -> list[Leaf]:
    tensor = graph.skip_transparent(leaf.tensor)
    if not graph.is_symbolic(tensor):
        return [dataclasses.replace(leaf, tensor=tensor)]
    op = tensor.op
    if graph.is_reshaping(op):
        before, after = op.inputs[0].shape, tensor.shape
        # The shape of a reduced batch of products is not known statically; it is the
        # contraction's own, and reading the gradient matrix back needs only that.
        step = ("reshape", static_shape(before), static_shape(after))
        steps = leaf.steps if step[1] == step[2] and step[1] is not None else (step, *leaf.steps)
        return _peel(dataclasses.replace(leaf, tensor=op.inputs[0], steps=steps))
    if op.type == "Transpose":
        permutation = graph.static_value(op.inputs[1])
        if permutation is not None:
            transposition = ("transpose", tuple(int(axis) for axis in permutation))
            return _peel(Leaf(op.inputs[0], (transposition, *leaf.steps), leaf.multipliers))
    if op.type in ("Mul", "RealDiv"):
        scaled = scalar_multiple(op)
        if scaled is not None:
            other, multiplier = scaled
            return _peel(Leaf(other, leaf.steps, (*leaf.multipliers, multiplier)))
    if op.type == "Neg":
        minus_one = lambda: tf.constant(-1.0)  # noqa: E731
        return _peel(Leaf(op.inputs[0], leaf.steps, (*leaf.multipliers, minus_one)))
    if op.type in ("AddN", "AddV2", "Add"):
        if any(summand.shape != tensor.shape for summand in op.inputs):
            return [dataclasses.replace(leaf, tensor=tensor)]
        return [
            found
            for summand in op.inputs
            for found in _peel(dataclasses.replace(leaf, tensor=summand))
        ]
    return [dataclasses.replace(leaf, tensor=tensor)]


def static_shape(shape: tf.TensorShape) -> tuple[int, ...] | None:
    """`shape` as a tuple, None if any of it is unknown to the graph."""
    return tuple(shape.as_list()) if shape.is_fully_defined() else None


def scalar_multiple(op: tf.Operation) -> tuple[tf.Tensor, Callable[[], tf.Tensor]] | None:
    """(tensor, multiplier) of a product or quotient with a scalar, else None."""
    first, second = op.inputs
    if second.shape.rank == 0 and first.shape.rank != 0:
        if op.type == "RealDiv":
            return first, lambda: 1.0 / tf.cast(graph.outside(second), tf.float32)
        return first, lambda: graph.outside(second)
    if op.type == "Mul" and first.shape.rank == 0 and second.shape.rank != 0:
        return second, lambda: graph.outside(first)
    return None
