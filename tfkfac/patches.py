"""Second moments of convolution patches.

K-FAC's input factor of a convolution (Grosse & Martens 2016, "KFC") is the second moment of its
patches: the vectors, in the kernel's own ``(*kernel_size, channels)`` order, that the kernel is
multiplied with at each output position. There are two methods with the same result, and the
cheaper one is taken: `patch_extraction` cuts patches out, `patch_spectrum` makes use of their
overlap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from tfkfac import patch_extraction, patch_spectrum
from tfkfac.patch_axes import Axis, Padding, axes_of


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
        inputs: ``[N, *spatial, C]``, one to three spatial dimensions, float32 or float64. Where a
            spatial dimension is not static, or the machine has a GPU, the patches are extracted.
        kernel_size, strides, dilations: One integer per spatial dimension.
        padding: ``"SAME"``, ``"VALID"`` or a ``(before, after)`` pair per spatial dimension; padded
            positions count as zeros.
        groups: Channel groups of the convolution; ``C`` for a depthwise one.

    Returns:
        ``[groups, K, K]`` with ``K = prod(kernel_size) * C / groups``, rows and columns in the
        kernel's ``(*kernel_size, channels)`` order.

    Raises:
        ValueError: The arguments' lengths differ from the number of spatial dimensions, the
            padding is unknown, or the channels cannot be split into the groups.
    """
    axes = axes_of(inputs, kernel_size, strides, dilations, padding)
    channels = _channels(inputs, groups)
    if _prefers_spectrum(axes, inputs.shape[0] or 32, channels, groups):
        return patch_spectrum.second_moment(inputs, axes, groups)
    return patch_extraction.second_moment(inputs, axes, groups)


def patch_sums(
    inputs: tf.Tensor,
    kernel_size: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Padding,
    groups: int = 1,
) -> tf.Tensor:
    """Sum of each example's patches over its output positions; not normalised.

    Takes the arguments of :func:`patch_second_moment`. Their sum over the examples is the column
    that a bias adds to that matrix, whose patches then end in a 1.

    Returns:
        ``[N, groups, K]``.
    """
    axes = axes_of(inputs, kernel_size, strides, dilations, padding)
    channels = _channels(inputs, groups)
    sums = inputs  # [N, *spatial, C]
    for axis in axes:  # each turns the first spatial dimension into a trailing tap dimension
        sums = tf.tensordot(sums, axis.taps(inputs.dtype), [[1], [1]])
    # [N, C, *kernel_size] -> [N, groups, *kernel_size, C / groups]
    taps = math.prod(kernel_size)
    sums = tf.reshape(sums, [-1, groups, channels // groups, taps])
    return tf.reshape(tf.transpose(sums, [0, 1, 3, 2]), [-1, groups, taps * channels // groups])


def _channels(inputs: tf.Tensor, groups: int) -> int:
    channels = inputs.shape[-1]
    if channels is None:
        raise ValueError("inputs must have a static number of channels")
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be split into {groups} groups")
    return channels


def _prefers_spectrum(axes: list[Axis], batch: int, channels: int, groups: int) -> bool:
    """Compares the multiplications of the two methods."""
    if not all(isinstance(axis.length, int) for axis in axes):
        return False
    if tf.config.list_physical_devices("GPU"):
        # In TensorFloat-32, sums of the spectrum's terms could lose positive semidefiniteness.
        return False
    extraction = patch_extraction.multiplications(axes, batch, channels, groups)
    return patch_spectrum.multiplications(axes, batch, channels, groups) < extraction
