"""The uses of a weight in a training step, each holding a layer's input and output gradient.

A use can be proved: `contract` forms the weight's gradient from the two tensors again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import ClassVar, TypedDict

import tensorflow as tf

from tfkfac import gradient_graph as graph
from tfkfac.patches import patch_second_moment, patch_sums

Multipliers = tuple[Callable[[], tf.Tensor], ...]


@dataclasses.dataclass(frozen=True)
class Operand:
    """A tensor seen as a matrix [M, size]: permuted, then flattened to its last `own` axes.

    `source` is the tensor before reshapes; its first dimension counts the examples.
    """

    tensor: tf.Tensor
    size: int
    permutation: tuple[int, ...] | None = None

    @property
    def source(self) -> tf.Tensor:
        return graph.skip_shapes(self.tensor)

    def matrix(self, dtype: tf.DType) -> tf.Tensor:
        tensor = tf.cast(self.tensor, dtype)
        if self.permutation is not None:
            tensor = tf.transpose(tensor, self.permutation)
        return tf.reshape(tensor, [-1, self.size])

    def examples(self) -> tf.Tensor | int:
        if self.permutation is not None and self.permutation[0] != 0:
            return _length(tf.transpose(self.tensor, self.permutation))
        return _length(self.source)


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A convolution's kernel size, strides, dilations and padding, spatial dimensions only."""

    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...]
    groups: int
    channels_first: bool = False
    # `SpaceToBatchND` paddings of a dilated convolution and the spatial shape of its output.
    space_to_batch: tuple[tf.Tensor, tuple[int, ...] | tf.Tensor] | None = None


class Use:
    """One use of a weight in the training step.

    Attributes:
        kind: The kind of layer that uses a weight so, see `LayerPlan`.
        contraction_shape: Shape of the contraction's result.
        transposed: Whether the rows of the gradient matrix belong to the output gradient.
        multipliers: Scalars (loss scales) by which the contraction is multiplied to give the
            gradient; they belong to the output gradient.
        output_gradient_key: Identity of the output gradient, shared with the layer's bias.
    """

    kind: ClassVar[str]
    transposed = False

    def __init__(self, contraction_shape: Sequence[int], multipliers: Multipliers):
        self.contraction_shape = tuple(contraction_shape)
        self.multipliers = multipliers

    def scale(self, dtype: tf.DType) -> tf.Tensor:
        """Product of the multipliers."""
        scale = tf.ones([], dtype)
        for multiplier in self.multipliers:
            scale *= tf.cast(multiplier(), dtype)
        return scale

    @property
    def output_gradient_key(self) -> tuple[int, str] | None:
        return None

    def examples(self, dtype: tf.DType) -> tf.Tensor:
        """N, the examples in the batch."""
        raise NotImplementedError

    def positions(self, dtype: tf.DType) -> tf.Tensor:
        """M = N·S, the rows of the flattened input."""
        raise NotImplementedError

    def contract(self, dtype: tf.DType) -> tf.Tensor:
        """The gradient that this use contributes, in the shape of the contraction's result."""
        raise NotImplementedError

    def sums(self, groups: int, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor] | None:
        """Both operands summed over each example's positions; None where that has no meaning.

        Returns:
            Of the rows and of the columns of the gradient matrix, [N, groups, n] each, without the
            multipliers.
        """
        return None


