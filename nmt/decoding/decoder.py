"""Decoding a batch of source sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from nmt.decoding.beam import beam_search
from nmt.decoding.ensemble import Ensemble
from nmt.decoding.options import DecodingOptions
from nmt.decoding.sampling import uniform_numbers, write
from nmt.models.interface import TranslationModel
from nmt.subwords import PAD
from tfkfac.errors import InputError


@dataclass(frozen=True)
class Hypotheses:
    """The n best translations of each sentence, best first (samples in the order drawn).

    Attributes:
        ids: int32 [batch, n, L], each END, then PAD. L is the longest length.
        lengths: int32 [batch, n], words with END; 0 where there are fewer than n hypotheses.
        scores: [batch, n], by the formula of `DecodingOptions`; -inf where there is none.
        log_probabilities: [batch, n, L], of each word, END included; 0 after it.
        attention: [batch, n, L, S], each word's weights on the source positions, or None.
    """

    ids: np.ndarray
    lengths: np.ndarray
    scores: np.ndarray
    log_probabilities: np.ndarray
    attention: np.ndarray | None = None


class Decoder:
    """Decodes with one model or several, compiled once, for any number of batches.

    The models' present weights are used at every call.

    Args:
        models: one model, or an ensemble: the mean of their word probabilities is searched.
        options: how.
        jit: compile with XLA; each shape of batch is then compiled anew.

    Raises:
        InputError: the models' target vocabularies differ, or there is no model.

    Example:

    >>> decoder = Decoder([model], DecodingOptions(beam=5))
    >>> for source in batches:
    ...     hypotheses = decoder(source)
    """

    def __init__(
        self, models: Sequence[TranslationModel], options: DecodingOptions, jit: bool = False
    ) -> None:
        self.options, self.jit = options, jit
        self.ensemble = Ensemble(models)
        # Without XLA one trace serves every shape.
        self._search = tf.function(
            self.search,
            input_signature=None if jit else SIGNATURE,
            jit_compile=jit,
            autograph=False,
        )

    def __call__(self, source: np.ndarray, numbers: np.ndarray | None = None) -> Hypotheses:
        """Decodes source ids.

        Args:
            source: int32 [batch, S], rows ending with END, then PAD.
            numbers: int64 [batch], what tells the sentences' samples apart, such as their places
                in the file; 0, 1, ... by default.

        Raises:
            InputError: a sentence is longer than the model's positions.
        """
        source = np.asarray(source, np.int32)
        batch, words = source.shape
        longest = self.ensemble.longest
        if longest is not None and words > longest:
            raise InputError(
                f"a source sentence has {words} subwords, the model reads at most {longest} "
                "(max_positions)"
            )
        samples = self.options.n_best if self.options.sample else 0
        numbers = np.arange(batch) if numbers is None else numbers
        steps = int(self.options.longest(words)) if samples else 0
        uniform = uniform_numbers(self.options.seed, numbers, samples, steps)
        found = {
            name: tensor.numpy()
            for name, tensor in self._search(tf.constant(source), tf.constant(uniform)).items()
        }
        length = int(found["lengths"].max(initial=0))
        attention = found.get("attention")
        return Hypotheses(
            ids=found["words"][:, :, :length],
            lengths=found["lengths"],
            scores=found["scores"],
            log_probabilities=found["log_probabilities"][:, :, :length],
            attention=None if attention is None else attention[:, :, :length],
        )

    def search(self, source: tf.Tensor, uniform: tf.Tensor) -> dict[str, tf.Tensor]:
        """The decoding itself, on tensors, for use inside other graphs.

        Args:
            source: int32 [batch, S].
            uniform: float32 [batch, n_best, L] for sampling, see `uniform_numbers`; else anything.

        Returns:
            See `beam_search`.
        """
        words = tf.reduce_sum(tf.cast(tf.not_equal(source, PAD), tf.int32), axis=1)
        limits = tf.cast(self.options.longest(tf.cast(words, tf.float64)), tf.int32)
        most = tf.reduce_max(limits)
        if self.jit:
            most = int(self.options.longest(source.shape[1]))
        if self.ensemble.longest is not None:
            limits, most = (tf.minimum(n, self.ensemble.longest) for n in (limits, most))
        arguments = (self.ensemble, source, limits, self.options, most)
        if self.options.sample or self.options.beam == 1:
            return write(*arguments, uniform, in_rounds=not self.jit)
        return beam_search(*arguments, in_rounds=not self.jit)


SIGNATURE = (
    tf.TensorSpec([None, None], tf.int32, name="source"),
    tf.TensorSpec([None, None, None], tf.float32, name="uniform"),
)


def decode(
    models: Sequence[TranslationModel], source: np.ndarray, options: DecodingOptions
) -> Hypotheses:
    """Decodes one batch; see `Decoder`, which it makes and keeps with the first of the models.

    Example:

    >>> hypotheses = decode([model], np.array([[17, 5, 29, END]]), DecodingOptions(beam=5))
    """
    key = (tuple(id(model) for model in models), options)
    # Past Keras, which would track and save it.
    kept = models[0].__dict__.setdefault("_decoders", {}) if models else {}
    if key not in kept:
        kept[key] = Decoder(models, options)
    return kept[key](source)
