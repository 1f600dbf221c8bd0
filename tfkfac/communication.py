"""What K-FAC asks of other ranks: averages of gradients and of factors.

Every rank runs the same collectives under the same names in every trace, and stores each result, so
that no rank's graph can lose one that the others wait for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class SingleProcess:
    """No other rank."""

    rank, size = 0, 1

    def average(self, tensors: Sequence[tf.Tensor], name: str) -> list[tf.Tensor]:
        """The tensors themselves."""
        return list(tensors)


class Horovod:
    """Averages over the ranks that `horovodrun` started."""

    def __init__(self, hvd: Any):
        self._hvd = hvd
        self.rank, self.size = hvd.rank(), hvd.size()

    def average(self, tensors: Sequence[tf.Tensor], name: str) -> list[tf.Tensor]:
        """Element-wise means over ranks, in one fused operation called `name`."""
        if not tensors:
            return []
        return list(self._hvd.grouped_allreduce(list(tensors), name=name, op=self._hvd.Average))


Communication = SingleProcess | Horovod


def detect() -> Communication:
    """Horovod where the program imported it and called `hvd.init()`, else a single process."""
    hvd = sys.modules.get("horovod.tensorflow")
    if hvd is not None and hvd.is_initialized() and hvd.size() > 1:
        return Horovod(hvd)
    return SingleProcess()
