"""Losses over the words of a target sentence, in float32 or wider whatever the model's precision.

Padding counts for nothing, and a loss is a mean over words: of a batch, not of its sentences.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from nmt.models.embeddings import at_least_float32
from nmt.subwords import PAD


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
        loss, difference = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(
            features=logits, labels=targets
        )  # difference: softmax - onehot
        if smoothing:
            chosen = tf.gather(logits, targets, batch_dims=1)
            loss += smoothing * (chosen - tf.reduce_mean(logits, axis=-1))

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            result = difference
            if smoothing:
                result -= smoothing / logits.shape[-1]
            result *= upstream[:, tf.newaxis]
            if smoothing:
                places = tf.stack([tf.range(tf.size(targets)), tf.cast(targets, tf.int32)], axis=1)
                result = tf.tensor_scatter_nd_add(result, places, smoothing * upstream)
            return result

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
