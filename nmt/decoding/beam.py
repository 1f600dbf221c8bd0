"""Beam search with finished hypotheses set aside, as `DecodingOptions` defines it."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from nmt.decoding import rounds
from nmt.decoding.blocking import block_repeated
from nmt.decoding.ensemble import Ensemble
from nmt.decoding.options import DecodingOptions
from nmt.decoding.selection import best_words
from nmt.subwords import BEGIN, END, PAD, UNKNOWN

Tensors = dict[str, tf.Tensor]

# What is kept of every hypothesis, live or finished, by word.
BY_WORD = ("words", "log_probabilities", "attention")


def beam_search(
    ensemble: Ensemble,
    source: tf.Tensor,
    limits: tf.Tensor,
    options: DecodingOptions,
    most: tf.Tensor | int,
    in_rounds: bool = True,
) -> Tensors:
    """The best translations of each sentence.

    Args:
        ensemble: the models.
        source: ids [batch, S].
        limits: L of each sentence, int32 [batch].
        options: of these `beam`, `n_best`, the length penalty, `min_length`, `no_repeat_ngram`,
            `allow_unknown` and `attention` count here.
        most: the largest of the limits, or more.
        in_rounds: see `rounds.run`.

    Returns:
        `"words"` and `"log_probabilities"` [batch, n_best, most], `"lengths"` and `"scores"`
        [batch, n_best], and, if wanted, `"attention"` [batch, n_best, most, S].
    """
    search = _BeamSearch(ensemble, options)
    results = ["words", "log_probabilities", "lengths", "scores"]
    if options.attention:
        results.append("attention")
    names = {name: f"finished_{name}" for name in results}
    found = rounds.run(
        ensemble,
        source,
        options.beam,
        search.step,
        search.start(source, limits, most),
        list(names.values()),
        most,
        in_rounds,
    )
    return {name: found[inner] for name, inner in names.items()}


class _BeamSearch:
    """The steps of one search.

    What it knows, in a batch of A sentences with k live and n finished hypotheses, those with
    log P = -inf or score = -inf being none:

        live_sums           [A, k]      log P of the live hypotheses, best first
        live_words          [A, k, L]   their words (and live_log_probabilities, live_attention)
        last                [A, k]      the last of them
        finished_scores     [A, n]      scores of the best finished hypotheses, best first
        finished_words      [A, n, L]   (and finished_log_probabilities, finished_attention)
        finished_lengths    [A, n]
        count               [A]         how many were finished so far
        limits              [A]         most words
        done                [A]
    """

    def __init__(self, ensemble: Ensemble, options: DecodingOptions) -> None:
        self.ensemble, self.options = ensemble, options
        self.by_word = BY_WORD if options.attention else BY_WORD[:-1]
        special = [PAD, BEGIN, END] + ([] if options.allow_unknown else [UNKNOWN])
        self.special = tf.constant(special)
        # Even if all special words come first, as many candidates as the beam holds remain.
        self.candidates = min(options.beam + len(special), ensemble.vocabulary)

    def start(self, source: tf.Tensor, limits: tf.Tensor, most: tf.Tensor | int) -> Tensors:
        """What is known before the first word: one live hypothesis, without words."""
        batch, beam, n_best = tf.shape(source)[0], self.options.beam, self.options.n_best
        # Of a model's logits, float32 or wider.
        dtype = tf.float64 if self.ensemble.models[0].compute_dtype == "float64" else tf.float32
        first = tf.one_hot(0, beam, tf.constant(0, dtype), tf.constant(-math.inf, dtype))
        search = {
            "live_sums": tf.tile(first[tf.newaxis], [batch, 1]),
            "last": tf.fill([batch, beam], BEGIN),
            "finished_scores": tf.fill([batch, n_best], tf.constant(-math.inf, dtype)),
            "finished_lengths": tf.zeros([batch, n_best], tf.int32),
            "count": tf.zeros([batch], tf.int32),
            "limits": limits,
            "done": tf.zeros([batch], tf.bool),
        }
        for kind, hypotheses in (("live", beam), ("finished", n_best)):
            shape = [batch, hypotheses, most]
            search[f"{kind}_words"] = tf.fill(shape, PAD)
            search[f"{kind}_log_probabilities"] = tf.zeros(shape, dtype)
            if self.options.attention:
                shape.append(tf.shape(source)[1])
                search[f"{kind}_attention"] = tf.zeros(shape, dtype)
        return search

    def step(self, now: tf.Tensor, search: Tensors, states: rounds.States) -> Any:
        """One more word; see `rounds.SearchStep`."""
        options, beam = self.options, self.options.beam
        next_word, states = self.ensemble.step(states, tf.reshape(search["last"], [-1]))
        scores = next_word.scores
        if options.no_repeat_ngram:
            before = search["live_words"]
            before = tf.reshape(before, [-1, tf.shape(before)[2]])
            scores = block_repeated(scores, before, now, options.no_repeat_ngram)

        # --- candidates: the best words that go on, and END ---
        grown, words = best_words(scores, self.candidates)
        grown = self._by_beam(_log_probability(grown, next_word.normalizers))
        words = self._by_beam(words)
        ended = _log_probability(scores[:, END : END + 1], next_word.normalizers)
        ended = tf.squeeze(self._by_beam(ended), 2)  # A x k
        length = now + 1
        limits = search["limits"][:, tf.newaxis]
        possible = ~tf.reduce_any(words[..., tf.newaxis] == self.special, axis=-1)
        possible &= (length < limits)[..., tf.newaxis]
        may_end = length >= tf.minimum(limits, options.min_length)
        sums = search["live_sums"]
        going_on = _where(possible, sums[..., tf.newaxis] + grown)
        ending = _where(may_end, sums + ended)

        # --- the best that go on; of the best altogether, those that end ---
        sizes = [-1, beam * self.candidates]
        sums, places = tf.math.top_k(tf.reshape(going_on, sizes), beam)
        parents = places // self.candidates
        last = tf.gather(tf.reshape(words, sizes), places, batch_dims=1)
        grown = tf.gather(tf.reshape(grown, sizes), places, batch_dims=1)
        _, ranking = tf.math.top_k(tf.concat([ending, sums], axis=1), beam)
        chosen = tf.reduce_any(ranking[:, tf.newaxis] == tf.range(beam)[:, tf.newaxis], axis=-1)
        chosen &= ~search["done"][:, tf.newaxis]
        ending = _where(chosen, ending)

        live = {name: search[f"live_{name}"] for name in self.by_word}
        if options.attention:
            live["attention"] = rounds.write_word(
                live["attention"], now, self._by_beam(next_word.attention)
            )
        after = {
            "live_sums": sums,
            "last": last,
            **self._finish(now, search, live, ending, ended),
            "limits": search["limits"],
        }
        live = {name: tf.gather(tensor, parents, batch_dims=1) for name, tensor in live.items()}
        live["words"] = rounds.write_word(live["words"], now, last)
        live["log_probabilities"] = rounds.write_word(live["log_probabilities"], now, grown)
        after |= {f"live_{name}": tensor for name, tensor in live.items()}

        # --- is there anything to be gained? ---
        # More words only lower log P, and the longest hypothesis has the largest penalty.
        penalty = options.penalty(tf.cast(search["limits"], sums.dtype))
        attainable = sums[:, 0] / penalty
        after["done"] = (
            search["done"]
            | (after["count"] >= beam)
            | (attainable <= after["finished_scores"][:, -1])
        )
        return after, self.ensemble.reorder(states, parents)

    def _finish(
        self,
        now: tf.Tensor,
        search: Tensors,
        live: Tensors,
        ending: tf.Tensor,
        log_probabilities: tf.Tensor,
    ) -> Tensors:
        """The finished hypotheses, and their number, with those that end now among them.

        Args:
            now: the place of END.
            search: before this step.
            live: words, log-probabilities and attention of the live hypotheses [A, k, L, ...].
            ending: log P with END [A, k], -inf where a hypothesis does not end.
            log_probabilities: of END [A, k].
        """
        length = now + 1
        scores = ending / self.options.penalty(tf.cast(length, ending.dtype))
        finished, best = tf.math.top_k(
            tf.concat([search["finished_scores"], scores], axis=1), self.options.n_best
        )
        live = dict(live)
        live["words"] = rounds.write_word(live["words"], now, tf.fill(tf.shape(ending), END))
        live["log_probabilities"] = rounds.write_word(
            live["log_probabilities"], now, log_probabilities
        )
        live["lengths"] = tf.where(tf.math.is_inf(ending), 0, length)
        after = {"finished_scores": finished}
        for name, tensor in live.items():
            both = tf.concat([search[f"finished_{name}"], tensor], axis=1)
            after[f"finished_{name}"] = tf.gather(both, best, batch_dims=1)
        ended = tf.reduce_sum(tf.cast(ending > -math.inf, tf.int32), axis=1)
        after["count"] = search["count"] + ended
        return after

    def _by_beam(self, rows: tf.Tensor) -> tf.Tensor:
        """[A * k, n] -> [A, k, n]."""
        size = rows.shape[-1] or tf.shape(rows)[-1]
        return tf.reshape(rows, [-1, self.options.beam, size])


def _log_probability(scores: tf.Tensor, normalizers: tf.Tensor) -> tf.Tensor:
    # Rounding must not make it positive: more words never raise log P.
    return tf.minimum(scores - normalizers, 0)


def _where(condition: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    return tf.where(condition, values, tf.constant(-math.inf, values.dtype))
