"""Measures the machine that it runs on, for the predictions of `costs`.

Under `horovodrun -np N` all ranks compute at the same time, so that the rates are those that one of
N ranks reaches next to the others, and the links are measured as well.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfkfac import eigen
from tfkfac.machine import Link, Machine
from tfkfac.patches import patch_second_moment
from tfkfac.plan import Side

DEFAULT_ORDERS = (32, 64, 128, 256, 512, 1024)
# Repetitions of each measurement: at least, at most, and seconds after which to stop.
FEWEST, MOST, ENOUGH_SECONDS = 3, 30, 0.5
LARGE_BYTES, SMALL_NUMBERS = 16 << 20, 16
TINY_OPERATIONS, FACTORS_AT_ONCE = 200, 4


def measure(
    name: str | None,
    orders: Sequence[int] = DEFAULT_ORDERS,
    hvd: Any = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Machine:
    """The machine's description; under Horovod every rank has to call this.

    Args:
        name: Of the machine; default: its processors or GPU and the number of ranks.
        orders: At which to time eigendecompositions.
        hvd: The module `horovod.tensorflow`, initialised, or None for a single process.
        progress: Called with what is measured next.
    """
    size = 1 if hvd is None else hvd.size()
    per_node = 1 if hvd is None else hvd.local_size()

    def timed(action: Callable[[], Any]) -> float:
        return _seconds(action, hvd)

    eigh = {}
    for order in sorted(set(orders)):
        progress(f"eigendecomposition of order {order}")
        eigh[order] = timed(_eigh(order)) / FACTORS_AT_ONCE
    progress("matrix products")
    n = 1024
    matmul_flops = 2 * n**3 / timed(_matmul(n))
    progress("a training step")
    training, flops = _training()
    training_flops = flops / timed(training)
    progress("factors")
    factors, flops = _factors()
    factor_flops = flops / timed(factors)
    progress("memory")
    numbers = 1 << 22  # a factor of order 2048
    memory_bandwidth = 2 * 4 * numbers / timed(_copy(numbers))
    progress("small operations")
    operation_seconds = timed(_tiny(TINY_OPERATIONS)) / TINY_OPERATIONS
    link = None
    if size > 1:
        progress("links between ranks")
        link = _link(hvd)
    gpus = tf.config.get_visible_devices("GPU")
    processor = f"{len(gpus)} GPU" if gpus else f"{os.cpu_count()} processor cores"
    return Machine(
        name=name or f"{processor}, {size} rank{'s' if size > 1 else ''}",
        eigh=eigh,
        matmul_flops=matmul_flops,
        training_flops=training_flops,
        factor_flops=factor_flops,
        memory_bandwidth=memory_bandwidth,
        operation_seconds=operation_seconds,
        ranks_per_node=per_node,
        gpu=bool(gpus),
        inside=link if per_node == size else None,
        across=link if per_node < size else None,
    )


def _seconds(action: Callable[[], Any], hvd: Any) -> float:
    """Least time of an action that returns a tensor, while every rank does the same.

    Other programs can only add to it. Of several ranks the slowest counts: the others wait for it.
    """
    action()  # traces, and brings everything into memory
    times: list[float] = []
    while len(times) < FEWEST or (len(times) < MOST and sum(times) < ENOUGH_SECONDS):
        if hvd is not None:
            hvd.allreduce(tf.zeros([1]), name="calibration_barrier")
        start = time.perf_counter()
        np.asarray(action())
        seconds = time.perf_counter() - start
        if hvd is not None:
            # All ranks must come to the same decision on going on.
            every = hvd.allgather(tf.constant([seconds], tf.float64), name="calibration_times")
            seconds = float(tf.reduce_max(every))
        times.append(seconds)
    return min(times)


def _eigh(order: int) -> Callable[[], Any]:
    """Several decompositions at once, as a rank that owns several factors does them."""
    factors = []  # variables: of constants the result would be computed while tracing
    for number in range(FACTORS_AT_ONCE):
        half = tf.random.stateless_normal([2 * order, order], seed=(number, order))
        factor = tf.matmul(half, half, transpose_a=True) / (2 * order)
        factors.append(tf.Variable(factor[tf.newaxis]))

    @tf.function
    def decompose() -> tf.Tensor:
        bases = [eigen.decompose(factor, Side(order)) for factor in factors]
        return tf.add_n([tf.reduce_sum(b.values) + tf.reduce_sum(b.vectors) for b in bases])

    return decompose


def _matmul(n: int) -> Callable[[], Any]:
    matrix = tf.Variable(tf.random.stateless_normal([n, n], seed=(1, n)))
    return tf.function(lambda: tf.reduce_sum(tf.matmul(matrix, matrix)))


def _training() -> tuple[Callable[[], Any], float]:
    """Forward and backward pass of a small residual network, and its FLOPs."""
    from tfkfac.model_trace import Subject, trace

    inputs = keras.Input((32, 32, 16))
    x = inputs
    for _ in range(4):
        y = keras.layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
        y = keras.layers.ReLU()(keras.layers.BatchNormalization()(y))
        x = keras.layers.Add()([x, y])
    model = keras.Model(inputs, x)
    batch = 64
    images = tf.random.stateless_normal([batch, 32, 32, 16], seed=(1, 2))
    flops = trace(Subject("calibration", model), batch, count_factors=False).training_flops

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(images, training=True)))
        gradients = tape.gradient(loss, model.trainable_variables)
        return tf.add_n([tf.reduce_sum(gradient) for gradient in gradients])

    return step, flops


def _factors() -> tuple[Callable[[], Any], float]:
    """Second moments of a convolution's patches and output gradients, and their FLOPs."""
    from tfkfac.model_trace import graph_flops

    shape = [64, 32, 32, 16]
    images = tf.Variable(tf.random.stateless_normal(shape, seed=(1, 3)))

    @tf.function
    def moments() -> tf.Tensor:
        rows = patch_second_moment(images, (3, 3), (1, 1), (1, 1), "SAME")
        matrix = tf.reshape(images, [-1, shape[-1]])
        return tf.reduce_sum(rows) + tf.reduce_sum(tf.matmul(matrix, matrix, transpose_a=True))

    return moments, graph_flops(moments.get_concrete_function().graph)


