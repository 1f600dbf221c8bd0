"""A decoder that reads its own samples, with gradients through them.

Inside the time loop only what the recurrence needs is done: a step's logits, its sample and the
sample's embedding; backward, how the embedding's gradient changes the logits'. The gradients of
the output layer and of the embedding table are one product each, after the backward loop.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import tensorflow as tf

from nmt.models.embeddings import OutputLayer, WordEmbedding, at_least_float32
from nmt.models.recurrence import Tensors, swap_time
from nmt.sampling import DifferentiableSampler

# What becomes of the gradient that reaches a sample's embedding: it ends there; it trains the
# embedding, as if the word had been given; or it also reaches the logits behind the sample.
Gradient = Literal["none", "embedding", "sample"]


class Feedback(NamedTuple):
    """What a decoder is to read in each of its steps.

    Attributes:
        sampler: makes samples of logits.
        steps: int32 scalar, how many.
        noise: [steps, batch, V], see `DifferentiableSampler.noise`, or None.
        gradient: see `Gradient`; `"sample"` only if the sampler is differentiable.
        words: int32 ids [batch, steps] that may be read instead of samples (BEGIN and the reference
            without its last word), or None for BEGIN and samples alone.
        forced: bool [batch, steps], where they are.
    """

    sampler: DifferentiableSampler
    steps: tf.Tensor
    noise: tf.Tensor | None = None
    gradient: Gradient = "sample"
    words: tf.Tensor | None = None
    forced: tf.Tensor | None = None


class FreeRun(NamedTuple):
    """What a decoder did on its own; time comes first, which saves transposing the vocabulary.

    Attributes:
        logits: [steps, batch, V], float32 or wider.
        samples: int32 [steps, batch], the (heaviest) sampled words.
        attention: [steps, batch, S].
    """

    logits: tf.Tensor
    samples: tf.Tensor
    attention: tf.Tensor


class FeedbackLoop:
    """From a decoder's outputs to the next inputs, for use inside a time loop.

    `inputs` are what the loop has to read along time; calls are its steps; `finish` is told what
    the loop found. As with `HoistedProduct`, weights receive their gradients outside.

    Args:
        feedback: what to read.
        embedding: of target words.
        output_layer: its logits.
        batch: int32 scalar.
    """

    # Names of the loop's outputs.
    LOGITS, SAMPLES, OUTPUTS = "logits", "samples", "feedback_outputs"

    def __init__(
        self,
        feedback: Feedback,
        embedding: WordEmbedding,
        output_layer: OutputLayer,
        batch: tf.Tensor,
    ) -> None:
        self._feedback, self._sampler = feedback, feedback.sampler
        self._batch = batch
        self._dtype = embedding.compute_dtype
        self._embedding, self._tied = embedding, output_layer.tied
        self._table = tf.cast(embedding.embeddings, self._dtype)
        self._bias = tf.cast(output_layer.bias, self._dtype)
        self._kernel = self._table if self._tied else tf.cast(output_layer.kernel, self._dtype)
        self._constant_table, self._constant_kernel, self._constant_bias = (
            tf.stop_gradient(tensor) for tensor in (self._table, self._kernel, self._bias)
        )
        self._vocabulary = output_layer.vocabulary
        self._found: Tensors = {}

    def inputs(self) -> Tensors:
        """What a loop reads along time, [steps, batch, ...]."""
        feedback = self._feedback
        lead = tf.stack([feedback.steps, self._batch])
        made: Tensors = {}
        if feedback.gradient != "none":
            zeros = tf.zeros(tf.concat([lead, [self._embedding.size]], 0), self._dtype)
            made["hook"] = self._collecting_for_table(zeros)
        noise = feedback.noise
        if feedback.gradient == "sample":
            if noise is None:
                noise = tf.zeros(
                    tf.concat([lead, [self._vocabulary]], 0), at_least_float32(self._dtype)
                )
            noise = self._collecting_for_output_layer(noise)
        if noise is not None:
            made["noise"] = noise
        if feedback.words is not None:
            made["words"] = swap_time(self._embedding(feedback.words))
            made["forced"] = swap_time(feedback.forced)[..., tf.newaxis]
        return made

    def outputs(self, size: int) -> dict[str, tf.TensorSpec]:
        """What each step makes, for `time_loop`.

        Args:
            size: of the decoder's outputs.
        """
        return {
            self.LOGITS: tf.TensorSpec([None, self._vocabulary], at_least_float32(self._dtype)),
            self.SAMPLES: tf.TensorSpec([None], tf.int32),
            self.OUTPUTS: tf.TensorSpec([None, size], self._dtype),
        }

    def begin(self, ids: tf.Tensor) -> tf.Tensor:
        """The embedding of the first words [batch]."""
        return self._embedding(ids)

    def read(self, sampled: tf.Tensor, now: Tensors) -> tf.Tensor:
        """What a step reads [batch, size]: the embedding of the sample before, or another."""
        return tf.where(now["forced"], now["words"], sampled) if "words" in now else sampled

    def __call__(self, output: tf.Tensor, now: Tensors) -> tuple[tf.Tensor, Tensors]:
        """A step.

        Args:
            output: of the decoder [batch, output size], as the output layer reads it.
            now: this step's slice of `inputs`.

        Returns:
            The sample's embedding [batch, embedding size], and the step's `outputs`.
        """
        sampler, gradient = self._sampler, self._feedback.gradient
        noise = now.get("noise")
        constant = tf.stop_gradient(output)
        logits = self._logits(constant)
        kept_noise = None if noise is None else tf.stop_gradient(noise)
        samples = sampler.words(logits, kept_noise)
        if sampler.is_straight_through:
            embedded = tf.gather(self._constant_table, samples)
        else:
            weights = tf.cast(sampler.relaxed(logits, kept_noise), self._dtype)
            embedded = tf.matmul(weights, self._constant_table)
        embedded = self._scaled(embedded)
        if gradient == "sample":
            logits, embedded = self._with_gradients(output, noise, now["hook"], logits, embedded)
        elif gradient == "embedding":
            embedded += now["hook"]
        return embedded, {self.LOGITS: logits, self.SAMPLES: samples, self.OUTPUTS: output}

    def finish(self, found: Tensors) -> tf.Tensor:
        """The logits [steps, batch, V], through which gradients reach everything.

        Args:
            found: the loop's outputs by name.
        """
        self._found = {name: tf.stop_gradient(tensor) for name, tensor in found.items()}
        logits = found[self.LOGITS]
        if self._feedback.gradient == "sample":
            return logits

        @tf.custom_gradient
        def of_outputs(outputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> Any:
            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
                rows = self._rows(upstream, self._vocabulary)
                of_rows = tf.matmul(rows, kernel, transpose_b=not self._tied)
                return tf.reshape(of_rows, tf.shape(outputs)), *self._of_output_layer(upstream)

            return tf.stop_gradient(logits), gradient

        return of_outputs(found[self.OUTPUTS], self._kernel, self._bias)

    # --- one step ---

    def _logits(self, output: tf.Tensor) -> tf.Tensor:
        product = tf.matmul(output, self._constant_kernel, transpose_b=self._tied)
        logits = tf.nn.bias_add(product, self._constant_bias)
        return tf.cast(logits, at_least_float32(self._dtype))

    def _scaled(self, vectors: tf.Tensor) -> tf.Tensor:
        return vectors if self._embedding.scale == 1.0 else vectors * self._embedding.scale

    def _with_gradients(
        self,
        output: tf.Tensor,
        noise: tf.Tensor,
        hook: tf.Tensor,
        logits: tf.Tensor,
        embedded: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits and embedding with the gradients of what made them.

        With δ of the logits and ε of the embedding, the whole gradient of the logits is

            δ' = δ + ỹ (G - ỹᵀ G) / τ,    G = E ε

        The noise collects δ', the hook ε: `inputs` sees to what becomes of them.
        """
        sampler = self._sampler

        @tf.custom_gradient
        def attached(output: tf.Tensor, noise: tf.Tensor, hook: tf.Tensor) -> Any:
            def gradient(of_logits: tf.Tensor, of_embedded: tf.Tensor) -> Any:
                weights = sampler.relaxed(logits, noise)
                of_weights = tf.cast(
                    tf.matmul(self._scaled(of_embedded), self._constant_table, transpose_b=True),
                    weights.dtype,
                )
                mean = tf.reduce_sum(weights * of_weights, axis=-1, keepdims=True)
                through = weights * (of_weights - mean)
                if sampler.temperature != 1:
                    through /= sampler.temperature
                whole = of_logits + through
                of_output = tf.matmul(
                    tf.cast(whole, self._dtype),
                    self._constant_kernel,
                    transpose_b=not self._tied,
                )
                return of_output, whole, of_embedded

            return (tf.identity(logits), tf.identity(embedded)), gradient

        return attached(output, noise, hook)

    # --- all steps ---

    def _collecting_for_output_layer(self, noise: tf.Tensor) -> tf.Tensor:
        """Noise whose gradient, that of the logits, trains the output layer."""

        @tf.custom_gradient
        def collecting(kernel: tf.Tensor, bias: tf.Tensor) -> Any:
            return tf.identity(noise), self._of_output_layer

        return collecting(self._kernel, self._bias)

    def _of_output_layer(self, of_logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The gradients of kernel and bias, of that of all logits [steps, batch, V]."""
        columns = self._rows(of_logits, self._vocabulary)
        rows = self._rows(self._found[self.OUTPUTS], self._found[self.OUTPUTS].shape[-1])
        pair = (columns, rows) if self._tied else (rows, columns)
        return tf.matmul(*pair, transpose_a=True), tf.reduce_sum(columns, axis=0)

    def _collecting_for_table(self, zeros: tf.Tensor) -> tf.Tensor:
        """Zeros whose gradient, that of all samples' embeddings, trains the table."""

        @tf.custom_gradient
        def collecting(table: tf.Tensor) -> Any:
            def gradient(of_embedded: tf.Tensor) -> tf.Tensor:
                rows = self._scaled(self._rows(of_embedded, self._embedding.size))
                samples = tf.reshape(self._found[self.SAMPLES], [-1])
                if self._sampler.is_straight_through:
                    return tf.math.unsorted_segment_sum(rows, samples, self._embedding.vocabulary)
                weights = self._sampler.relaxed(self._found[self.LOGITS], self._feedback.noise)
                return tf.matmul(self._rows(weights, self._vocabulary), rows, transpose_a=True)

            return zeros, gradient

        return collecting(self._table)

    def _rows(self, tensor: tf.Tensor, size: int) -> tf.Tensor:
        return tf.cast(tf.reshape(tensor, [-1, size]), self._dtype)
