"""Maximum likelihood together with SAML of the decoder's own samples (Xu et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from nmt.config import Loss
from nmt.losses import SoftAlignedMaximumLikelihood, negative_log_coverage
from nmt.models import TranslationModel
from nmt.models.feedback import Feedback, FreeRun
from nmt.sampling import DifferentiableSampler
from nmt.soft_alignment import SoftAlignment, counted_steps, soft_alignment
from nmt.subwords import END, PAD
from nmt.training.objectives.interface import Batch, Term, mean_over
from nmt.training.objectives.maximum_likelihood import MaximumLikelihood

_ALONE, _TOGETHER = "mle", "mle and saml"


class SampledLikelihood:
    """(1 - w) MLE + w SAML: two passes of the decoder over one encoding of the source.

    In the first pass the decoder reads the reference, in the second one its own samples, as many
    steps as the reference is long in the batch. The second pass is left out while w is 0.

    Terms: `mle_loss` and `saml_loss`, the two losses; `cross_entropy`, that of the first pass
    without label smoothing, if there is any; `sample_match`, the share of words that were sampled
    exactly where the reference has them; `alignment_entropy`, that of a_t(y) over the steps, in
    nats, a mean over the reference's words.

    Args:
        model: the model to train.
        options: the weight w and when it is reached, the sampler, label smoothing.
        hard_alignment: whether a word must stand in its place, the ablation.
    """

    def __init__(
        self, model: TranslationModel, options: Loss, hard_alignment: bool = False
    ) -> None:
        self._model, self._options = model, options
        self._likelihood = MaximumLikelihood(model, options)
        self._loss = SoftAlignedMaximumLikelihood(hard_alignment=hard_alignment)
        self._sampler = DifferentiableSampler(
            options.sampler, options.temperature, options.noise_scale, options.differentiable
        )
        self._seeds = keras.random.SeedGenerator()
        self.generators: Sequence[Any] = (self._seeds,)
        own = ("saml_loss", "sample_match", "alignment_entropy")
        self.terms = ("mle_loss", *self._likelihood.terms[1:], *own)

    def stage(self, update: int) -> str:
        """See `Objective`."""
        options = self._options
        return _TOGETHER if options.saml_weight and update > options.saml_start else _ALONE

    def weight(self, update: tf.Tensor) -> Any:
        """w in an update of the stage with both losses."""
        weight, warmup = self._options.saml_weight, self._options.saml_warmup
        if not warmup:
            return weight
        done = tf.cast(update - self._options.saml_start, tf.float32) / warmup
        return weight * tf.minimum(done, 1.0)

    def __call__(self, batch: Batch, update: tf.Tensor, stage: str) -> dict[str, Term]:
        """See `Objective`."""
        if stage == _ALONE:
            terms = self._likelihood(batch, update)
            nothing = Term(tf.constant(0.0), tf.constant(0.0), 0.0)
            terms |= dict.fromkeys(self.terms[-3:], nothing)
        else:
            encoding = self._model.encode(batch["source"], training=True)
            terms = self._likelihood(batch, update, encoding=encoding)
            weight = self.weight(update)
            terms["loss"] = terms["loss"]._replace(weight=1.0 - weight)
            terms |= self._of_samples(batch["target"], encoding, weight)
        terms["mle_loss"] = terms.pop("loss")
        return terms

    def _of_samples(self, target: tf.Tensor, encoding: Any, weight: Any) -> dict[str, Term]:
        run, alignment = sampled(
            self._model,
            self._sampler,
            encoding,
            target,
            tf.cast(self._seeds.next(), tf.int32),
            overrun=self._options.saml_steps == "batch",
            training=True,
        )
        losses = negative_log_coverage(alignment, self._loss.hard_alignment)
        words = self._loss.words(target)
        match = tf.cast(tf.equal(tf.transpose(run.samples), target), losses.dtype)
        entropy = tf.stop_gradient(alignment.entropy())
        return {
            "saml_loss": mean_over(losses, words, weight),
            "sample_match": mean_over(match, tf.not_equal(target, PAD), 0.0),
            "alignment_entropy": mean_over(entropy, words, 0.0),
        }


def sampled(
    model: TranslationModel,
    sampler: DifferentiableSampler,
    encoding: Any,
    target: tf.Tensor,
    seed: tf.Tensor,
    overrun: bool = False,
    training: bool = False,
) -> tuple[FreeRun, SoftAlignment]:
    """A free run as long as the references, and how it aligns with them.

    Args:
        model: its decoder runs.
        sampler: of what it reads.
        encoding: of the sources, from `model.encode`.
        target: ids of the references [batch, T].
        seed: of the noise, two integers.
        overrun: see `counted_steps`.
        training: whether dropout acts.
    """
    batch, steps = tf.unstack(tf.shape(target))
    vocabulary = model.config.target_vocabulary
    noise = sampler.noise(
        tf.stack([steps, batch, vocabulary]), seed, model.output_layer.logits_dtype
    )
    gradient: Any = "sample" if sampler.differentiable else "none"
    run = model.free_running(encoding, Feedback(sampler, steps, noise, gradient), training)
    counted = counted_steps(target, tf.transpose(run.samples), PAD, END, overrun)
    return run, soft_alignment(target, run.logits, counted, time_major=True)
