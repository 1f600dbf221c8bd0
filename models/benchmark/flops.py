"""Floating point operations of a network, counted in its graph.

What counts are the products: convolutions, matrix products and einsums, a multiplication and an
addition being two operations. That is what published numbers mean, and what hardware is rated by.
Activations, normalisation and pooling are left out, and optimizers too.

Two numbers are used for training. `training_flops` takes three times the forward pass: each product
has a gradient for its input and one for its weights, of the same cost. `graph_products` counts
what a traced step really does, where the first layer needs no gradient for its input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

FORWARD_TO_TRAINING = 3  # a training step is this many forward passes


def _elements(shape: Any, what: str) -> int:
    count = tf.TensorShape(shape).num_elements()
    if count is None:
        raise ValueError(f"{what} has the open shape {shape}: trace it with a fixed batch")
    return int(count)


def _convolution(operation: Any) -> float:
    """Each output is a sum over the kernel and its input channels."""
    kernel = operation.inputs[1].shape
    output = operation.outputs[0]
    return 2.0 * _elements(output.shape, operation.name) * math.prod(kernel[:-1])


def _to_input(operation: Any) -> float:
    """The gradient for the input: as many products as forward, whose output's gradient comes in."""
    kernel = operation.inputs[1].shape
    return 2.0 * _elements(operation.inputs[2].shape, operation.name) * math.prod(kernel[:-1])


def _to_kernel(operation: Any) -> float:
    """The gradient for the kernel, from that of the output, which comes in."""
    kernel = operation.outputs[0].shape
    return 2.0 * _elements(operation.inputs[2].shape, operation.name) * math.prod(kernel[:-1])


def _depthwise(operation: Any) -> float:
    """Each output is a sum over the kernel within its own channel."""
    kernel = operation.inputs[1].shape
    return 2.0 * _elements(operation.outputs[0].shape, operation.name) * math.prod(kernel[:2])


def _depthwise_to_input(operation: Any) -> float:
    kernel = operation.inputs[1].shape
    return 2.0 * _elements(operation.inputs[2].shape, operation.name) * math.prod(kernel[:2])


def _depthwise_to_kernel(operation: Any) -> float:
    kernel = operation.outputs[0].shape
    return 2.0 * _elements(operation.inputs[2].shape, operation.name) * math.prod(kernel[:2])


def _matrix_product(operation: Any) -> float:
    """Batches of m x k times k x n."""
    names = ("transpose_a", "adj_x")
    transposed = any(operation.get_attr(n) for n in names if n in operation.node_def.attr)
    shape = operation.inputs[0].shape
    inner = _elements(shape[-2:-1] if transposed else shape[-1:], operation.name)
    return 2.0 * _elements(operation.outputs[0].shape, operation.name) * inner


def _einsum(operation: Any) -> float:
    """The product of the lengths of all indices; with one operand nothing is multiplied."""
    if len(operation.inputs) < 2:
        return 0.0
    equation = operation.get_attr("equation").decode()
    lengths: dict[str, int] = {}
    for term, operand in zip(equation.split("->")[0].split(","), operation.inputs, strict=True):
        letters, shape = term.replace("...", ""), operand.shape.as_list()
        for letter, length in zip(letters, shape[len(shape) - len(letters) :], strict=True):
            lengths[letter] = max(length, lengths.get(letter, 1))
    return 2.0 * math.prod(lengths.values())


_PRODUCTS: dict[str, Callable[[Any], float]] = {
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "Conv2DBackpropInput": _to_input,
    "Conv3DBackpropInputV2": _to_input,
    "Conv2DBackpropFilter": _to_kernel,
    "Conv3DBackpropFilterV2": _to_kernel,
    "DepthwiseConv2dNative": _depthwise,
    "DepthwiseConv2dNativeBackpropInput": _depthwise_to_input,
    "DepthwiseConv2dNativeBackpropFilter": _depthwise_to_kernel,
    "MatMul": _matrix_product,
    "BatchMatMul": _matrix_product,
    "BatchMatMulV2": _matrix_product,
    "BatchMatMulV3": _matrix_product,
    "Einsum": _einsum,
}


def graph_products(graph: tf.Graph) -> float:
    """FLOPs of all products in a graph and in the functions that it calls.

    A loop's body counts once, a condition's branches count both: of neither is it known how often
    they run.

    Raises:
        ValueError: if the shape of a product depends on the data.
    """
    return sum(_PRODUCTS[op.type](op) for op in _operations(graph) if op.type in _PRODUCTS)


def _operations(graph: Any) -> Iterator[Any]:
    """The operations that the outputs and side effects of a function need, and those of its calls.

    TensorFlow writes down both gradients of a convolution even where one has no use, and prunes
    what is left over before it runs a graph.
    """
    waiting = [tensor.op for tensor in graph.outputs] + list(graph.control_outputs)
    seen = set(waiting)
    while waiting:
        operation = waiting.pop()
        yield operation
        needed = {tensor.op for tensor in operation.inputs} | set(operation.control_inputs)
        waiting += needed - seen
        seen |= needed
        for name in ("f", "body", "then_branch", "else_branch"):
            if name in operation.node_def.attr:
                function = operation.get_attr(name)
                found = graph._get_function(function.name)  # no public way leads there
                if found is not None:
                    yield from _operations(found.graph)


def forward_flops(model: keras.Model, inputs: Any, targets: Any = None) -> float:
    """FLOPs of a forward pass, with that of the loss if targets are given.

    A model with a loss of its own, such as a detector's second stage, needs its targets.

    Args:
        model: built; compiled if there are targets.
        inputs: a batch, arrays or `tf.TensorSpec`s of fixed shape.
        targets: the same of its targets.
    """

    def forward(inputs: Any, targets: Any) -> Any:
        outputs = model(inputs, training=True)
        if targets is None:
            return outputs
        return model.compute_loss(x=inputs, y=targets, y_pred=outputs)

    return graph_products(_traced(forward, inputs, targets))


def training_flops(model: keras.Model, inputs: Any, targets: Any = None) -> float:
    """FLOPs of a training step by the rule: three times `forward_flops`."""
    return FORWARD_TO_TRAINING * forward_flops(model, inputs, targets)


def step_flops(model: keras.Model, inputs: Any, targets: Any) -> float:
    """FLOPs of products in the step that Keras runs, the optimizer's included.

    The step is traced and not run.

    Args:
        model: compiled.
        inputs, targets: a batch, as for `forward_flops`.
    """
    return graph_products(
        _traced(lambda inputs, targets: model.train_step((inputs, targets)), inputs, targets)
    )


def _traced(function: Callable[[Any, Any], Any], inputs: Any, targets: Any) -> Any:
    def spec(value: Any) -> Any:
        return None if value is None else tf.TensorSpec(value.shape, tf.as_dtype(value.dtype))

    specs = tf.nest.map_structure(spec, (inputs, targets))
    return tf.function(function, autograph=False).get_concrete_function(*specs).graph
