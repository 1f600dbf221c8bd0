"""Milliseconds for the second moment of patches: extracting them against tfkfac.patches.

Prints a line per layer shape. Both methods take turns within one run, so that what else the
machine does meets both; the minimum is the number to compare.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import tensorflow as tf


class Shape(NamedTuple):
    """A convolution's input ``[batch, *spatial, channels]`` and geometry."""

    batch: int
    spatial: tuple[int, ...]
    channels: int
    kernel: int
    stride: int = 1
    groups: int = 1

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """The kernel's size along each spatial dimension."""
        return (self.kernel,) * len(self.spatial)

    @property
    def strides(self) -> tuple[int, ...]:
        """The stride along each spatial dimension."""
        return (self.stride,) * len(self.spatial)

    def __str__(self) -> str:
        size = "x".join(map(str, self.spatial))
        kind = "depthwise " if self.groups > 1 else ""
        return f"{kind}{self.kernel}^{len(self.spatial)}/{self.stride} {self.channels}@{size}"


FIRST = Shape(128, (32, 32), 3, 3)
STAGES = [
    Shape(128, (32, 32), 16, 3),
    Shape(128, (16, 16), 32, 3),
    Shape(128, (8, 8), 64, 3),
]
DOWN = [
    Shape(128, (32, 32), 16, 3, stride=2),
    Shape(128, (16, 16), 32, 3, stride=2),
]
RESNET_20 = [FIRST, *[STAGES[0]] * 6, DOWN[0], *[STAGES[1]] * 5, DOWN[1], *[STAGES[2]] * 5]
SMALL = [
    FIRST,
    *STAGES,
    *DOWN,
    Shape(128, (32, 32), 16, 1, stride=2),
    Shape(128, (16, 16), 32, 1),
]
LARGE = [  # ImageNet networks, volumes, sequences
    Shape(32, (224, 224), 3, 7, stride=2),
    Shape(32, (56, 56), 64, 3),
    Shape(32, (28, 28), 128, 3),
    Shape(32, (14, 14), 256, 3),
    Shape(32, (7, 7), 512, 3),
    Shape(32, (28, 28), 128, 3, stride=2),
    Shape(32, (56, 56), 64, 1),
    Shape(32, (28, 28), 144, 3, groups=144),
    Shape(32, (28, 28), 144, 3, stride=2, groups=144),
    Shape(8, (24, 24, 24), 16, 3),
    Shape(128, (64,), 64, 5),
]


def main() -> None:
    """Measures every shape and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ResNet-20's shapes only, 3 repeats")
    parser.add_argument("--repeats", type=int, help="measurements per shape (default 9, quick 3)")
    parser.add_argument("--threads", type=int, default=2, help="TensorFlow threads (default 2)")
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    arguments = parser.parse_args()
    repeats = (3 if arguments.quick else 9) if arguments.repeats is None else arguments.repeats
    if repeats < 1 or arguments.threads < 1:
        parser.error("--repeats and --threads must be positive")

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # each row is a function of its own: no retracing
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)

    print(f"{'shape':<28}{'extraction':>20}{'tfkfac.patches':>20}{'ratio':>8}  (min, median ms)")
    for shape in SMALL if arguments.quick else SMALL + LARGE:
        _print_row(str(shape), *measure([shape], repeats, arguments.jit))
    # In one function, so that one layer's operations fill the gaps of another's.
    _print_row("ResNet-20's 3x3 layers", *measure(RESNET_20, repeats, arguments.jit))


def measure(shapes: list[Shape], repeats: int, jit: bool) -> tuple[list[float], list[float]]:
    """Seconds of each repeat, by extraction and by ``tfkfac.patches``, for all shapes together."""
    import tensorflow as tf

    from tfkfac.patches import patch_second_moment

    def extraction(shape: Shape, x: tf.Tensor) -> tf.Tensor:
        kernel, strides = list(shape.kernel_size), list(shape.strides)
        if len(kernel) == 1:  # a row of an image
            x, kernel, strides = x[:, tf.newaxis], [1, *kernel], [1, *strides]
        if len(kernel) == 3:
            patches = tf.extract_volume_patches(x, [1, *kernel, 1], [1, *strides, 1], "SAME")
        else:
            patches = tf.image.extract_patches(
                x, [1, *kernel, 1], [1, *strides, 1], [1, 1, 1, 1], "SAME"
            )
        taps, width = math.prod(kernel), shape.channels // shape.groups
        patches = tf.reshape(patches, [-1, taps, shape.groups, width])
        patches = tf.transpose(patches, [2, 0, 1, 3])
        patches = tf.reshape(patches, [shape.groups, -1, taps * width])
        return tf.matmul(patches, patches, transpose_a=True)

    def ours(shape: Shape, x: tf.Tensor) -> tf.Tensor:
        ones = [1] * len(shape.spatial)
        return patch_second_moment(x, shape.kernel_size, shape.strides, ones, "SAME", shape.groups)

    def compiled(
        method: Callable[[Shape, tf.Tensor], tf.Tensor], jit: bool
    ) -> Callable[[list[tf.Tensor]], list[tf.Tensor]]:
        def all_shapes(inputs: list[tf.Tensor]) -> list[tf.Tensor]:
            return [method(shape, x) for shape, x in zip(shapes, inputs, strict=True)]

        return tf.function(all_shapes, jit_compile=jit)

    inputs = [tf.random.normal([shape.batch, *shape.spatial, shape.channels]) for shape in shapes]
    # XLA has no kernel that extracts patches from volumes.
    volumes = any(len(shape.spatial) == 3 for shape in shapes)
    methods = [compiled(extraction, jit and not volumes), compiled(ours, jit)]
    for shape, one, other in zip(shapes, *(method(inputs) for method in methods), strict=True):
        error = float(tf.reduce_max(abs(one - other)) / tf.reduce_max(abs(one)))
        if error > 1e-4:
            raise SystemExit(f"{shape}: the two methods differ by {error:.1e} of the largest entry")
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for method, times in zip(methods, seconds, strict=True):
            start = time.perf_counter()
            for moment in method(inputs):
                moment.numpy()  # waits for it
            times.append(time.perf_counter() - start)
    return seconds


def _print_row(name: str, extraction: list[float], ours: list[float]) -> None:
    times = "".join(
        f"{1e3 * value:>10.1f}"
        for seconds in (extraction, ours)
        for value in (min(seconds), statistics.median(seconds))
    )
    print(f"{name:<28}{times}{min(extraction) / min(ours):>8.1f}", flush=True)


if __name__ == "__main__":
    main()
