"""Which inputs a convolution reads, along each of its spatial dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

Padding = str | Sequence[tuple[int, int]]


class Axis:
    """One spatial dimension: tap p of output i reads input ``i·stride + p·dilation - before``.

    ``length``, ``before`` and ``outputs`` are integers where the input's shape is static and scalar
    int32 tensors otherwise.
    """

    def __init__(
        self,
        length: int | tf.Tensor,
        size: int,
        stride: int,
        dilation: int,
        padding: str | tuple[int, int],
    ) -> None:
        self.length, self.size, self.stride, self.dilation = length, size, stride, dilation
        extent = (size - 1) * dilation + 1
        maximum = max if isinstance(length, int) else tf.maximum
        if padding == "SAME":
            self.outputs = (length + stride - 1) // stride
            total = maximum((self.outputs - 1) * stride + extent - length, 0)
            self.before = total // 2
        else:
            self.before, after = (0, 0) if isinstance(padding, str) else padding
            room = length + self.before + after - extent
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


def axes_of(
    inputs: tf.Tensor,
    kernel_size: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: Padding,
) -> list[Axis]:
    """The spatial dimensions of a convolution of ``inputs``, ``[N, *spatial, C]``.

    Raises:
        ValueError: The arguments' lengths differ from the number of spatial dimensions, or the
            padding is unknown.
    """
    rank = inputs.shape.rank - 2
    lengths = [(len(kernel_size), "kernel_size"), (len(strides), "strides")]
    lengths += [(len(dilations), "dilations")]
    paddings: list[str | tuple[int, int]]
    if isinstance(padding, str):
        if padding.upper() not in ("SAME", "VALID"):
            raise ValueError(f"padding must be 'SAME', 'VALID' or pairs, not {padding!r}")
        paddings = [padding.upper()] * rank
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
        axes.append(Axis(length, kernel_size[i], strides[i], dilations[i], paddings[i]))
    return axes
