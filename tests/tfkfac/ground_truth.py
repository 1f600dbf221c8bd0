"""What K-FAC should compute, formed without tfkfac and without any graph.

`observe` runs a model eagerly and notes each product with a weight: the rows that went in (patches
cut out one by one), and, from a tape, the gradient of what came out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import unittest.mock
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.tfkfac.keras_versions import underlying
from tests.tfkfac.test_patches import cut_patches
from tfkfac.keras_version import KERAS_3
from tfkfac.plan import BLOCKS, DIAGONAL, IDENTITY, LayerPlan, Side

Rows = np.ndarray  # [groups, M, K]


@dataclasses.dataclass
class Product:
    """One product with the weight `index`: input rows [groups, M, K], output gradients likewise.

    `transposed`: the gradient matrix of the weight has the output gradient's coordinate first.
    """

    index: int
    inputs: Rows
    gradients: Rows
    transposed: bool


@dataclasses.dataclass
class Observation:
    """Gradients of the loss by variable, and all products with weights, of one batch."""

    gradients: list[np.ndarray]
    products: list[Product]
    examples: int
    per_example: Callable[[int], np.ndarray]

    def of(self, index: int) -> list[Product]:
        return [product for product in self.products if product.index == index]

    def factors(
        self, index: int, bias: bool, transposed: bool = False, reduced: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """A = 1/(N S²) Σ ā āᵀ and G = N S Σ g gᵀ, [groups, n, n], as (rows, columns).

        `reduced`: of inputs averaged and gradients summed over each use's positions first.
        """
        uses = self.of(index)
        if reduced:
            uses = [self._reduced(use) for use in uses]
        positions = sum(use.inputs.shape[1] for use in uses) / self.examples
        pairs = []
        for orientation in (False, True):
            chosen = [use for use in uses if use.transposed is orientation]
            if not chosen:
                continue
            a = sum(_moment(_with_one(use.inputs) if bias else use.inputs) for use in chosen)
            g = sum(_moment(use.gradients) for use in chosen)
            a = a / (self.examples * positions**2)
            g = g * self.examples * positions
            mixed = len({use.transposed for use in uses}) > 1
            pairs.append((g, a) if (orientation if mixed else transposed) else (a, g))
        return _combined(pairs)

    def _reduced(self, use: Product) -> Product:
        inputs, gradients = (
            rows.reshape(len(rows), self.examples, -1, rows.shape[2])
            for rows in (use.inputs, use.gradients)
        )
        return dataclasses.replace(use, inputs=inputs.mean(axis=2), gradients=gradients.sum(axis=2))

    def elementwise_factor(self, index: int) -> np.ndarray:
        """diag F = N Σ_n u_n², [size]."""
        return self.examples * np.sum(np.square(self.per_example(index)), axis=0)


def _with_one(rows: Rows) -> Rows:
    return np.concatenate([rows, np.ones([*rows.shape[:2], 1])], axis=2)


def _moment(rows: Rows) -> np.ndarray:
    moment = np.zeros([len(rows), rows.shape[2], rows.shape[2]])
    for group, members in enumerate(rows):
        for row in members:
            moment[group] += np.outer(row, row)
    return moment


def _combined(pairs):
    """Uses of both orientations: traces of rows and columns made equal, then added."""
    if len(pairs) == 1:
        return pairs[0]
    rows, columns = 0, 0
    for row, column in pairs:
        ratio = np.sqrt(np.trace(column[0]) / np.trace(row[0]))
        rows, columns = rows + row * ratio, columns + column / ratio
    return rows, columns


def structured(factor: np.ndarray, side: Side) -> np.ndarray | None:
    """The part of dense factors [groups, n, n] that a factor of this structure keeps."""
    if side.structure == IDENTITY:
        return None
    if side.structure == DIAGONAL:
        return np.diagonal(factor, axis1=1, axis2=2)
    if side.structure == BLOCKS:
        size, total = side.block_size, side.padded_size
        padded = np.zeros([len(factor), total, total])
        padded[:, : side.size, : side.size] = factor
        blocks = [padded[:, i : i + size, i : i + size] for i in range(0, total, size)]
        return np.stack(blocks, axis=1)
    return factor


def expected_factors(observation: Observation, plan: LayerPlan, reduced: bool = False):
    """The (row, column) factors of a layer, in the plan's structures."""
    if plan.kind == "elementwise":
        return observation.elementwise_factor(plan.weight)[np.newaxis], None
    reduced = reduced and plan.kind != "embedding"
    rows, columns = observation.factors(
        plan.weight, plan.bias is not None, bool(plan.transposed), reduced
    )
    return structured(rows, plan.rows), structured(columns, plan.columns)


