"""The frame of every search: steps in rounds, between which finished sentences leave the batch.

A batch is decoded in rounds of a few steps. After each, the results of all sentences are put aside,
sentences that are done leave, and the models' states get room for the next round. That keeps
matrices small near the end of a batch, and caches as long as the translations rather than as long
as they might get.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from nmt.decoding.ensemble import Ensemble
from nmt.models.interface import DecoderState

STEPS_PER_ROUND = 8

Tensors = dict[str, tf.Tensor]
States = list[DecoderState]
# (step, what the search knows, the models' states) -> the last two after one more word
SearchStep = Callable[[tf.Tensor, Tensors, States], tuple[Tensors, States]]


def run(
    ensemble: Ensemble,
    source: tf.Tensor,
    copies: int,
    step: SearchStep,
    search: Tensors,
    results: Sequence[str],
    steps: tf.Tensor | int,
    rounds: bool = True,
) -> Tensors:
    """Decodes a batch.

    Args:
        ensemble: the models.
        source: ids [batch, S].
        copies: hypotheses per sentence.
        step: one step of the search.
        search: what it knows before the first step, tensors [batch, ...]. `"done"`, bool [batch],
            tells which sentences need no more steps; those may go on changing everything but
            their results.
        results: the names of the tensors that are wanted at the end.
        steps: after as many steps every sentence is done.
        rounds: whether to work in rounds. XLA, which needs fixed shapes, cannot.

    Returns:
        The results by name, tensors [batch, ...].
    """
    room = tf.minimum(steps, STEPS_PER_ROUND) if rounds else steps
    states = ensemble.start(source, room, copies)

    def busy(now: tf.Tensor, end: tf.Tensor, search: Tensors, states: States) -> tf.Tensor:
        return (now < end) & ~tf.reduce_all(search["done"])

    def body(
        now: tf.Tensor, end: tf.Tensor, search: Tensors, states: States
    ) -> tuple[tf.Tensor, tf.Tensor, Tensors, States]:
        return now + 1, end, *step(now, search, states)

    def one_round(now: tf.Tensor, end: Any, search: Tensors, states: States) -> Any:
        return tf.while_loop(busy, body, (now, end, search, states))

    zero = tf.constant(0)
    if not rounds:
        _, _, search, _ = one_round(zero, tf.convert_to_tensor(steps), search, states)
        return {name: search[name] for name in results}

    sentences = tf.range(tf.shape(source)[0])
    found = {name: search[name] for name in results}

    def next_round(
        now: tf.Tensor, found: Tensors, sentences: tf.Tensor, search: Tensors, states: States
    ) -> Any:
        end = tf.minimum(now + STEPS_PER_ROUND, steps)
        now, _, search, states = one_round(now, end, search, states)
        found = {
            name: tf.tensor_scatter_nd_update(tensor, sentences[:, tf.newaxis], search[name])
            for name, tensor in found.items()
        }
        left = tf.squeeze(tf.where(~search["done"]), 1)
        search = {name: tf.gather(tensor, left) for name, tensor in search.items()}
        more = tf.minimum(steps - now, STEPS_PER_ROUND)
        states = ensemble.continued(states, left, more)
        return now, found, tf.gather(sentences, left), search, states

    _, found, *_ = tf.while_loop(
        lambda now, found, sentences, *_: tf.size(sentences) > 0,
        next_round,
        (zero, found, sentences, search, states),
    )
    return found


def write_word(tensor: tf.Tensor, now: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Hypotheses [batch, n, L, ...] with values [batch, n, ...] at word `now`."""
    here = tf.equal(tf.range(tf.shape(tensor)[2]), now)
    here = tf.reshape(here, [-1] + [1] * (tensor.shape.rank - 3))
    return tf.where(here, tf.expand_dims(values, 2), tensor)
