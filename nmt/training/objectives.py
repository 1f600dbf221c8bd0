"""Objectives: what a batch contributes to the loss.

A new objective is a class with the interface of `Objective` and a line in `OBJECTIVES`. How its
terms are averaged, over a batch and over ranks, is none of its business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from nmt.config import Loss
from nmt.losses import smoothed_cross_entropy
from nmt.models import TranslationModel
from nmt.subwords import PAD

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

    def __call__(self, batch: Batch, update: tf.Tensor) -> dict[str, Term]:
        """The terms of one batch.

        Args:
            batch: `{"source": int32 [batch, S], "target": int32 [batch, T]}`, END and PADs last.
            update: int64 scalar, the number of the update, counted from 1.

        Returns:
            A term for each name in `terms`.
        """
        ...


class MaximumLikelihood:
    """The cross-entropy of each target word given those before it, with smoothed labels.

    Terms: `loss`, which is minimised, and `cross_entropy`, its value without smoothing, if there
    is any.

    Args:
        model: the model to train.
        options: label smoothing.
    """

    generators: Sequence[Any] = ()

    def __init__(self, model: TranslationModel, options: Loss) -> None:
        self._model = model
        self._smoothing = options.label_smoothing
        self.terms: tuple[str, ...] = ("loss", "cross_entropy") if self._smoothing else ("loss",)

    def __call__(self, batch: Batch, update: tf.Tensor) -> dict[str, Term]:
        """See `Objective`."""
        logits = self._model(batch, training=True)
        terms = {"loss": word_loss(batch["target"], logits, self._smoothing)}
        if self._smoothing:
            plain = word_loss(batch["target"], tf.stop_gradient(logits))
            terms["cross_entropy"] = plain._replace(weight=0.0)
        return terms


def word_loss(target: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0) -> Term:
    """The cross-entropy of all words that are not padding: target [b, T], logits [b, T, V]."""
    losses = smoothed_cross_entropy(target, logits, smoothing)
    words = tf.cast(tf.not_equal(target, PAD), losses.dtype)
    return Term(tf.reduce_sum(losses * words), tf.reduce_sum(words))


OBJECTIVES: dict[str, Callable[[TranslationModel, Loss], Objective]] = {"mle": MaximumLikelihood}


def build(model: TranslationModel, options: Loss) -> Objective:
    """The configured objective for a model."""
    return OBJECTIVES[options.objective](model, options)
