"""Micro benchmarks: single operations, forward and backward, with the FLOPs that formulas say.

An operation is data in, data out: what is timed is `Operation.run`, compiled once, and its result
is waited for. Nothing here judges the numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

ITEM = 4  # bytes of a float32


@dataclass(frozen=True)
class Operation:
    """Something to time.

    Attributes:
        name: for tables.
        run: does it once and returns tensors.
        flops: floating point operations of a run, by formula; 0 where moving data is the work.
        traffic: bytes that a run reads and writes, each tensor counted once.
        images: examples of a run, for images per second; 0 where there are none.
    """

    name: str
    run: Callable[[], Any]
    flops: float
    traffic: float
    images: int = 0


def _tensor(seed: int, shape: tuple[int, ...]) -> tf.Tensor:
    values = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return tf.constant(values)


def _bytes(*tensors: Any) -> float:
    return float(sum(ITEM * int(np.prod(tensor.shape)) for tensor in tensors))


def _forward_and_backward(
    name: str,
    function: Callable[..., Any],
    operands: list[Any],
    flops: float,
    gradients: int,
    images: int,
) -> tuple[Operation, Operation]:
    """The operation, and the gradients of all its operands from one of its output.

    Args:
        gradients: how many times the forward FLOPs they take.
    """
    forward = tf.function(lambda *values: function(*values), autograph=False)
    output = forward(*operands)
    upstream = _tensor(99, tuple(output.shape))

    def backward(upstream: Any, *values: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = function(*values)
        # The forward result itself is pruned where the gradient has no use for it.
        return tape.gradient(result, values, output_gradients=upstream)

    compiled = tf.function(backward, autograph=False)
    moved = _bytes(*operands, output)
    return (
        Operation(f"{name} forward", lambda: forward(*operands), flops, moved, images),
        Operation(
            f"{name} backward",
            lambda: compiled(upstream, *operands),
            gradients * flops,
            2 * moved,
            images,
        ),
    )


def convolution_2d(
    batch: int = 32,
    size: int = 56,
    channels: int = 64,
    filters: int = 64,
    kernel: int = 3,
    stride: int = 1,
) -> tuple[Operation, Operation]:
    """A 2-D convolution, padded, of square images: 2 N H W/s² k² C F operations.

    Returns:
        Forward, and backward to images and kernel, which is twice as much.
    """
    image, weights = (
        _tensor(0, (batch, size, size, channels)),
        _tensor(1, (kernel, kernel, channels, filters)),
    )
    outputs = batch * (-(-size // stride)) ** 2 * filters
    return _forward_and_backward(
        "convolution 2-D",
        lambda x, w: tf.nn.conv2d(x, w, stride, "SAME"),
        [image, weights],
        2.0 * outputs * kernel**2 * channels,
        2,
        batch,
    )


def convolution_3d(
    batch: int = 2, size: int = 32, channels: int = 16, filters: int = 32, kernel: int = 3
) -> tuple[Operation, Operation]:
    """A 3-D convolution, padded, of cubes: 2 N D³ k³ C F operations; backward twice that."""
    volume = _tensor(0, (batch, *[size] * 3, channels))
    weights = _tensor(1, (*[kernel] * 3, channels, filters))
    return _forward_and_backward(
        "convolution 3-D",
        lambda x, w: tf.nn.conv3d(x, w, [1] * 5, "SAME"),
        [volume, weights],
        2.0 * batch * size**3 * filters * kernel**3 * channels,
        2,
        batch,
    )


def pooling(
    batch: int = 32, size: int = 112, channels: int = 64, window: int = 3, stride: int = 2
) -> tuple[Operation, Operation]:
    """Maxima of windows, padded: N H W/s² C (k² - 1) comparisons; an addition each back."""
    image = _tensor(0, (batch, size, size, channels))
    outputs = batch * (-(-size // stride)) ** 2 * channels
    forward, backward = _forward_and_backward(
        "pooling",
        lambda x: tf.nn.max_pool2d(x, window, stride, "SAME"),
        [image],
        float(outputs * (window**2 - 1)),
        1,
        batch,
    )
    return forward, Operation(
        backward.name, backward.run, float(outputs), backward.traffic, backward.images
    )


def matrix_product(rows: int = 1024, inner: int = 1024, columns: int = 1024) -> Operation:
    """A matrix product (GEMM): 2 m k n operations."""
    first, second = _tensor(0, (rows, inner)), _tensor(1, (inner, columns))
    run = tf.function(lambda: tf.matmul(first, second), autograph=False)
    moved = float(ITEM * (rows * inner + inner * columns + rows * columns))
    return Operation("matrix product", run, 2.0 * rows * inner * columns, moved)


def fully_connected(
    batch: int = 256, inputs: int = 2048, outputs: int = 1000
) -> tuple[Operation, Operation]:
    """A dense layer with bias: 2 N I O + N O operations, and 4 N I O + N O back."""
    x, w, b = _tensor(0, (batch, inputs)), _tensor(1, (inputs, outputs)), _tensor(2, (outputs,))
    product, additions = 2.0 * batch * inputs * outputs, float(batch * outputs)
    forward, backward = _forward_and_backward(
        "fully connected",
        lambda x, w, b: tf.matmul(x, w) + b,
        [x, w, b],
        product + additions,
        2,
        batch,
    )
    return forward, Operation(
        backward.name, backward.run, 2 * product + additions, backward.traffic, batch
    )


def eigendecomposition(order: int = 512) -> Operation:
    """Of a symmetric matrix, with vectors, as K-FAC does it.

    The nominal 9 n³: 4/3 n³ to reduce it to a tridiagonal one, the rest for the vectors (Golub and
    Van Loan, table 8.3.1). What an implementation does differs.
    """
    root = _tensor(0, (order, order))
    matrix = tf.matmul(root, root, transpose_b=True) / order
    run = tf.function(lambda: tf.linalg.eigh(matrix), autograph=False)
    return Operation("eigendecomposition", run, 9.0 * order**3, float(ITEM * 2 * order**2))


def allreduce(numbers: int = 25_000_000) -> Operation:
    """The sum of a vector over all ranks; on one rank there is nothing to do, and it says so.

    With P ranks each link of a ring carries 2 (P-1)/P of the vector, which is the traffic; the
    FLOPs are the (P-1)/P additions of a rank.

    Raises:
        ImportError: if there are several ranks by Horovod's account, but no Horovod.
    """
    import horovod.tensorflow as hvd

    vector = _tensor(0, (numbers,))
    ranks = hvd.size() if hvd.is_initialized() else 1

    def run() -> Any:
        return hvd.allreduce(vector, op=hvd.Sum, name="benchmark") if ranks > 1 else vector

    share = (ranks - 1) / ranks
    return Operation(
        f"allreduce on {ranks} ranks", run, share * numbers, 2 * share * ITEM * numbers
    )


def _wait(result: Any) -> None:
    """Returns when the result is there: a device works on after its call returns."""
    for tensor in tf.nest.flatten(result):
        if tensor is not None:
            tf.reshape(tensor, [-1])[:1].numpy()


def samples(
    operation: Operation,
    repetitions: int = 20,
    warm_up: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Seconds that runs take, each waited for.

    Args:
        operation: what to run.
        repetitions: runs that are timed.
        warm_up: runs before them, which compile, allocate and choose algorithms.
        clock: in seconds, never going back.

    Raises:
        ValueError: if the clock goes back, or nothing is to be timed.
    """
    if repetitions < 1:
        raise ValueError(f"{repetitions} repetitions give no sample")
    for _ in range(warm_up):
        _wait(operation.run())
    durations = []
    for _ in range(repetitions):
        start = clock()
        _wait(operation.run())
        durations.append(clock() - start)
        if durations[-1] < 0:
            raise ValueError(f"{operation.name}: the clock went back by {-durations[-1]} s")
    return durations


def roofline(operation: Operation, peak_flops: float, bandwidth: float) -> float:
    """The FLOPS that a machine allows: its peak, or what its memory can feed.

    Args:
        operation: what is run.
        peak_flops: FLOPs a second, measured with a large matrix product.
        bandwidth: bytes a second.
    """
    return min(peak_flops, bandwidth * operation.flops / operation.traffic)