def observe(
    model: keras.Model,
    inputs: np.ndarray,
    loss: Callable[[tf.Tensor], tf.Tensor],
    example_loss: Callable[[int, tf.Tensor], tf.Tensor] | None = None,
) -> Observation:
    """Gradients and products of one batch; `loss` maps outputs to a mean over the batch.

    `example_loss(n, outputs)` is the loss of a batch that holds only example n, by default `loss`.
    """
    recorder = _Recorder(model.trainable_variables)
    with recorder.recording(), tf.GradientTape() as tape:
        recorder.tape = tape
        value = loss(model(tf.constant(inputs), training=True)) + sum(model.losses)
    outputs = [output for *_, output, _ in recorder.notes]
    targets = [underlying(variable) for variable in model.trainable_variables]
    gradients, output_gradients = tape.gradient(
        value, (targets, outputs), unconnected_gradients="zero"
    )
    products = [
        Product(index, rows, read(gradient.numpy()), transposed)
        for (index, rows, transposed, _, read), gradient in zip(
            recorder.notes, output_gradients, strict=True
        )
    ]

    @functools.cache
    def by_example() -> list[list[np.ndarray]]:
        rows = []
        for n in range(len(inputs)):
            with tf.GradientTape() as tape:
                outputs = model(tf.constant(inputs[n : n + 1]), training=True)
                value = loss(outputs) if example_loss is None else example_loss(n, outputs)
            found = tape.gradient(value, targets, unconnected_gradients="zero")
            rows.append([np.reshape(tf.convert_to_tensor(g), [-1]) / len(inputs) for g in found])
        return rows

    def per_example(index: int) -> np.ndarray:
        return np.stack([gradients[index] for gradients in by_example()])

    dense = [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]
    return Observation(dense, products, len(inputs), per_example)


