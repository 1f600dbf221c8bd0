"""Second moments of convolution patches.

K-FAC's input factor of a convolution (Grosse & Martens 2016, "KFC") is the second moment of its
patches: the vectors, in the kernel's own ``(*kernel_size, channels)`` order, that the kernel is
multiplied with at each output position.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import tensorflow as tf

Padding = str | Sequence[tuple[int, int]]


def number_of_output_positions(
    inputs: tf.Tensor,
    kernel_size: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Padding,
) -> int | tf.Tensor:
    """Output positions of the convolution per example (S in K-FAC's formulas).

    Args:
        inputs: ``[N, *spatial, C]``.
        kernel_size, strides, dilations: One integer per spatial dimension.
        padding: ``"SAME"``, ``"VALID"`` or a ``(before, after)`` pair per spatial dimension.

    Returns:
        An ``int`` where the spatial shape is static, otherwise a scalar int32 tensor.
    """
    axes = _axes(inputs, kernel_size, strides, dilations, padding)
    positions = 1
    for axis in axes:
        positions = positions * axis.outputs
    return positions


def patch_second_moment(
    inputs: tf.Tensor,
    kernel_size: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Padding,
    groups: int = 1,
) -> tf.Tensor:
    """Sum of ``patch patchᵀ`` over the batch and all output positions; not normalised.

    Args:
        inputs: ``[N, *spatial, C]``, one to three spatial dimensions, float32 or float64.
        kernel_size, strides, dilations: One integer per spatial dimension.
        padding: ``"SAME"``, ``"VALID"`` or a ``(before, after)`` pair per spatial dimension; padded
            positions count as zeros.
        groups: Channel groups of the convolution; ``C`` for a depthwise one.

    Returns:
        ``[groups, K, K]`` with ``K = prod(kernel_size) * C / groups``, rows and columns in the
        kernel's ``(*kernel_size, channels)`` order.
    """
    axes = _axes(inputs, kernel_size, strides, dilations, padding)
    channels = _channels(inputs, groups)
    slices = _shifted_slices(inputs, axes)
    size = len(slices) * channels // groups
    patches = tf.stack(slices, axis=-2)  # [N, *outputs, P, C]
    patches = tf.reshape(patches, [-1, len(slices), groups, channels // groups])
    patches = tf.reshape(tf.transpose(patches, [2, 0, 1, 3]), [groups, -1, size])
    return tf.matmul(patches, patches, transpose_a=True)


def patch_sum(
    inputs: tf.Tensor,
    kernel_size: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Padding,
    groups: int = 1,
) -> tf.Tensor:
    """Sum of the patches over the batch and all output positions; not normalised.

    Takes the arguments of :func:`patch_second_moment`. It is the column that a bias adds to that
    matrix, whose patches then end in a 1.

    Returns:
        ``[groups, K]``.
    """
    axes = _axes(inputs, kernel_size, strides, dilations, padding)
    channels = _channels(inputs, groups)
    sums = tf.reduce_sum(inputs, axis=0)  # [*spatial, C]
    for axis in axes:  # each turns the leading spatial dimension into a trailing tap dimension
        sums = tf.tensordot(sums, axis.taps(inputs.dtype), [[0], [1]])
    # [C, *kernel_size] -> [groups, *kernel_size, C / groups]
    sums = tf.reshape(sums, [groups, channels // groups, -1])
    return tf.reshape(tf.transpose(sums, [0, 2, 1]), [groups, -1])


class _Axis:
    """One spatial dimension: tap ``p`` of output ``i`` reads input ``i·stride + p·dilation - before``.

    ``length``, ``before``, ``after`` and ``outputs`` are integers where the input's shape is static
    and scalar int32 tensors otherwise.
    """

    def __init__(self, length, size: int, stride: int, dilation: int, padding: str | tuple):
        self.length, self.size, self.stride, self.dilation = length, size, stride, dilation
        extent = (size - 1) * dilation + 1
        maximum = max if isinstance(length, int) else tf.maximum
        if padding == "SAME":
            self.outputs = (length + stride - 1) // stride
            total = maximum((self.outputs - 1) * stride + extent - length, 0)
            self.before = total // 2
            self.after = total - self.before
        else:
            self.before, self.after = (0, 0) if padding == "VALID" else padding
            room = length + self.before + self.after - extent
            self.outputs = maximum(room // stride + 1, 0)

    def taps(self, dtype: tf.DType) -> tf.Tensor:
        """``[size, length]``: 1 where the tap reads that input at some output position."""
        offset = (
            tf.range(self.length)[tf.newaxis, :]
            + self.before
            - tf.range(self.size)[:, tf.newaxis] * self.dilation
        )
        output = offset // self.stride
        reads = (offset % self.stride == 0) & (output >= 0) & (output < self.outputs)
        return tf.cast(reads, dtype)


def _axes(inputs, kernel_size, strides, dilations, padding) -> list[_Axis]:
    rank = inputs.shape.rank - 2
    lengths = [(len(kernel_size), "kernel_size"), (len(strides), "strides")]
    lengths += [(len(dilations), "dilations")]
    if isinstance(padding, str):
        padding = padding.upper()
        if padding not in ("SAME", "VALID"):
            raise ValueError(f"padding must be 'SAME', 'VALID' or pairs, not {padding!r}")
        paddings = [padding] * rank
    else:
        lengths += [(len(padding), "padding")]
        paddings = [(int(before), int(after)) for before, after in padding]
    for length, name in lengths:
        if length != rank:
            raise ValueError(
                f"{name} has {length} entries, but inputs has {rank} spatial dimensions"
            )
    dynamic = None
    axes = []
    for i in range(rank):
        length = inputs.shape[i + 1]
        if length is None:
            dynamic = tf.shape(inputs) if dynamic is None else dynamic
            length = dynamic[i + 1]
        axes.append(_Axis(length, kernel_size[i], strides[i], dilations[i], paddings[i]))
    return axes


def _channels(inputs: tf.Tensor, groups: int) -> int:
    channels = inputs.shape[-1]
    if channels is None:
        raise ValueError("inputs must have a static number of channels")
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be split into {groups} groups")
    return channels


def _shifted_slices(inputs: tf.Tensor, axes: list[_Axis]) -> list[tf.Tensor]:
    """What each tap of the kernel reads: tensors ``[N, *outputs, C]`` in the kernel's order."""
    padded = tf.pad(inputs, [(0, 0), *((axis.before, axis.after) for axis in axes), (0, 0)])
    slices = []
    for position in product(*(range(axis.size) for axis in axes)):
        window = [slice(None)]
        for tap, axis in zip(position, axes, strict=True):
            start = tap * axis.dilation
            window.append(slice(start, start + axis.outputs * axis.stride, axis.stride))
        slices.append(padded[tuple(window)])
    return slices