def _copy(numbers: int) -> Callable[[], Any]:
    source = tf.Variable(tf.ones([numbers]))
    target = tf.Variable(tf.zeros([numbers]))

    @tf.function
    def copy() -> tf.Tensor:
        target.assign(source * 2.0)
        return target[0]

    return copy


def _tiny(count: int) -> Callable[[], Any]:
    """A chain of products that are too small to take any time themselves."""
    matrix = tf.Variable(tf.eye(4))

    @tf.function
    def chain() -> tf.Tensor:
        value = tf.eye(4) + 0 * matrix
        for _ in range(count):
            value = tf.matmul(matrix, value)
        return value

    return chain


def _link(hvd: Any) -> Link:
    """From an allreduce of next to nothing, and one of much."""
    size = hvd.size()

    def reduce(numbers: int) -> Callable[[], Any]:
        values = tf.Variable(tf.ones([numbers]))
        name = f"calibration_{numbers}"
        return tf.function(lambda: hvd.allreduce(values, name=name, op=hvd.Sum)[0])

    steps = 2 * (size - 1)
    small = _seconds(reduce(SMALL_NUMBERS), hvd)
    large = _seconds(reduce(LARGE_BYTES // 4), hvd)
    sent = steps / size * LARGE_BYTES
    bandwidth = sent / max(large - small, 1e-9)
    return Link(bandwidth=bandwidth, latency=small / steps)


def comment(machine: Machine, ranks: int) -> str:
    """What to write above a measured description."""
    lines = [
        f"Measured by `tfkfac-plan calibrate` on {ranks} rank{'s' if ranks > 1 else ''} at once;",
        "each number is the least of several, of the slowest rank.",
    ]
    if machine.inside is None:
        lines.append("No link within a node was measured: calibrate under horovodrun on one node.")
    if machine.across is None:
        lines.append("No link between nodes was measured: calibrate under horovodrun on several.")
    return "\n".join(lines)
