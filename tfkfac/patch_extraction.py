"""Second moments of patches that are cut out of the input one by one: for any geometry."""

from __future__ import annotations

import math
from itertools import product

import tensorflow as tf

from tfkfac.patch_axes import Axis


def multiplications(axes: list[Axis], batch: int, channels: int, groups: int) -> int:
    """What :func:`second_moment` costs, in multiplications at a matrix product's full speed.

    Writing a patch counts as 30 for each of its values, as 100 in groups; both are rough, from
    timings on two AVX2 cores.
    """
    size = math.prod(axis.size for axis in axes) * channels // groups
    outputs = math.prod(axis.outputs for axis in axes)
    return batch * outputs * groups * size * (size + (30 if groups == 1 else 100))


def second_moment(inputs: tf.Tensor, axes: list[Axis], groups: int) -> tf.Tensor:
    """``[groups, K, K]``, see :func:`tfkfac.patches.patch_second_moment`."""
    slices = _shifted_slices(inputs, axes)
    channels = inputs.shape[-1] // groups
    size = len(slices) * channels
    patches = tf.stack(slices, axis=-2)  # [N, *outputs, P, C]
    if groups > 1:
        patches = tf.reshape(patches, [-1, len(slices), groups, channels])
        patches = tf.transpose(patches, [2, 0, 1, 3])
    patches = tf.reshape(patches, [groups, -1, size])
    return tf.matmul(patches, patches, transpose_a=True)


def _shifted_slices(inputs: tf.Tensor, axes: list[Axis]) -> list[tf.Tensor]:
    """What each tap of the kernel reads: tensors ``[N, *outputs, C]`` in the kernel's order."""
    # [N, L / stride, stride, ..., C]: slices with steps are several times slower.
    paddings, shape = [(0, 0)], [-1]
    for axis in axes:
        maximum = max if isinstance(axis.length, int) else tf.maximum
        reach = (axis.size - 1) * axis.dilation // axis.stride + axis.outputs
        rows = maximum(reach, -(-(axis.before + axis.length) // axis.stride))
        paddings.append((axis.before, rows * axis.stride - axis.before - axis.length))
        shape += [rows, axis.stride]
    if not all(isinstance(count, int) and count == 0 for pair in paddings for count in pair):
        inputs = tf.pad(inputs, [*paddings, (0, 0)])
    padded = tf.reshape(inputs, [*shape, inputs.shape[-1]])
    slices = []
    for position in product(*(range(axis.size) for axis in axes)):
        window: list[slice | int] = [slice(None)]
        for tap, axis in zip(position, axes, strict=True):
            start, phase = divmod(tap * axis.dilation, axis.stride)
            window += [slice(start, start + axis.outputs), phase]
        slices.append(padded[tuple(window)])
    return slices
