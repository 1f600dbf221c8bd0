"""Maximum likelihood of the reference translation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from nmt.config import Loss
from nmt.losses import smoothed_cross_entropy
from nmt.models import TranslationModel
from nmt.subwords import PAD
from nmt.training.objectives.interface import Batch, Term, mean_over


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

    def stage(self, update: int) -> str:
        """There is only one."""
        return ""

    def __call__(
        self, batch: Batch, update: tf.Tensor, stage: str = "", encoding: Any = None
    ) -> dict[str, Term]:
        """See `Objective`; `encoding` is that of the source, if it is there already."""
        if encoding is None:
            logits = self._model(batch, training=True)
        else:
            outputs, _ = self._model.teacher_forced(batch, True, encoding)
            logits = self._model.logits(outputs)
        return word_terms(batch["target"], logits, self._smoothing)


def word_terms(target: tf.Tensor, logits: tf.Tensor, smoothing: float) -> dict[str, Term]:
    """`loss`, and with smoothing `cross_entropy`: target [..., T], logits [..., T, V]."""
    terms = {"loss": word_loss(target, logits, smoothing)}
    if smoothing:
        plain = word_loss(target, tf.stop_gradient(logits))
        terms["cross_entropy"] = plain._replace(weight=0.0)
    return terms


def word_loss(target: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0) -> Term:
    """The cross-entropy of all words that are not padding: target [..., T], logits [..., T, V]."""
    losses = smoothed_cross_entropy(target, logits, smoothing)
    return mean_over(losses, tf.not_equal(target, PAD))
