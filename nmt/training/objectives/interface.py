"""What an objective is: the terms that a batch contributes to the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

Batch = dict[str, tf.Tensor]


class Term(NamedTuple):
    """A part of the loss: `weight · Σ total / Σ count`, summed over the batches of all ranks.

    Attributes:
        total: scalar; gradients flow through it.
        count: scalar, what the total is a sum over, such as words.
        weight: a number or a scalar; 0 for what is measured and logged alone.
    """

    total: tf.Tensor
    count: tf.Tensor
    weight: Any = 1.0


class Objective(Protocol):
    """What a training minimises.

    Attributes:
        terms: names of the terms, as in the log's columns; the first one is the headline.
        generators: Keras seed generators that are not the model's; saved with checkpoints, and
            set apart on each rank, as the model's are.
    """

    terms: tuple[str, ...]
    generators: Sequence[Any]

    def stage(self, update: int) -> str:
        """The name of what is computed in an update, counted from 1.

        Whatever is the same in all updates of a stage is compiled once, and a stage computes
        nothing that it does not need.
        """
        ...

    def __call__(self, batch: Batch, update: tf.Tensor, stage: str) -> dict[str, Term]:
        """The terms of one batch.

        Args:
            batch: `{"source": int32 [batch, S], "target": int32 [batch, T]}`, END and PADs last.
            update: int64 scalar, the number of the update, counted from 1.
            stage: of the update.

        Returns:
            A term for each name in `terms`.
        """
        ...


def mean_over(values: tf.Tensor, counted: tf.Tensor, weight: Any = 1.0) -> Term:
    """The mean of values where `counted`, both of one shape."""
    counted = tf.cast(counted, values.dtype)
    return Term(tf.reduce_sum(values * counted), tf.reduce_sum(counted), weight)
