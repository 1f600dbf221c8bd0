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

import keras
import numpy as np
import tensorflow as tf

from tests.tfkfac.test_patches import cut_patches
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

    def factors(self, index: int, bias: bool, transposed: bool = False):
        """A = 1/(N S²) Σ ā āᵀ and G = N S Σ g gᵀ, [groups, n, n], as (rows, columns)."""
        uses = self.of(index)
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


def expected_factors(observation: Observation, plan: LayerPlan):
    """The (row, column) factors of a layer, in the plan's structures."""
    if plan.kind == "elementwise":
        return observation.elementwise_factor(plan.weight)[np.newaxis], None
    rows, columns = observation.factors(plan.weight, plan.bias is not None, bool(plan.transposed))
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
    targets = [variable.value for variable in model.trainable_variables]
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
            for module, name, describe in (
                ("keras.src.ops", "matmul", self.matmul),
                ("keras.src.ops", "einsum", self.einsum),
                ("keras.src.ops", "conv", self.conv),
                ("keras.src.ops", "conv_transpose", self.conv_transpose),
                ("keras.src.ops", "depthwise_conv", self.depthwise_conv),
                ("keras.src.ops", "take", self.take),
                ("tensorflow", "matmul", self.matmul),
                ("tensorflow", "einsum", self.einsum),
                ("tensorflow", "gather", self.take),
            ):
                path = f"{module}.{name}"
                original = getattr(tf if module == "tensorflow" else keras.src.ops, name)
                stack.enter_context(unittest.mock.patch(path, self.wrap(original, describe)))
            stack.enter_context(
                unittest.mock.patch("keras.src.ops.separable_conv", self.separable_conv)
            )
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
        """Index of the variable whose value `tensor` has."""
        value = np.asarray(tensor)
        for index, known in enumerate(self.values):
            if known.shape == value.shape and np.array_equal(known, value):
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

    def separable_conv(self, x, depthwise_kernel, pointwise_kernel, **kwargs):
        """By its definition: a depthwise convolution, then one of size 1."""
        hidden = keras.src.ops.depthwise_conv(x, depthwise_kernel, **kwargs)
        return keras.src.ops.conv(hidden, pointwise_kernel)

    def take(self, output, table, indices, axis=0):
        index = self.weight(table)
        if index is None:
            return None
        one_hot = np.eye(table.shape[0])[np.reshape(indices, [-1])][np.newaxis]
        return index, one_hot, False, lambda g: g.reshape(1, -1, table.shape[1])


def _patches(image, kernel_size, strides, dilations, padding, groups) -> Rows:
    image, rank = np.asarray(image), len(kernel_size)
    strides, dilations = (
        tuple(value) if np.ndim(value) else (value,) * rank for value in (strides, dilations)
    )
    patches = cut_patches(image, kernel_size, strides, dilations, padding.upper(), groups)
    return patches.reshape(groups, -1, patches.shape[-1])
