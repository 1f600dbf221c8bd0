"""Soft alignment between a reference and a sampled sentence (Xu et al., 2019, section 3).

Of a free-running decoder's logits o_t(v) at its steps t,

    p_t(v) = softmax over v of o_t(v)     what step t predicts
    a_t(v) = softmax over t of o_t(v)     how strongly step t claims word v
    P(v)   = Σ_t a_t(v) p_t(v)

Only the columns of the reference's words matter. With g_tj = o_t(y_j) and z_t = log Σᵥ exp o_t(v),

    log P(y_j) = log Σ_t exp(2 g_tj - z_t) - log Σ_t exp g_tj

so that nothing underflows, and only g and z, never another tensor over the vocabulary, are kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from nmt.models.embeddings import at_least_float32

# In place of the logits of a step that does not count.
_MASKED = -1e9


class SoftAlignment(NamedTuple):
    """Which steps of a sample claim the words of its reference; masked steps have weight 0.

    Attributes:
        weights: a_t(y_j) [batch, steps, length].
        log_coverage: log P(y_j) [batch, length].
        log_in_place: log p_j(y_j) [batch, length], of the step that stands where the word stands;
            where there is no such step, that of the last one.
    """

    weights: tf.Tensor
    log_coverage: tf.Tensor
    log_in_place: tf.Tensor

    def entropy(self) -> tf.Tensor:
        """-Σ_t a_t log a_t [batch, length], in nats: 0 where a single step claims the word."""
        return -tf.reduce_sum(tf.math.xlogy(self.weights, self.weights), axis=1)


def soft_alignment(
    reference: tf.Tensor,
    logits: tf.Tensor,
    counted: tf.Tensor,
    time_major: bool = False,
) -> SoftAlignment:
    """The soft alignment of sampled sentences with their references, in float32 or wider.

    Args:
        reference: ids y [batch, length]. Words that no loss counts may be anything.
        logits: o [batch, steps, V].
        counted: bool [batch, steps], False at masked steps; see `counted_steps`.
        time_major: whether logits are [steps, batch, V] instead.
    """
    vocabulary = logits.shape[-1]
    logits = tf.cast(logits, at_least_float32(logits.dtype))
    lead = tf.shape(logits)[:2]
    words = reference if time_major else reference[:, tf.newaxis]
    words = tf.broadcast_to(words, tf.concat([lead, tf.shape(reference)[1:]], 0))
    chosen, log_sums = _chosen_logits(
        tf.reshape(logits, [-1, vocabulary]),
        tf.reshape(words, [-1, tf.shape(reference)[1]]),
    )
    chosen = tf.reshape(chosen, tf.shape(words))
    log_sums = tf.reshape(log_sums, lead)
    if time_major:
        chosen, log_sums = tf.transpose(chosen, [1, 0, 2]), tf.transpose(log_sums)

    log_probabilities = chosen - log_sums[:, :, tf.newaxis]  # batch x steps x length
    in_place = tf.minimum(tf.range(tf.shape(words)[-1]), tf.shape(chosen)[1] - 1)
    log_in_place = tf.gather(
        tf.transpose(log_probabilities, [0, 2, 1]),
        tf.broadcast_to(in_place, tf.shape(reference))[..., tf.newaxis],
        batch_dims=2,
    )
    chosen = tf.where(counted[:, :, tf.newaxis], chosen, tf.constant(_MASKED, chosen.dtype))
    log_weights = tf.nn.log_softmax(chosen, axis=1)
    return SoftAlignment(
        tf.exp(log_weights),
        tf.reduce_logsumexp(log_weights + log_probabilities, axis=1),
        tf.squeeze(log_in_place, -1),
    )


def counted_steps(
    reference: tf.Tensor, samples: tf.Tensor, pad_id: int, eos_id: int, overrun: bool = True
) -> tf.Tensor:
    """Which steps of a sample count.

    A step does not count if an end or padding was sampled before it and the reference is past its
    own end there.

    Args:
        reference: ids [batch, length], with or without an end, then padding.
        samples: ids [batch, steps].
        pad_id, eos_id: of padding and end.
        overrun: whether samples that have not ended may count beyond the reference's end, which
            makes the result depend on the number of steps. Otherwise no such step counts.

    Returns:
        bool [batch, steps].
    """
    steps = tf.shape(samples)[1]
    inside = tf.not_equal(reference[:, :steps], pad_id)
    inside = tf.pad(inside, [(0, 0), (0, steps - tf.shape(inside)[1])])
    if not overrun:
        return inside
    ends = tf.equal(samples, eos_id) | tf.equal(samples, pad_id)
    ended_before = tf.cumsum(tf.cast(ends, tf.int32), axis=1, exclusive=True) > 0
    return inside | ~ended_before


def softmax_and_log_sums(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """softmax(o) and log Σᵥ exp oᵥ of [n, V]; one needs hardly more than the other."""
    probabilities = tf.nn.softmax(logits)
    # The greatest probability is 1 / Σᵥ exp(oᵥ - max o).
    greatest = tf.reduce_max(logits, axis=-1), tf.reduce_max(probabilities, axis=-1)
    return probabilities, greatest[0] - tf.math.log(greatest[1])


def _chosen_logits(
    logits: tf.Tensor, words: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:  # n x V, n x length -> n x length, n
    """The logits of some words in each row, and log Σ exp of each row."""
    rows = tf.range(tf.shape(logits)[0])[:, tf.newaxis]
    # A word that is no id, such as padding without a column, is as good as any other.
    words = tf.clip_by_value(tf.cast(words, tf.int32), 0, logits.shape[-1] - 1)
    places = tf.stack([tf.broadcast_to(rows, tf.shape(words)), words], axis=-1)

    @tf.custom_gradient
    def chosen_logits(logits: tf.Tensor) -> Any:
        probabilities, log_sums = softmax_and_log_sums(logits)

        def gradient(of_chosen: tf.Tensor, of_log_sums: tf.Tensor) -> tf.Tensor:
            result = probabilities * of_log_sums[:, tf.newaxis]
            return tf.tensor_scatter_nd_add(result, places, of_chosen)

        return (tf.gather_nd(logits, places), log_sums), gradient

    return chosen_logits(logits)
