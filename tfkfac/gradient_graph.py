"""Walking the graph that produced a gradient.

The helpers here know how TensorFlow graphs are linked (captured placeholders, function bodies,
shape-only operations); which contraction means which kind of layer is said in `statistics`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

# Operations that hand on the elements of their first input, possibly under another shape.
_RESHAPING = ("Reshape", "Squeeze", "ExpandDims")
_TRANSPARENT = (
    "Identity",
    "IdentityN",
    "Cast",
    "CheckNumerics",
    "StopGradient",
    "PreventGradient",
    "Snapshot",
)


def key(tensor: tf.Tensor) -> tuple[int, str]:
    """What identifies a tensor: its graph and its name in it."""
    if not is_symbolic(tensor):
        return id(tensor), "constant"
    return id(tensor.graph), tensor.name


def outside(tensor: tf.Tensor) -> tf.Tensor:
    """Follows a captured placeholder to the tensor that it stands for in an enclosing graph.

    `LossScaleOptimizer` and gradient accumulation call an optimizer inside `tf.cond`, where each
    outer tensor is seen through such a placeholder.
    """
    while tf.is_symbolic_tensor(tensor):
        if tensor.op.type != "Placeholder" or not hasattr(tensor.graph, "captures"):
            return tensor
        external = next((outer for outer, inner in tensor.graph.captures if inner is tensor), None)
        if external is None:
            return tensor
        tensor = external
    return tensor


def is_symbolic(tensor: object) -> bool:
    """Whether `tensor` (or the values of an `IndexedSlices`) belongs to a graph."""
    if isinstance(tensor, tf.IndexedSlices):
        tensor = tensor.values
    return tf.is_symbolic_tensor(tensor)


def skip_transparent(tensor: tf.Tensor) -> tf.Tensor:
    """Looks through captures and through operations that leave elements and shape alone."""
    while True:
        tensor = outside(tensor)
        if not is_symbolic(tensor) or tensor.op.type not in _TRANSPARENT:
            return tensor
        tensor = passed_on(tensor)


def passed_on(tensor: tf.Tensor) -> tf.Tensor:
    """The input of a transparent operation that it hands on as `tensor`."""
    return tensor.op.inputs[tensor.value_index if tensor.op.type == "IdentityN" else 0]


def is_reshaping(op: tf.Operation) -> bool:
    """Whether `op` only gives its input another shape."""
    return op.type in _RESHAPING


def skip_shapes(tensor: tf.Tensor) -> tf.Tensor:
    """Looks through reshapes as well: the tensor that first held these elements in this order.

    A `Transpose` whose permutation is the identity counts as a reshape (`tf.tensordot` makes one),
    and so does the no-op `Sum` that a broadcasting gradient adds.
    """
    while True:
        tensor = skip_transparent(tensor)
        if not is_symbolic(tensor):
            return tensor
        op = tensor.op
        keeps_order = (
            is_reshaping(op)
            or (op.type == "Transpose" and is_identity_permutation(op))
            or (op.type == "Sum" and sums_nothing(op))
        )
        if not keeps_order:
            return tensor
        tensor = op.inputs[0]


def is_identity_permutation(op: tf.Operation) -> bool:
    """Whether a `Transpose` leaves the order of the axes alone."""
    permutation = static_value(op.inputs[1])
    return permutation is not None and list(permutation) == list(range(len(permutation)))


def sums_nothing(op: tf.Operation) -> bool:
    """Whether a `Sum` reduces nothing because gradient and operand had the same static shape.

    The gradient of a broadcasting operation is summed over `BroadcastGradientArgs`; the `Reshape`
    that follows restores the operand's shape.
    """
    axes = op.inputs[1]
    if axes.op.type != "BroadcastGradientArgs":
        return False
    value = static_value(axes)
    if value is not None:
        return value.size == 0
    consumers = [c for c in op.outputs[0].consumers() if c.type == "Reshape"]
    before = op.inputs[0].shape
    return bool(consumers) and all(
        _same_but_for_batch(before, consumer.outputs[0].shape) for consumer in consumers
    )


def _same_but_for_batch(first: tf.TensorShape, second: tf.TensorShape) -> bool:
    if first.rank is None or first.rank != second.rank:
        return False
    return all(a == b for a, b in zip(first[1:].as_list(), second[1:].as_list(), strict=True))


def static_value(tensor: tf.Tensor) -> np.ndarray | None:
    """The constant that a graph tensor holds, or None."""
    value = tf.get_static_value(outside(tensor))
    return None if value is None else np.asarray(value)


def function_body(op: tf.Operation) -> tf.Graph | None:
    """The graph of the function that a `PartitionedCall` calls, or None if it is not at hand."""
    try:
        return op.graph._get_function(op.get_attr("f").name).graph
    except (AttributeError, ValueError):
        return None


def depends_on_data(tensor: tf.Tensor, limit: int = 2000) -> bool:
    """Whether anything but variables and constants feeds `tensor`.

    The gradient of a weight regulariser does not depend on data; everything else does. A walk that
    does not end within `limit` operations counts as depending on data.
    """
    seen: set[tuple[int, str]] = set()
    waiting = [tensor]
    while waiting:
        current = outside(waiting.pop())
        if not is_symbolic(current) or key(current) in seen:
            continue
        seen.add(key(current))
        if len(seen) > limit:
            return True
        op = current.op
        if op.type == "Placeholder" and current.dtype != tf.resource:
            return True
        if op.type in ("IteratorGetNext", "OptionalGetValue"):
            return True
        if op.type in ("ReadVariableOp", "Shape", "ShapeN", "Size"):
            continue
        waiting.extend(op.inputs)
    return False


def terms(tensor: tf.Tensor) -> Iterator[tf.Tensor]:
    """The summands of a gradient with several uses, in graph order."""
    tensor = skip_transparent(tensor)
    if is_symbolic(tensor) and tensor.op.type in ("AddN", "AddV2", "Add"):
        for summand in tensor.op.inputs:
            yield from terms(summand)
    else:
        yield tensor


def created_later(first: tf.Tensor, second: tf.Tensor) -> bool:
    """Whether `first` was added to the graph after `second`.

    Automatic differentiation appends the backward pass to the forward pass, so that of the two
    operands of a weight gradient the younger one is the output gradient.
    """
    if not is_symbolic(first):
        return False
    if not is_symbolic(second):
        return True
    return first.op._id > second.op._id
