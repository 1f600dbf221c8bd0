"""Losses over the words of a target sentence, in float32 or wider whatever the model's precision.

Padding counts for nothing, and a loss is a mean over words: of a batch, not of its sentences.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from nmt.models.embeddings import at_least_float32
from nmt.soft_alignment import (
    SoftAlignment,
    counted_steps,
    soft_alignment,
    softmax_and_log_sums,
)
from nmt.subwords import END, PAD, UNKNOWN


def smoothed_cross_entropy(
    targets: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0
) -> tf.Tensor:
    """The cross-entropy of each word with its smoothed label (Szegedy et al., 2016, section 7).

    The label is q = (1 - ε) onehot(y) + ε / V, so that the loss of one word is

        log Σᵥ exp oᵥ - (1 - ε) o_y - ε mean(o)

    Neither labels nor log-probabilities are ever formed: one pass over the logits gives loss and
    gradient.

    Args:
        targets: ids y [...].
        logits: o [..., V].
        smoothing: ε in [0, 1).

    Returns:
        [...], in float32 or wider, padding included.
    """
    vocabulary = logits.shape[-1]
    logits = tf.cast(logits, at_least_float32(logits.dtype))
    flat = _smoothed_cross_entropy(
        tf.reshape(logits, [-1, vocabulary]), tf.reshape(targets, [-1]), smoothing
    )
    return tf.reshape(flat, tf.shape(targets))


def _smoothed_cross_entropy(
    logits: tf.Tensor, targets: tf.Tensor, smoothing: float
) -> tf.Tensor:  # [n, V], [n] -> [n]
    @tf.custom_gradient
    def losses(logits: tf.Tensor) -> Any:
        probabilities, log_sums = softmax_and_log_sums(logits)
        loss = log_sums - (1.0 - smoothing) * tf.gather(logits, targets, batch_dims=1)
        if smoothing:
            loss -= smoothing * tf.reduce_mean(logits, axis=-1)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            result = probabilities
            if smoothing:
                result -= smoothing / logits.shape[-1]
            result *= upstream[:, tf.newaxis]
            places = tf.stack([tf.range(tf.size(targets)), tf.cast(targets, tf.int32)], axis=1)
            return tf.tensor_scatter_nd_add(result, places, (smoothing - 1.0) * upstream)

        return loss, gradient

    return losses(logits)


@keras.saving.register_keras_serializable(package="nmt")
class SmoothedCrossEntropy(keras.losses.Loss):
    """The mean of `smoothed_cross_entropy` over the words of a batch that are not padding.

    Args:
        smoothing: ε, the share of a label's mass that is spread over the whole vocabulary.
        pad_id: the id of padding in the targets.

    Call arguments:
        y_true: ids [batch, T].
        y_pred: logits [batch, T, V].
        sample_weight: optional weights, broadcast to [batch, T]: the mean is then a weighted one.

    Returns:
        A scalar; 0 for a batch of nothing but padding.

    Example:

    >>> model.compile(optimizer, loss=SmoothedCrossEntropy(0.1))
    """

    def __init__(
        self, smoothing: float = 0.0, pad_id: int = PAD, name: str = "smoothed_cross_entropy"
    ) -> None:
        # The mean over words is taken here: Keras would count padding.
        super().__init__(name=name, reduction="none")
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing: expected a share in [0, 1), got {smoothing!r}")
        self.smoothing, self.pad_id = smoothing, pad_id

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """See the class."""
        losses = self.call(y_true, y_pred)
        weights = tf.cast(tf.not_equal(y_true, self.pad_id), losses.dtype)
        if sample_weight is not None:
            weights *= tf.cast(sample_weight, losses.dtype)
        return tf.math.divide_no_nan(tf.reduce_sum(losses * weights), tf.reduce_sum(weights))

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """The loss of every position, padding included: [batch, T]."""
        return smoothed_cross_entropy(y_true, tf.convert_to_tensor(y_pred), self.smoothing)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {"smoothing": self.smoothing, "pad_id": self.pad_id, "name": self.name}


# The least coverage P(y) that counts; the gradient of anything less is 0.
_LOG_LEAST_COVERAGE = math.log(1e-10)


def negative_log_coverage(alignment: SoftAlignment, hard: bool = False) -> tf.Tensor:
    """-log max(P(y_j), 1e-10) [batch, length], in log space.

    Args:
        alignment: see `nmt.soft_alignment`.
        hard: whether the step in place of the word takes the place of all steps:
            -log max(p_j(y_j), 1e-10).
    """
    log_probabilities = alignment.log_in_place if hard else alignment.log_coverage
    return -tf.maximum(log_probabilities, tf.cast(_LOG_LEAST_COVERAGE, log_probabilities.dtype))


@keras.saving.register_keras_serializable(package="nmt")
class SoftAlignedMaximumLikelihood(keras.losses.Loss):
    """SAML: whether a sampled sentence holds the reference's words, in any order.

    Xu, Niu and Carpuat (2019), "Differentiable Sampling with Flexible Reference Word Order for
    Neural Machine Translation", section 3. Of the logits o_t(v) of a free-running decoder,

        p_t(v) = softmax over v of o_t(v),    a_t(v) = softmax over t of o_t(v)
        P(v) = Σ_t a_t(v) p_t(v)
        loss = -mean over the words y of the references of log max(P(y), 1e-10)

    Padding, unknown words and ends are left out of the mean, which is taken over the words of the
    whole batch. A step does not count where an end or padding was sampled before it and the
    reference is past its own end. P is no distribution over v: there is no perplexity to it.

    Args:
        pad_id, unk_id, eos_id: ids of padding, unknown word and end.
        hard_alignment: compare word by word in place, p_j(y_j) instead of P(y_j).

    Call arguments:
        y_true: ids of the references [batch, length].
        y_pred: logits [batch, steps, V] of any float type; computed in float32 or wider.
        sample_weight: optional weights of the words, broadcast to [batch, length].
        samples: the words that were sampled [batch, steps]; by default the likeliest ones.

    Returns:
        A scalar; 0 if there is no word.

    Example:

    >>> loss = SoftAlignedMaximumLikelihood()
    >>> value = loss(reference_ids, sampled_logits)
    """

    def __init__(
        self,
        pad_id: int = PAD,
        unk_id: int = UNKNOWN,
        eos_id: int = END,
        hard_alignment: bool = False,
        name: str = "soft_aligned_maximum_likelihood",
    ) -> None:
        # The mean over words is taken here: Keras would count those that are left out.
        super().__init__(name=name, reduction="none")
        self.pad_id, self.unk_id, self.eos_id = pad_id, unk_id, eos_id
        self.hard_alignment = hard_alignment

    def __call__(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, samples: Any = None
    ) -> tf.Tensor:
        """See the class."""
        losses = self.call(y_true, y_pred, samples)
        weights = tf.cast(self.words(y_true), losses.dtype)
        if sample_weight is not None:
            weights *= tf.cast(sample_weight, losses.dtype)
        return tf.math.divide_no_nan(tf.reduce_sum(losses * weights), tf.reduce_sum(weights))

    def call(self, y_true: Any, y_pred: Any, samples: Any = None) -> tf.Tensor:
        """The loss of every position, those included that are left out of the mean."""
        y_true, y_pred = tf.cast(y_true, tf.int32), tf.convert_to_tensor(y_pred)
        if samples is None:
            samples = tf.argmax(y_pred, axis=-1)
        samples = tf.cast(samples, tf.int32)
        counted = counted_steps(y_true, samples, self.pad_id, self.eos_id)
        alignment = soft_alignment(y_true, y_pred, counted)
        return negative_log_coverage(alignment, self.hard_alignment)

    def words(self, y_true: Any) -> tf.Tensor:
        """Which positions of the references count: bool [batch, length]."""
        y_true = tf.cast(y_true, tf.int32)
        left_out = (self.pad_id, self.unk_id, self.eos_id)
        return tf.reduce_all([tf.not_equal(y_true, word) for word in left_out], axis=0)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        names = ("pad_id", "unk_id", "eos_id", "hard_alignment", "name")
        return {name: getattr(self, name) for name in names}
