"""One or several models as one distribution over the next word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from nmt.models.interface import DecoderState, TranslationModel
from tfkfac.errors import InputError


class NextWord(NamedTuple):
    """The distribution of the next word in every row: log P = scores - normalizers.

    Attributes:
        scores: [rows, V].
        normalizers: [rows, 1].
        attention: weights on the source positions [rows, S], the mean over the models.
    """

    scores: tf.Tensor
    normalizers: tf.Tensor
    attention: tf.Tensor


class Ensemble:
    """The mean of the word probabilities of several models; of one model, its own.

    Args:
        models: at least one.

    Raises:
        InputError: the models' target vocabularies differ.
    """

    def __init__(self, models: Sequence[TranslationModel]) -> None:
        self.models = tuple(models)
        sizes = {model.config.target_vocabulary for model in self.models}
        if len(sizes) != 1:
            listed = " and ".join(map(str, sorted(sizes))) or "no"
            raise InputError(
                f"decoding needs models of one target vocabulary, but got {listed} target subwords"
            )
        (self.vocabulary,) = sizes
        longest = [model.longest for model in self.models if model.longest is not None]
        self.longest = min(longest) if longest else None

    def start(self, source: tf.Tensor, steps: Any, copies: int) -> list[DecoderState]:
        """The models' states before the first word of each sentence, see `TranslationModel`."""
        return [
            model.start(model.encode(source, training=False), steps, copies)
            for model in self.models
        ]

    def step(
        self, states: Sequence[DecoderState], words: tf.Tensor
    ) -> tuple[NextWord, list[DecoderState]]:
        """The distribution after the words [rows] just chosen, and the next states."""
        found = [
            model.step(state, words, training=False)
            for model, state in zip(self.models, states, strict=True)
        ]
        states = [state for _, state, _ in found]
        if len(found) == 1:
            logits, _, attention = found[0]
            normalizers = tf.reduce_logsumexp(logits, axis=-1, keepdims=True)
            return NextWord(logits, normalizers, attention), states
        each = tf.stack([tf.nn.log_softmax(logits) for logits, _, _ in found])
        mean = tf.reduce_logsumexp(each, axis=0) - math.log(len(found))
        attention = tf.add_n([weights for _, _, weights in found]) / len(found)
        return NextWord(mean, tf.zeros_like(mean[:, :1]), attention), states

    def reorder(self, states: Sequence[DecoderState], parents: tf.Tensor) -> list[DecoderState]:
        """See `TranslationModel.reorder`."""
        return [
            model.reorder(state, parents) for model, state in zip(self.models, states, strict=True)
        ]

    def continued(
        self, states: Sequence[DecoderState], sentences: tf.Tensor, steps: Any
    ) -> list[DecoderState]:
        """The states of some sentences alone, with room for more steps."""
        return [
            model.extend(model.select(state, sentences), steps)
            for model, state in zip(self.models, states, strict=True)
        ]
