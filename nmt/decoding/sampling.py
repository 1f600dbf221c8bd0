"""Translations written word by word: the most probable word each time, or one drawn at random."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from nmt.decoding import rounds
from nmt.decoding.blocking import block_repeated
from nmt.decoding.ensemble import Ensemble
from nmt.decoding.options import DecodingOptions
from nmt.subwords import BEGIN, END, PAD, UNKNOWN

Tensors = dict[str, tf.Tensor]


def random_words(scores: tf.Tensor, uniform: tf.Tensor, options: DecodingOptions) -> tf.Tensor:
    """Draws words from softmax(scores / temperature), cut to `top_k` words, then to `top_p`.

    `top_p` keeps the fewest most probable words whose probabilities, among those that `top_k` left,
    sum to `top_p` or more.
    Args:
        scores: unnormalised log-probabilities [rows, V].
        uniform: numbers in [0, 1), [rows].
        options: with `temperature`, `top_k`, `top_p`.

    Returns:
        ids [rows].
    """
    scores /= options.temperature
    vocabulary = scores.shape[-1]
    sorts = bool(options.top_k) or options.top_p < 1
    if sorts:
        scores, words = tf.math.top_k(scores, min(options.top_k or vocabulary, vocabulary))
    probabilities = tf.nn.softmax(scores)
    if options.top_p < 1:
        before = tf.cumsum(probabilities, axis=-1, exclusive=True)
        probabilities *= tf.cast(before < options.top_p, probabilities.dtype)
    sums = tf.cumsum(probabilities, axis=-1)
    # In (0, total], so that the first sum that reaches it belongs to a possible word.
    drawn = (1 - tf.cast(uniform, sums.dtype))[:, tf.newaxis] * sums[:, -1:]
    place = tf.reduce_sum(tf.cast(sums < drawn, tf.int32), axis=-1)
    return tf.gather(words, place, batch_dims=1) if sorts else place


def uniform_numbers(seed: int, numbers: np.ndarray, samples: int, steps: int) -> np.ndarray:
    """Random numbers in [0, 1), float32 [batch, samples, steps].

    They depend on the seed, the sentence's number, the sample and the step, and on nothing else:
    a sentence's samples are the same in any batch.
    """
    streams = [
        np.random.Generator(np.random.Philox(key=[seed, int(number)], counter=[0, 0, 0, sample]))
        for number in numbers
        for sample in range(samples)
    ]
    drawn = [stream.random(steps, dtype=np.float32) for stream in streams]
    return np.array(drawn, np.float32).reshape(len(numbers), samples, steps)


def write(
    ensemble: Ensemble,
    source: tf.Tensor,
    limits: tf.Tensor,
    options: DecodingOptions,
    most: tf.Tensor | int,
    uniform: tf.Tensor,
    in_rounds: bool = True,
) -> Tensors:
    """Translations of each sentence, independent of each other.

    Args:
        ensemble: the models.
        source: ids [batch, S].
        limits: L of each sentence, int32 [batch].
        options: without `sample`, every word is the most probable one.
        most: the largest of the limits, or more.
        uniform: from `uniform_numbers`, [batch, n_best, most or more], for `sample`.
        in_rounds: see `rounds.run`.

    Returns:
        As from `beam_search`.
    """
    samples = options.n_best if options.sample else 1
    vocabulary = ensemble.vocabulary
    special = [PAD, BEGIN] + ([] if options.allow_unknown else [UNKNOWN])
    forbidden = np.zeros(vocabulary, bool)
    forbidden[special] = True
    is_end = np.arange(vocabulary) == END

    def step(now: tf.Tensor, search: Tensors, states: rounds.States) -> Any:
        next_word, states = ensemble.step(states, tf.reshape(search["last"], [-1]))
        scores, infinity = next_word.scores, tf.constant(math.inf, next_word.scores.dtype)
        length = now + 1
        if options.no_repeat_ngram:
            words = search["words"]
            rows = tf.reshape(words, [-1, tf.shape(words)[2]])
            scores = block_repeated(scores, rows, now, options.no_repeat_ngram)
        limits = tf.repeat(search["limits"], samples)
        too_short = length < tf.minimum(limits, options.min_length)
        scores = tf.where(forbidden | (too_short[:, tf.newaxis] & is_end), -infinity, scores)
        if options.sample:
            uniform = tf.reshape(search["uniform"][..., now], [-1])
            chosen = random_words(scores, uniform, options)
        else:
            chosen = tf.argmax(scores, axis=-1, output_type=tf.int32)
        chosen = tf.where(length >= limits, END, chosen)
        chosen_scores = tf.gather(next_word.scores, chosen, batch_dims=1)
        added = tf.minimum(chosen_scores - next_word.normalizers[:, 0], 0)

        shape = tf.shape(search["last"])
        ended = search["lengths"] > 0
        chosen = tf.where(ended, PAD, tf.reshape(chosen, shape))
        added = tf.where(ended, tf.constant(0, added.dtype), tf.reshape(added, shape))
        total = search["scores"] + added
        ends = tf.equal(chosen, END)
        after = {
            **search,
            "last": chosen,
            "words": rounds.write_word(search["words"], now, chosen),
            "log_probabilities": rounds.write_word(search["log_probabilities"], now, added),
            "lengths": tf.where(ends, length, search["lengths"]),
            # log P until the hypothesis is complete
            "scores": tf.where(ends, total / options.penalty(tf.cast(length, total.dtype)), total),
            "done": tf.reduce_all(ended | ends, axis=1),
        }
        if options.attention:
            size = tf.shape(next_word.attention)[1]
            attention = tf.reshape(next_word.attention, [-1, samples, size])
            attention = tf.where(ended[..., tf.newaxis], tf.zeros_like(attention), attention)
            after["attention"] = rounds.write_word(search["attention"], now, attention)
        return after, states

    batch = tf.shape(source)[0]
    dtype = tf.float64 if ensemble.models[0].compute_dtype == "float64" else tf.float32
    search = {
        "last": tf.fill([batch, samples], BEGIN),
        "words": tf.fill([batch, samples, most], PAD),
        "log_probabilities": tf.zeros([batch, samples, most], dtype),
        "lengths": tf.zeros([batch, samples], tf.int32),
        "scores": tf.zeros([batch, samples], dtype),
        "limits": limits,
        "done": tf.zeros([batch], tf.bool),
    }
    if options.sample:
        search["uniform"] = uniform
    results = ["words", "log_probabilities", "lengths", "scores"]
    if options.attention:
        search["attention"] = tf.zeros([batch, samples, most, tf.shape(source)[1]], dtype)
        results.append("attention")
    return rounds.run(ensemble, source, samples, step, search, results, most, in_rounds)
