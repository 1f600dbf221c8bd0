"""Scheduled sampling (Bengio et al., 2015), also differentiable (Goyal et al., 2017).

The decoder reads the reference with a probability ε that falls during the training, else its own
sample, word by word; each of its outputs is to be the reference's word in that place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from nmt.config import Loss
from nmt.models import TranslationModel
from nmt.models.feedback import Feedback
from nmt.sampling import DifferentiableSampler
from nmt.subwords import BEGIN, PAD
from nmt.training.objectives.interface import Batch, Term, mean_over
from nmt.training.objectives.maximum_likelihood import word_terms


def reference_probability(
    schedule: str, constant: float, number: tf.Tensor, floor: float = 0.0
) -> tf.Tensor:
    """ε after i steps of a schedule, a scalar in float64.

        inverse-sigmoid   k / (k + exp(i / k)),  k >= 1
        exponential       kⁱ,                    k < 1
        linear            1 - k i

    Args:
        schedule: one of these.
        constant: k.
        number: i, counted from 0.
        floor: the least ε.
    """
    i = tf.cast(number, tf.float64)
    k = tf.constant(constant, tf.float64)
    if schedule == "inverse-sigmoid":
        probability = tf.sigmoid(tf.math.log(k) - i / k)  # exp(i / k) may be too great a number
    elif schedule == "exponential":
        probability = k**i
    else:
        probability = 1 - k * i
    return tf.maximum(probability, floor)


class ScheduledSampling:
    """The cross-entropy of the target's words, some of whose predecessors were sampled.

    Terms: `loss` and, with label smoothing, `cross_entropy`; `reference_share`, the share of words
    before others that were read from the reference; `sample_match`, as for SAML.

    Args:
        model: the model to train.
        options: the schedule, coins and sampler, label smoothing.
        differentiable: whether gradients pass through the samples; otherwise a sample is read like
            any given word.
    """

    def __init__(
        self, model: TranslationModel, options: Loss, differentiable: bool = False
    ) -> None:
        self._model, self._options = model, options
        self._gradient: Any = "sample" if differentiable else "embedding"
        self._sampler = DifferentiableSampler(
            options.sampler, options.temperature, options.noise_scale
        )
        self._seeds = keras.random.SeedGenerator()
        self.generators: Sequence[Any] = (self._seeds,)
        smoothed = ("cross_entropy",) if options.label_smoothing else ()
        self.terms = ("loss", *smoothed, "reference_share", "sample_match")

    def stage(self, update: int) -> str:
        """There is only one."""
        return ""

    def probability(self, update: tf.Tensor) -> tf.Tensor:
        """ε in an update."""
        options = self._options
        return reference_probability(
            options.sampling_schedule,
            options.effective_sampling_constant,
            (update - 1) // options.sampling_interval,
            options.sampling_floor,
        )

    def __call__(self, batch: Batch, update: tf.Tensor, stage: str) -> dict[str, Term]:
        """See `Objective`."""
        model, target = self._model, batch["target"]
        size, steps = tf.unstack(tf.shape(target))
        words = tf.pad(target[:, :-1], [(0, 0), (1, 0)], constant_values=BEGIN)
        forced = self._coins(size, steps, self.probability(update))
        noise = self._sampler.noise(
            tf.stack([steps, size, model.config.target_vocabulary]),
            self._seed(),
            model.output_layer.logits_dtype,
        )
        run = model.free_running(
            model.encode(batch["source"], training=True),
            Feedback(self._sampler, steps, noise, self._gradient, words, forced),
            training=True,
        )
        terms = word_terms(tf.transpose(target), run.logits, self._options.label_smoothing)
        # The last sample of a sentence is never read, and BEGIN is no choice.
        read = tf.not_equal(target, PAD)[:, 1:]
        terms["reference_share"] = mean_over(tf.cast(forced[:, 1:], tf.float32), read, 0.0)
        match = tf.cast(tf.equal(tf.transpose(run.samples), target), tf.float32)
        terms["sample_match"] = mean_over(match, tf.not_equal(target, PAD), 0.0)
        return terms

    def _coins(self, size: tf.Tensor, steps: tf.Tensor, probability: tf.Tensor) -> tf.Tensor:
        """Where the reference is read: bool [batch, steps]; BEGIN comes first anyway."""
        throws = 1 if self._options.sampling_coins == "batch" else size
        uniform = tf.random.stateless_uniform(
            tf.stack([throws, steps]), self._seed(), dtype=tf.float64, alg="philox"
        )
        heads = tf.broadcast_to(uniform < probability, tf.stack([size, steps]))
        return heads | tf.equal(tf.range(steps), 0)

    def _seed(self) -> tf.Tensor:
        return tf.cast(self._seeds.next(), tf.int32)
