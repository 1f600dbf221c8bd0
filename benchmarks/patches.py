"""Milliseconds for the second moment of patches: extracting them against tfkfac.patches.

Prints a line per layer shape. Both methods take turns within one run, so that what else the
machine does meets both; the minimum is the number to compare.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import NamedTuple


class Shape(NamedTuple):
    """A convolution's input ``[batch, *spatial, channels]`` and geometry."""

    batch: int
    spatial: tuple[int, ...]
    channels: int
    kernel: int
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        size = "x".join(map(str, self.spatial))
        kind = "depthwise " if self.groups > 1 else ""
        return f"{kind}{self.kernel}^{len(self.spatial)}/{self.stride} {self.channels}@{size}"


SMALL = [  # ResNet-20 on 32x32 images
    Shape(128, (32, 32), 3, 3),
    Shape(128, (32, 32), 16, 3),
    Shape(128, (16, 16), 32, 3),
    Shape(128, (8, 8), 64, 3),
    Shape(128, (32, 32), 16, 3, stride=2),
    Shape(128, (16, 16), 32, 3, stride=2),
    Shape(128, (32, 32), 16, 1, stride=2),
    Shape(128, (16, 16), 32, 1),
]
LARGE = [  # ImageNet networks, and volumes
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
RESNET_20 = {0: 1, 1: 6, 4: 1, 2: 5, 5: 1, 3: 6}  # index in SMALL -> number of layers


def main() -> None:
    """Measures every shape and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ResNet-20's shapes only, 3 repeats")
    parser.add_argument("--repeats", type=int, help="measurements per shape (default 9, quick 3)")
    parser.add_argument("--threads", type=int, default=2, help="TensorFlow threads (default 2)")
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    arguments = parser.parse_args()
    repeats = arguments.repeats or (3 if arguments.quick else 9)
    if repeats < 1 or arguments.threads < 1:
        parser.error("--repeats and --threads must be positive")

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)

    print(f"{'shape':<28}{'extraction':>20}{'tfkfac.patches':>20}{'ratio':>8}  (min, median ms)")
    minima = []
    for shape in SMALL if arguments.quick else SMALL + LARGE:
        extraction, ours = measure(shape, repeats, arguments.jit)
        ratio = min(extraction) / min(ours)
        minima.append((min(extraction), min(ours)))
        print(f"{shape!s:<28}{_times(extraction)}{_times(ours)}{ratio:>8.1f}", flush=True)
    totals = [sum(minima[i][k] * n for i, n in RESNET_20.items()) * 1e3 for k in range(2)]
    print(f"ResNet-20's 3x3 layers: {totals[0]:.0f} ms and {totals[1]:.0f} ms (sum of minima)")


def measure(shape: Shape, repeats: int, jit: bool) -> tuple[list[float], list[float]]:
    """Seconds of each repeat, by extraction and by ``tfkfac.patches``."""
    import tensorflow as tf

    from tfkfac.patches import patch_second_moment

    rank = len(shape.spatial)
    kernel, strides, ones = [shape.kernel] * rank, [shape.stride] * rank, [1] * rank
    inputs = tf.random.normal([shape.batch, *shape.spatial, shape.channels])

    def extraction(x: tf.Tensor) -> tf.Tensor:
        if rank == 1:  # a row of an image
            x = x[:, tf.newaxis]
        sizes = [1, *([1] if rank == 1 else []), *kernel, 1]
        steps = [1, *([1] if rank == 1 else []), *strides, 1]
        if rank == 3:
            patches = tf.extract_volume_patches(x, sizes, steps, "SAME")
        else:
            patches = tf.image.extract_patches(x, sizes, steps, [1, 1, 1, 1], "SAME")
        width = shape.channels // shape.groups
        patches = tf.reshape(patches, [-1, shape.kernel**rank, shape.groups, width])
        patches = tf.reshape(
            tf.transpose(patches, [2, 0, 1, 3]), [shape.groups, -1, shape.kernel**rank * width]
        )
        return tf.matmul(patches, patches, transpose_a=True)

    def ours(x: tf.Tensor) -> tf.Tensor:
        return patch_second_moment(x, kernel, strides, ones, "SAME", shape.groups)

    methods = [tf.function(method, jit_compile=jit) for method in (extraction, ours)]
    results = [method(inputs) for method in methods]  # also compiles
    error = tf.reduce_max(abs(results[0] - results[1])) / tf.reduce_max(abs(results[0]))
    if error > 1e-4:
        raise SystemExit(f"{shape}: the two methods differ by {error:.1e} of the largest entry")
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for method, times in zip(methods, seconds, strict=True):
            start = time.perf_counter()
            method(inputs).numpy()
            times.append(time.perf_counter() - start)
    return seconds


def _times(seconds: list[float]) -> str:
    return f"{1e3 * min(seconds):>10.1f}{1e3 * statistics.median(seconds):>10.1f}"


if __name__ == "__main__":
    main()
