"""The probabilities that models give to translations that are already there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from nmt.decoding.ensemble import Ensemble
from nmt.models.interface import TranslationModel
from nmt.subwords import PAD
from tfkfac.errors import InputError


@dataclass(frozen=True)
class Scores:
    """What models think of given translations.

    Attributes:
        log_probabilities: [batch, T], of each target word, END included; 0 at padding.
        attention: [batch, T, S], each target word's weights on the source positions.
    """

    log_probabilities: np.ndarray
    attention: np.ndarray


class Scorer:
    """Scores pairs with one model or several, compiled once, for any number of batches.

    Args:
        models: one model, or an ensemble: the mean of their word probabilities counts.

    Raises:
        InputError: the models' target vocabularies differ, or there is no model.
    """

    def __init__(self, models: Sequence[TranslationModel]) -> None:
        self.ensemble = Ensemble(models)
        spec = tf.TensorSpec([None, None], tf.int32)
        self._score = tf.function(self.score, input_signature=(spec, spec), autograph=False)

    def __call__(self, source: np.ndarray, target: np.ndarray) -> Scores:
        """Scores pairs of sentences.

        Args:
            source: int32 [batch, S], rows ending with END, then PAD.
            target: int32 [batch, T], the same.

        Raises:
            InputError: a sentence is longer than the model's positions.
        """
        longest = self.ensemble.longest
        for side, ids in (("source", source), ("target", target)):
            if longest is not None and ids.shape[1] > longest:
                raise InputError(
                    f"a {side} sentence has {ids.shape[1]} subwords, the model reads at most "
                    f"{longest} (max_positions)"
                )
        found = self._score(tf.constant(source, tf.int32), tf.constant(target, tf.int32))
        return Scores(*(tensor.numpy() for tensor in found))

    def score(self, source: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The same on tensors: log-probabilities [batch, T] and attention [batch, T, S]."""
        each, attentions = [], []
        for model in self.ensemble.models:
            outputs, attention = model.teacher_forced({"source": source, "target": target})
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target, model.logits(outputs))
            each.append(-losses)
            attentions.append(attention)
        count = len(each)
        mean = tf.reduce_logsumexp(tf.stack(each), axis=0) - math.log(count)
        mean = tf.where(tf.equal(target, PAD), tf.constant(0, mean.dtype), mean)
        return mean, tf.add_n(attentions) / count


def score(models: Sequence[TranslationModel], source: np.ndarray, target: np.ndarray) -> Scores:
    """Scores one batch; see `Scorer`, which it makes and keeps with the first of the models."""
    key = tuple(id(model) for model in models)
    # Past Keras, which would track and save it.
    kept = models[0].__dict__.setdefault("_scorers", {}) if models else {}
    if key not in kept:
        kept[key] = Scorer(models)
    return kept[key](source, target)
