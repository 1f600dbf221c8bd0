"""What training and decoding may ask of any translation model."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from nmt.models.config import ModelConfig
from nmt.models.embeddings import OutputLayer, WordEmbedding, at_least_float32
from nmt.models.feedback import Feedback, FeedbackLoop, FreeRun
from nmt.models.recurrence import time_loop
from nmt.subwords import BEGIN


class DecoderState(NamedTuple):
    """What a decoder knows before its next step; a nest of tensors, made by `start`.

    Attributes:
        step: int32 scalar, words that were decoded so far, the same in all rows.
        source: what depends on the source sentence alone; tensors [batch, ...].
        history: what depends on the words so far; tensors [batch, ...] that hold all copies
            (hypotheses) of a sentence.
        weights: what depends on the model alone, laid out for the loop.
    """

    step: tf.Tensor
    source: Any
    history: Any
    weights: Any = ()


class TranslationModel(keras.Model):
    """A model of the target sentence given the source sentence, one word after the other.

    Ids are those of `nmt.subwords`: rows end with END, then PAD. Source positions that hold PAD
    influence nothing. Logits are float32 (float64 under a float64 policy) whatever the dtype
    policy.

    Attributes:
        config: the `ModelConfig` that it was built from.
        target_embedding, output_layer: of target words.
    """

    target_embedding: WordEmbedding
    output_layer: OutputLayer

    def __init__(self, config: ModelConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config

    @property
    def longest(self) -> int | None:
        """The longest sentence, END included, that the model can read or write; None for any."""
        return None

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Teacher forcing: the logits of every target word given the words before it.

        Args:
            inputs: `{"source": int32 [batch, S], "target": int32 [batch, T]}`. The decoder reads
                BEGIN and `target[:, :-1]`.
            training: whether dropout acts.

        Returns:
            Logits [batch, T, target vocabulary].
        """
        outputs, _ = self.teacher_forced(inputs, training)
        return self.logits(outputs)

    def teacher_forced(
        self, inputs: dict[str, tf.Tensor], training: bool = False, encoding: Any = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The decoder's outputs before the output layer, and its attention to the source.

        Args:
            inputs: as for `call`.
            training: whether dropout acts.
            encoding: of the source, from `encode`, if it is there already.

        Returns:
            Outputs [batch, T, output size], which `logits` maps to the vocabulary, and attention
            weights [batch, T, S].
        """
        raise NotImplementedError

    def logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """The output layer: [..., output size] -> [..., target vocabulary]."""
        raise NotImplementedError

    def encode(self, source: tf.Tensor, training: bool = False) -> Any:
        """The encoding of source ids [batch, S]: a nest of tensors with leading axis `batch`."""
        raise NotImplementedError

    def start(
        self, encoding: Any, steps: tf.Tensor | int, copies: int = 1, training: bool = False
    ) -> DecoderState:
        """The state before the first step.

        Args:
            encoding: from `encode`.
            steps: the most steps that will follow (see `extend`).
            copies: hypotheses per sentence, each a row of its own, side by side.
            training: whether dropout will act.
        """
        raise NotImplementedError

    def free_running(self, encoding: Any, feedback: Feedback, training: bool = False) -> FreeRun:
        """The decoder reads its own samples, or some given words among them, and never stops.

        Args:
            encoding: from `encode`.
            feedback: what it reads.
            training: whether dropout acts.

        Returns:
            Logits and samples of all steps. Gradients reach the logits' weights and, as far as
            `feedback` says, those behind the samples.
        """
        batch = tf.shape(tf.nest.flatten(encoding)[0])[0]
        start = self.start(encoding, feedback.steps, training=training)
        loop = FeedbackLoop(feedback, self.target_embedding, self.output_layer, batch)

        def step(state: Any, now: dict[str, tf.Tensor]) -> Any:
            number, history, embedded = state
            before = start._replace(step=number, history=history)
            words = loop.read(embedded, now)
            outputs, after, attention = self.advance(before, words, training)
            embedded, found = loop(outputs, now)
            state = tf.nest.map_structure(
                lambda new, old: tf.ensure_shape(new, old.shape),
                (after.step, after.history, embedded),
                state,
            )
            return state, {**found, "attention": attention}

        outputs = loop.outputs(self.output_layer.input_size)
        outputs["attention"] = tf.TensorSpec([None, None], at_least_float32(self.compute_dtype))
        begin = loop.begin(tf.fill([batch], BEGIN))
        state = start.step, start.history, begin
        _, found = time_loop(step, state, loop.inputs(), outputs, feedback.steps)
        return FreeRun(loop.finish(found), found[loop.SAMPLES], found["attention"])

    def step(
        self, state: DecoderState, inputs: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, DecoderState, tf.Tensor]:
        """One more word in every row.

        Args:
            state: from `start` or the step before.
            inputs: the words before the ones to come (BEGIN at first), either int32 ids [rows] or
                their embeddings [rows, embedding size] from `embed_target` or
                `embed_target_mixture`; rows = batch * copies.
            training: whether dropout acts.

        Returns:
            Logits [rows, target vocabulary], the next state, attention weights [rows, S].
        """
        outputs, state, attention = self.advance(state, inputs, training)
        return self.logits(outputs), state, attention

    def advance(
        self, state: DecoderState, inputs: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, DecoderState, tf.Tensor]:
        """As `step`, but with outputs before the output layer [rows, output size]."""
        raise NotImplementedError

    def reorder(self, state: DecoderState, parents: tf.Tensor) -> DecoderState:
        """The state in which copy j of a sentence continues what copy `parents[:, j]` was.

        Args:
            state: any state.
            parents: int32 [batch, copies], each in [0, copies).
        """
        raise NotImplementedError

    def extend(self, state: DecoderState, steps: tf.Tensor | int) -> DecoderState:
        """The same state with room for `steps` more steps than it had room for."""
        raise NotImplementedError

    def select(self, state: DecoderState, sentences: tf.Tensor) -> DecoderState:
        """The state of some of the sentences alone, by their indices [n] in the batch."""
        source, history = tf.nest.map_structure(
            lambda tensor: tf.gather(tensor, sentences), (state.source, state.history)
        )
        return state._replace(source=source, history=history)

    def embed_target(self, ids: tf.Tensor) -> tf.Tensor:
        """What `step` and the decoder read for target ids: [...] -> [..., embedding size]."""
        raise NotImplementedError

    def embed_target_mixture(self, weights: tf.Tensor) -> tf.Tensor:
        """The mixture of target embeddings: [..., target vocabulary] -> [..., embedding size].

        A one-hot row gives what `embed_target` gives for its id.
        """
        raise NotImplementedError