class _Recorder:
    """Stands in for the products that Keras layers and custom layers call."""

    def __init__(self, variables):
        self.values = [variable.numpy() for variable in variables]
        self.notes: list[tuple] = []
        self.tape: tf.GradientTape | None = None
        self.nested = False

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            replacements = _keras_3_calls(self) if KERAS_3 else _keras_2_calls(self)
            for owner, name, replacement in replacements:
                stack.enter_context(unittest.mock.patch.object(owner, name, replacement))
            yield

    def wrap(self, original, describe):
        def product(*args, **kwargs):
            if self.nested:
                return original(*args, **kwargs)
            self.nested = True
            try:
                output = original(*args, **kwargs)
            finally:
                self.nested = False
            note = describe(output, *args, **kwargs)
            if note is None:
                return output
            output = tf.identity(output)
            assert self.tape is not None
            self.tape.watch(output)
            index, inputs, transposed, read = note
            self.notes.append((index, inputs, transposed, output, read))
            return output

        return product

    def weight(self, tensor) -> int | None:
        """Index of the variable whose value `tensor` has.

        A one-dimensional convolution may run as a two-dimensional one of height 1.
        """
        value = np.asarray(tensor)
        for index, known in enumerate(self.values):
            same_shape = value.shape in (known.shape, (1, *known.shape))
            if same_shape and np.array_equal(known, value.reshape(known.shape)):
                return index
        return None

    def matmul(self, output, x, kernel, transpose_b=False):
        index = self.weight(kernel)
        if index is None:
            return None
        rows = np.asarray(x).reshape(1, -1, x.shape[-1])
        columns = output.shape[-1]
        return index, rows, transpose_b, lambda g: g.reshape(1, -1, columns)

    def einsum(self, output, equation, x, kernel, optimize=None):
        index = self.weight(kernel)
        if index is None:
            return None
        operands, result = equation.split("->")
        first, second = operands.split(",")
        shared = "".join(label for label in second if label in first)
        own = "".join(label for label in second if label not in first)
        at = "".join(label for label in first if label not in second)
        rows = np.einsum(f"{first}->{at}{shared}", np.asarray(x))
        rows = rows.reshape(1, -1, int(np.prod(rows.shape[len(at) :])))

        def read(gradient):
            moved = np.einsum(f"{result}->{at}{own}", gradient)
            return moved.reshape(1, -1, int(np.prod(moved.shape[len(at) :])))

        return index, rows, second.startswith(own) and len(second) == 2, read

    def conv(self, output, x, kernel, strides=1, padding="valid", data_format=None, **kwargs):
        index, kernel_shape = self.weight(kernel), tuple(kernel.shape)
        rank = len(kernel_shape) - 2
        groups = x.shape[-1] // kernel_shape[-2]
        dilations = kwargs.get("dilation_rate", 1)
        rows = _patches(x, kernel_shape[:rank], strides, dilations, padding, groups)

        def read(gradient):
            split = gradient.reshape(-1, groups, kernel_shape[-1] // groups)
            return split.transpose(1, 0, 2)

        return index, rows, False, read

    def conv_transpose(self, output, x, kernel, strides, padding, *args, **kwargs):
        index, kernel_shape = self.weight(kernel), tuple(kernel.shape)
        rank = len(kernel_shape) - 2
        rows = np.asarray(x).reshape(1, -1, kernel_shape[-1])

        def read(gradient):
            # A transposed convolution is the derivative of the one that these patches belong to.
            return _patches(gradient, kernel_shape[:rank], strides, 1, padding, 1)

        return index, rows, True, read

    def depthwise_conv(self, output, x, kernel, strides=1, padding="valid", *args, **kwargs):
        index, kernel_shape = self.weight(kernel), tuple(kernel.shape)
        *kernel_size, channels, multiplier = kernel_shape
        dilations = kwargs.get("dilation_rate", 1)
        rows = _patches(x, kernel_size, strides, dilations, padding, channels)
        return (
            index,
            rows,
            False,
            lambda g: g.reshape(-1, channels, multiplier).transpose(1, 0, 2),
        )

    def take(self, output, table, indices, axis=0):
        index = self.weight(table)
        if index is None:
            return None
        one_hot = np.eye(table.shape[0])[np.reshape(indices, [-1])][np.newaxis]
        return index, one_hot, False, lambda g: g.reshape(1, -1, table.shape[1])


def _keras_3_calls(recorder: _Recorder) -> Iterator[tuple[Any, str, Callable]]:
    """What Keras 3's layers and custom layers call: (owner, name, what notes its products)."""
    ops = keras.src.ops
    for owner, name, describe in (
        (ops, "matmul", recorder.matmul),
        (ops, "einsum", recorder.einsum),
        (ops, "conv", recorder.conv),
        (ops, "conv_transpose", recorder.conv_transpose),
        (ops, "depthwise_conv", recorder.depthwise_conv),
        (ops, "take", recorder.take),
        (tf, "matmul", recorder.matmul),
        (tf, "einsum", recorder.einsum),
        (tf, "gather", recorder.take),
    ):
        yield owner, name, recorder.wrap(getattr(owner, name), describe)

    def separable_conv(x, depthwise_kernel, pointwise_kernel, **kwargs):
        """By its definition: a depthwise convolution, then one of size 1."""
        return ops.conv(ops.depthwise_conv(x, depthwise_kernel, **kwargs), pointwise_kernel)

    yield ops, "separable_conv", separable_conv


def _keras_2_calls(recorder: _Recorder) -> Iterator[tuple[Any, str, Callable]]:
    """The same for Keras 2, whose layers call TensorFlow."""
    import tensorflow.compat.v2 as tf_of_keras
    from keras.src import backend
    from keras.src.layers.convolutional import base_conv

    def product(output, a, b, *args, **kwargs):
        return recorder.matmul(output, a, b, kwargs.get("transpose_b", False))

    def convolution(output, input, filters, strides, padding, dilations, **kwargs):
        return recorder.conv(output, input, filters, strides, padding, dilation_rate=dilations)

    def grouped_convolution(output, layer, x, kernel):
        rate = layer.dilation_rate
        return recorder.conv(output, x, kernel, layer.strides, layer.padding, dilation_rate=rate)

    def transposed(output, x, kernel, output_shape, strides, padding, **kwargs):
        return recorder.conv_transpose(output, x, kernel, strides, padding)

    def depthwise(output, x, kernel, strides, padding, dilations, **kwargs):
        strides = strides[1:3]
        return recorder.depthwise_conv(output, x, kernel, strides, padding, dilation_rate=dilations)

    def separable(x, depthwise_kernel, pointwise_kernel, strides, padding, **kwargs):
        """By its definition: a depthwise convolution, then one of size 1."""
        nn = tf_of_keras.nn
        rate = kwargs.get("dilations", kwargs.get("rate"))
        hidden = nn.depthwise_conv2d(
            x, depthwise_kernel, strides=strides, padding=padding, dilations=rate
        )
        return nn.convolution(
            hidden, pointwise_kernel, strides=[1, 1], padding="VALID", dilations=[1, 1]
        )

    for owner, name, describe in (
        (tf_of_keras, "matmul", product),
        (tf_of_keras, "tensordot", product),
        (tf_of_keras, "einsum", recorder.einsum),
        (tf_of_keras.nn, "convolution", convolution),
        (tf_of_keras.nn, "depthwise_conv2d", depthwise),
        (tf_of_keras.nn, "embedding_lookup", recorder.take),
        (backend, "conv2d_transpose", transposed),
        (backend, "depthwise_conv2d", recorder.depthwise_conv),
        (base_conv.Conv, "_jit_compiled_convolution_op", grouped_convolution),
        (tf, "matmul", product),
        (tf, "einsum", recorder.einsum),
        (tf, "gather", recorder.take),
    ):
        yield owner, name, recorder.wrap(getattr(owner, name), describe)
    for owner in (tf_of_keras.nn, tf_of_keras.compat.v1.nn):
        yield owner, "separable_conv2d", separable


def _patches(image, kernel_size, strides, dilations, padding, groups) -> Rows:
    image, rank = np.asarray(image), len(kernel_size)
    strides, dilations = (
        tuple(value) if np.ndim(value) else (value,) * rank for value in (strides, dilations)
    )
    patches = cut_patches(image, kernel_size, strides, dilations, padding.upper(), groups)
    return patches.reshape(groups, -1, patches.shape[-1])
