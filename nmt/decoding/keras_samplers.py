"""Samplers of keras-nlp (KerasHub), and those written for them, on translation models.

`Decoder` searches faster, by formulas of its own, and its samples depend on a sentence and its
number alone. This is for what it does not have: any `keras_nlp.samplers.Sampler`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from nmt.decoding.options import DecodingOptions
from nmt.models.interface import DecoderState, TranslationModel
from nmt.subwords import BEGIN, END, PAD, UNKNOWN


def write_with(
    sampler: Any,
    model: TranslationModel,
    source: np.ndarray,
    options: DecodingOptions | None = None,
) -> np.ndarray:
    """Translations by a keras-nlp sampler.

    PAD, BEGIN and UNKNOWN are never chosen. Samplers know no longest length for each sentence: a
    batch goes on until all have ended, at most L words, the longest of its sentences' limits; a
    translation that has not ended by then has no END. keras-nlp's `BeamSampler` goes on with
    finished hypotheses and has no length penalty; its `ContrastiveSampler`, which asks for hidden
    states, does not work here.

    It runs operation by operation: samplers change shapes in ways that graphs do not allow.

    Args:
        sampler: called as keras-nlp calls it, with logits [rows, target vocabulary].
        model: of the translation.
        source: ids [batch, S], rows ending with END, then PAD.
        options: of these the longest length counts.

    Returns:
        int32 [batch, L], each END, then PAD.

    Example:

    >>> sampler = keras_nlp.samplers.TopPSampler(p=0.9, seed=1)
    >>> ids = write_with(sampler, model, source)
    """
    source = np.asarray(source, np.int32)
    longest = int((source != PAD).sum(axis=1).max(initial=0))
    steps = int((options or DecodingOptions()).longest(longest))
    if model.longest is not None:
        steps = min(steps, model.longest)
    start = model.start(model.encode(tf.constant(source)), steps)
    forbidden = np.zeros(model.config.target_vocabulary, bool)
    forbidden[[PAD, BEGIN, UNKNOWN]] = True

    def next_word(prompt: tf.Tensor, cache: Any, index: tf.Tensor) -> Any:
        # Samplers reorder and repeat rows of what they are given as a cache.
        of_source, history = cache
        state = DecoderState(index - 1, of_source, history, start.weights)
        logits, after, _ = model.step(state, prompt[:, index - 1])
        lowest = tf.constant(logits.dtype.min / 2, logits.dtype)
        return tf.where(forbidden, lowest, logits), None, (of_source, after.history)

    prompt = np.full((len(source), 1 + steps), PAD, np.int32)
    prompt[:, 0] = BEGIN
    ids = sampler(
        next=next_word,
        prompt=tf.constant(prompt),
        cache=(start.source, start.history),
        index=1,
        stop_token_ids=[END],
        model=model,
    ).numpy()[:, 1:]
    after_end = np.cumsum(ids == END, axis=1) - (ids == END) > 0
    return np.where(after_end, PAD, ids)
