"""What a step's exchange between ranks takes: the same tensors, exchanged by themselves."""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import keras

from tfkfac.callbacks import find_kfac
from tfkfac.engine import number
from tfkfac.layer_costs import basis_numbers, factor_numbers

REPETITIONS = 10


def seconds_per_step(model: keras.Model) -> float:
    """Seconds that an optimizer's exchanges take in a step, on average; all ranks call this.

    Gradients of all weights are averaged as in a step. K-FAC's factors (a triangle of each) and
    bases are exchanged as one vector of as many numbers each, and count once per interval. Ranks
    start together: what they wait for each other in a training is no part of it. In a training
    nothing overlaps the exchange, which begins when the last gradient is there.

    Args:
        model: compiled; after a step, if K-FAC's share is to count.
    """
    shapes = [tuple(variable.shape) for variable in model.trainable_variables]
    seconds = _median_seconds(shapes, "exchange_gradients")
    for place, optimizer in enumerate((model.optimizer, _second(model))):
        kfac = None if optimizer is None else find_kfac(optimizer)
        if kfac is None:
            continue
        factors = bases = 0
        for state in kfac.layers:
            for _, side in state.plan.sides():
                factors += state.plan.groups * factor_numbers(side, triangles=True)
                bases += state.plan.groups * basis_numbers(side, state.method == "inverse")
        for what, numbers, interval in (
            ("factors", factors, kfac.factor_interval),
            ("bases", bases, kfac.eigen_interval),
        ):
            taken = _median_seconds([(numbers,)], f"exchange_{what}{place}") if numbers else 0.0
            if what == "bases":
                taken /= 2  # each number travels once, not back and forth
            seconds += taken / number(interval)
    return seconds


def _second(model: keras.Model) -> Any:
    return getattr(model, "discriminator_optimizer", None)


def _median_seconds(shapes: list[tuple[int, ...]], name: str) -> float:
    """Of averaging tensors of these shapes over all ranks, in one fused operation."""
    import horovod.tensorflow as hvd
    import tensorflow as tf

    # Variables: what is constant would be averaged once, while the graph is made.
    flat = tf.Variable(tf.zeros([sum(math.prod(shape) for shape in shapes)]))
    sizes = [math.prod(shape) for shape in shapes]

    @tf.function(autograph=False)
    def exchange() -> Any:
        parts = hvd.grouped_allreduce(
            tf.split(flat, sizes), name=name, op=hvd.Average, ignore_name_scope=True
        )
        return tf.add_n([tf.reduce_sum(part) for part in parts])

    exchange().numpy()
    seconds = []
    for _ in range(REPETITIONS):
        hvd.allreduce(tf.zeros([1]), name="together")
        start = time.perf_counter()
        exchange().numpy()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
