"""How many threads a process uses."""

from __future__ import annotations

import os

import tensorflow as tf

from models.benchmark.record import Conditions
from tfkfac.ranks import Ranks


def count(conditions: Conditions, ranks: Ranks) -> int:
    """As many as asked for, or this process's part of the cores that it may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return conditions.threads or max(1, (cores or 1) // ranks.size)


def use(conditions: Conditions, ranks: Ranks) -> int:
    """Has TensorFlow use them, before it does anything else; returns how many."""
    threads = count(conditions, ranks)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return threads
