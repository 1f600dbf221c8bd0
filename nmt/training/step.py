"""One update: terms of all ranks, gradient, optimizer."""

from __future__ import annotations

from functools import partial
from typing import Any

import tensorflow as tf

from nmt.training.objectives import Batch, Objective
from tfkfac.ranks import Ranks


class TrainingStep:
    """Updates a model with one batch of each rank.

    The loss is what one process would get for the union of the ranks' batches: each term's total
    is divided by its count over all ranks, so that a rank with more words weighs more.

    Args:
        model: a model with weights.
        optimizer: built for them.
        objective: what to minimise.
        ranks: this process among others; all of them must take the same steps.
        optimizer_averages: whether the optimizer averages gradients over ranks itself, as K-FAC
            does after it has read its statistics off their graph.
        jit: compile with XLA, on one rank alone.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        objective: Objective,
        ranks: Ranks,
        optimizer_averages: bool = False,
        jit: bool = False,
    ) -> None:
        self._model, self._optimizer, self._objective = model, optimizer, objective
        self._ranks = ranks
        self._averages = ranks.size > 1 and not optimizer_averages
        self._jit = jit
        self._compiled: dict[str, Any] = {}  # by stage

    def __call__(self, batch: Batch, update: int, learning_rate: float) -> tf.Tensor:
        """Makes update number `update`, counted from 1.

        Returns:
            Sum and count of each of the objective's terms over all ranks: float32 [terms, 2].
        """
        self._optimizer.learning_rate = learning_rate
        stage = self._objective.stage(update)
        if stage not in self._compiled:
            side = tf.TensorSpec([None, None], tf.int32)
            self._compiled[stage] = tf.function(
                partial(self._update, stage=stage),
                input_signature=[{"source": side, "target": side}, tf.TensorSpec([], tf.int64)],
                jit_compile=self._jit,
            )
        return self._compiled[stage](batch, tf.constant(update, tf.int64))

    def _update(self, batch: Batch, update: tf.Tensor, stage: str) -> tf.Tensor:
        variables = self._model.trainable_variables
        with tf.GradientTape() as tape:
            terms = self._objective(batch, update, stage)
            ordered = [terms[name] for name in self._objective.terms]
            sums = tf.stack([[tf.cast(x, tf.float32) for x in term[:2]] for term in ordered])
            sums = self._sum(tf.stop_gradient(sums))
            loss = tf.add_n(
                [
                    term.weight * term.total * self._ranks.size / tf.maximum(sums[i, 1], 1.0)
                    for i, term in enumerate(ordered)
                ]
            )
            scaled = self._optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, variables)
        if self._averages:
            gradients = self._average(gradients)
        self._optimizer.apply(gradients, variables)
        return sums

    def _sum(self, tensor: tf.Tensor) -> tf.Tensor:
        if self._ranks.size == 1:
            return tensor
        import horovod.tensorflow as hvd

        return hvd.allreduce(tensor, name="nmt_terms", op=hvd.Sum)

    def _average(self, gradients: list[Any]) -> list[Any]:
        import horovod.tensorflow as hvd

        used = [i for i, gradient in enumerate(gradients) if gradient is not None]
        dense = [tf.convert_to_tensor(gradients[i]) for i in used]
        means = hvd.grouped_allreduce(dense, name="nmt_gradients", op=hvd.Average)
        return [means[used.index(i)] if i in used else None for i in range(len(gradients))]