class DenseUse(Use):
    """gradient [rows, columns] = rows operandᵀ [rows, M] · columns operand [M, columns]."""

    kind = "dense"

    def __init__(self, rows: Operand, columns: Operand, multipliers: Multipliers = ()):
        super().__init__((rows.size, columns.size), multipliers)
        self.rows, self.columns = rows, columns
        self.transposed = graph.created_later(rows.source, columns.source)

    @property
    def output_gradient_key(self) -> tuple[int, str]:
        operand = self.rows if self.transposed else self.columns
        return graph.key(operand.source)

    def input_operand(self) -> Operand:
        return self.columns if self.transposed else self.rows

    def examples(self, dtype: tf.DType) -> tf.Tensor:
        return tf.cast(self.input_operand().examples(), dtype)

    def positions(self, dtype: tf.DType) -> tf.Tensor:
        operand = self.input_operand()
        return tf.cast(tf.size(operand.tensor) // operand.size, dtype)

    def contract(self, dtype: tf.DType) -> tf.Tensor:
        product = tf.matmul(self.rows.matrix(dtype), self.columns.matrix(dtype), transpose_a=True)
        return product * self.scale(dtype)

    def sums(self, groups: int, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
        examples = self.input_operand().examples()

        def of(operand: Operand) -> tf.Tensor:
            by_example = tf.reshape(operand.matrix(dtype), [examples, -1, operand.size])
            return tf.reduce_sum(by_example, axis=1, keepdims=True)

        return of(self.rows), of(self.columns)


class PatchArguments(TypedDict):
    """What the functions of `patches` need to know of a convolution."""

    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...]
    groups: int


class ConvolutionUse(Use):
    """gradient [*kernel size, channels / groups, filters] of a convolution.

    A transposed convolution's kernel gradient is the same contraction with the roles of image and
    output gradient exchanged.
    """

    kind = "convolution"

    def __init__(
        self,
        image: tf.Tensor,
        filters: tf.Tensor,
        geometry: Geometry,
        contraction_shape: Sequence[int],
        multipliers: Multipliers = (),
    ):
        super().__init__(contraction_shape, multipliers)
        self.image_tensor, self.filters_tensor = image, filters
        self.geometry = geometry
        self.transposed = graph.created_later(graph.skip_shapes(image), graph.skip_shapes(filters))

    @property
    def output_gradient_key(self) -> tuple[int, str]:
        tensor = self.image_tensor if self.transposed else self.filters_tensor
        return graph.key(graph.skip_shapes(tensor))

    def image(self, dtype: tf.DType) -> tf.Tensor:
        """What the kernel slides over, [N, *spatial, channels]."""
        image = _channels_last(tf.cast(self.image_tensor, dtype), self.geometry)
        if self.geometry.space_to_batch is None:
            return image
        paddings, outputs = self.geometry.space_to_batch
        rank = image.shape.rank - 2
        paddings = tf.concat([[[0, 0]], tf.cast(paddings, tf.int32), [[0, 0]]], axis=0)
        padded = tf.pad(image, paddings)
        reach = [
            (size - 1) * dilation
            for size, dilation in zip(
                self.geometry.kernel_size, self.geometry.dilations, strict=True
            )
        ]
        needed = outputs + tf.constant(reach, tf.int32)
        cropped = tf.slice(padded, [0] * (rank + 2), tf.concat([[-1], needed, [-1]], axis=0))
        spatial = [None] * rank
        if isinstance(outputs, tuple):
            spatial = [size + more for size, more in zip(outputs, reach, strict=True)]
        return tf.ensure_shape(cropped, [image.shape[0], *spatial, image.shape[-1]])

    def filters(self, dtype: tf.DType) -> tf.Tensor:
        """The other operand, [N, *output spatial, filters]."""
        return _channels_last(tf.cast(self.filters_tensor, dtype), self.geometry)

    def patch_arguments(self) -> PatchArguments:
        geometry = self.geometry
        return {
            "kernel_size": geometry.kernel_size,
            "strides": geometry.strides,
            "dilations": geometry.dilations,
            "padding": "VALID" if geometry.space_to_batch is not None else geometry.padding,
            "groups": geometry.groups,
        }

    def patch_second_moment(self, image: tf.Tensor) -> tf.Tensor:
        """Sum of patch·patchᵀ over the patches of `image`, [groups, rows, rows]."""
        return patch_second_moment(image, **self.patch_arguments())

    def patch_sum(self, image: tf.Tensor) -> tf.Tensor:
        """Sum of the patches of `image`, [groups, rows]."""
        over_batch = tf.reduce_sum(image, axis=0, keepdims=True)
        return tf.squeeze(patch_sums(over_batch, **self.patch_arguments()), 0)

    def examples(self, dtype: tf.DType) -> tf.Tensor:
        source = self.filters_tensor if self.transposed else self.image_tensor
        return tf.cast(_length(graph.skip_shapes(source)), dtype)

    def positions(self, dtype: tf.DType) -> tf.Tensor:
        axis = 1 if self.geometry.channels_first else -1
        channels = self.filters_tensor.shape[axis] or tf.shape(self.filters_tensor)[axis]
        return tf.cast(tf.size(self.filters_tensor) // channels, dtype)

    def sums(self, groups: int, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
        rows = patch_sums(self.image(dtype), **self.patch_arguments())
        filters = self.filters(dtype)
        columns = tf.reduce_sum(filters, axis=list(range(1, filters.shape.rank - 1)))
        return rows, tf.reshape(columns, [-1, groups, filters.shape[-1] // groups])

    def contract(self, dtype: tf.DType) -> tf.Tensor:
        image, filters = self.image(dtype), self.filters(dtype)
        arguments = self.patch_arguments()
        kernel_shape = (*self.geometry.kernel_size, *self.contraction_shape[-2:])
        # The convolution's own derivative, group by group.
        with tf.GradientTape() as tape:
            kernel = tf.zeros(kernel_shape, dtype)
            tape.watch(kernel)
            outputs = self._convolve(image, kernel, arguments)
            value = tf.reduce_sum(outputs * filters)
        result = tape.gradient(value, kernel) * self.scale(dtype)
        return tf.reshape(result, self.contraction_shape)

    def _convolve(
        self, image: tf.Tensor, kernel: tf.Tensor, arguments: PatchArguments
    ) -> tf.Tensor:
        padding = arguments["padding"]
        if not isinstance(padding, str):
            image, padding = tf.pad(image, [(0, 0), *padding, (0, 0)]), "VALID"
        images = tf.split(image, arguments["groups"], -1)
        outputs = [
            tf.nn.convolution(x, k, arguments["strides"], padding, dilations=arguments["dilations"])
            for x, k in zip(images, self._kernel_parts(kernel), strict=True)
        ]
        return tf.concat(outputs, -1)

    def _kernel_parts(self, kernel: tf.Tensor) -> list[tf.Tensor]:
        return tf.split(kernel, self.geometry.groups, -1)


class DepthwiseUse(ConvolutionUse):
    """gradient [*kernel size, channels, multiplier]: one small convolution a channel."""

    kind = "depthwise convolution"

    def _kernel_parts(self, kernel: tf.Tensor) -> list[tf.Tensor]:
        return tf.split(kernel, self.geometry.groups, -2)


class EmbeddingUse(Use):
    """gradient [vocabulary, columns]: output gradients summed by index."""

    kind = "embedding"

    def __init__(
        self,
        indices: tf.Tensor,
        values: tf.Tensor,
        contraction_shape: Sequence[int],
        multipliers: Multipliers = (),
    ):
        super().__init__(contraction_shape, multipliers)
        self.indices_tensor, self.values_tensor = indices, values

    @property
    def output_gradient_key(self) -> tuple[int, str]:
        return graph.key(graph.skip_shapes(self.values_tensor))

    def indices(self) -> tf.Tensor:
        return tf.reshape(self.indices_tensor, [-1])

    def values(self, dtype: tf.DType) -> tf.Tensor:
        return tf.reshape(tf.cast(self.values_tensor, dtype), [-1, self.contraction_shape[1]])

    def examples(self, dtype: tf.DType) -> tf.Tensor:
        return tf.cast(_length(graph.skip_shapes(self.indices_tensor)), dtype)

    def positions(self, dtype: tf.DType) -> tf.Tensor:
        return tf.cast(tf.size(self.indices_tensor), dtype)

    def contract(self, dtype: tf.DType) -> tf.Tensor:
        values, rows = self.values(dtype), self.contraction_shape[0]
        return tf.math.unsorted_segment_sum(values, self.indices(), rows) * self.scale(dtype)


class ElementwiseUse(Use):
    """gradient = sum over examples of a tensor [N, *shape] that the graph holds."""

    kind = "elementwise"

    def __init__(
        self,
        per_example: Callable[[], tf.Tensor],
        shape: Sequence[int],
        output_gradient: tuple[int, str] | None = None,
    ):
        super().__init__(shape, ())
        self.per_example_tensor = per_example
        self._output_gradient = output_gradient
        self._formed: tuple[tf.Graph, tf.DType, tf.Tensor] | None = None

    @property
    def output_gradient_key(self) -> tuple[int, str] | None:
        return self._output_gradient

    def per_example(self, dtype: tf.DType) -> tf.Tensor:
        """Each example's gradient, [N, size]; formed once in a graph."""
        here = tf.compat.v1.get_default_graph()
        if self._formed is None or self._formed[0] is not here or self._formed[1] != dtype:
            size = math.prod(self.contraction_shape)
            gradients = tf.reshape(tf.cast(self.per_example_tensor(), dtype), [-1, size])
            self._formed = (here, dtype, gradients)
        return self._formed[2]

    def examples(self, dtype: tf.DType) -> tf.Tensor:
        return tf.cast(_length(self.per_example(dtype)), dtype)

    def positions(self, dtype: tf.DType) -> tf.Tensor:
        return self.examples(dtype)

    def contract(self, dtype: tf.DType) -> tf.Tensor:
        return tf.reshape(tf.reduce_sum(self.per_example(dtype), axis=0), self.contraction_shape)


def _length(tensor: tf.Tensor) -> tf.Tensor | int:
    """Of the first dimension, a number where it is static."""
    return tensor.shape[0] or tf.shape(tensor)[0]


def _channels_last(tensor: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    if not geometry.channels_first:
        return tensor
    rank = tensor.shape.rank
    return tf.transpose(tensor, (0, *range(2, rank), 1))
