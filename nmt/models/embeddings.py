"""Words in and words out: embeddings, positions, and the output layer that may share them."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class WordEmbedding(keras.layers.Layer):
    """A vector for each subword, or a mixture of them.

    Args:
        vocabulary: number of subwords.
        size: of a vector.
        scale: all vectors are multiplied by it; initially they have the length `scale` on average.
    """

    def __init__(self, vocabulary: int, size: int, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vocabulary, self.size, self.scale = vocabulary, size, scale

    def build(self, input_shape: Any = None) -> None:
        """Makes the table [vocabulary, size]."""
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.vocabulary, self.size),
            initializer=keras.initializers.RandomNormal(stddev=self.size**-0.5),
        )
        self.built = True

    def call(self, ids: tf.Tensor) -> tf.Tensor:  # [...] -> [..., size]
        table = tf.convert_to_tensor(self.embeddings)
        return self._scaled(tf.gather(table, ids))

    def mixture(self, weights: tf.Tensor) -> tf.Tensor:
        """[..., vocabulary] -> [..., size]: the mean vector under the given weights."""
        table = tf.cast(self.embeddings, self.compute_dtype)
        return self._scaled(tf.matmul(tf.cast(weights, self.compute_dtype), table))

    def _scaled(self, vectors: tf.Tensor) -> tf.Tensor:
        vectors = tf.cast(vectors, self.compute_dtype)
        return vectors if self.scale == 1.0 else vectors * self.scale


class OutputLayer(keras.layers.Layer):
    """The map from decoder outputs to logits over the vocabulary.

    Args:
        vocabulary: number of subwords.
        tied: whether an embedding table takes the place of a kernel of its own.
    """

    def __init__(self, vocabulary: int, tied: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vocabulary, self.tied = vocabulary, tied

    def build(self, input_shape: Any) -> None:
        """Makes kernel [size, vocabulary] and bias [vocabulary]."""
        self.input_size = input_shape[-1]
        if not self.tied:
            self.kernel = self.add_weight(
                name="kernel",
                shape=(input_shape[-1], self.vocabulary),
                initializer="glorot_uniform",
            )
        self.bias = self.add_weight(name="bias", shape=(self.vocabulary,), initializer="zeros")
        self.built = True

    @property
    def logits_dtype(self) -> tf.DType:
        """float32 or wider."""
        return at_least_float32(self.compute_dtype)

    def call(self, outputs: tf.Tensor, table: Any = None) -> tf.Tensor:
        """[..., size] -> logits [..., vocabulary], float32 or wider.

        Args:
            outputs: of the decoder.
            table: the embedding table [vocabulary, size], where the layer is tied.
        """
        rows = tf.reshape(outputs, [-1, outputs.shape[-1]])
        kernel = tf.cast(table if self.tied else self.kernel, rows.dtype)
        logits = tf.nn.bias_add(
            tf.matmul(rows, kernel, transpose_b=self.tied), tf.cast(self.bias, rows.dtype)
        )
        logits = tf.cast(logits, at_least_float32(logits.dtype))
        return tf.reshape(logits, tf.concat([tf.shape(outputs)[:-1], [self.vocabulary]], 0))


class Positions(keras.layers.Layer):
    """A vector for each position, to be added to the word's.

    Args:
        size: of a vector.
        kind: `"sinusoidal"`, sin(p / 10000^(2i/size)) beside the cosines (Vaswani et al., 2017,
            section 3.5, but not interleaved), or `"learned"`.
        most: positions that learned vectors cover.
    """

    def __init__(self, size: int, kind: str, most: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size, self.kind, self.most = size, kind, most

    def build(self, input_shape: Any = None) -> None:
        """Makes the table [most, size] of learned positions."""
        if self.kind == "learned":
            self.embeddings = self.add_weight(
                name="embeddings",
                shape=(self.most, self.size),
                initializer=keras.initializers.RandomNormal(stddev=self.size**-0.5),
            )
        self.built = True

    def call(self, positions: tf.Tensor) -> tf.Tensor:  # [n] -> [n, size]
        if self.kind == "learned":
            table = tf.convert_to_tensor(self.embeddings)
            return tf.cast(tf.gather(table, positions), self.compute_dtype)
        dtype = at_least_float32(self.compute_dtype)
        sines = (self.size + 1) // 2
        exponents = tf.range(sines, dtype=dtype) * (-2.0 / self.size)
        angles = tf.cast(positions, dtype)[:, tf.newaxis] * tf.pow(
            tf.constant(10000.0, dtype), exponents
        )
        both = tf.concat([tf.sin(angles), tf.cos(angles)], axis=-1)[:, : self.size]
        return tf.cast(both, self.compute_dtype)


def at_least_float32(dtype: Any) -> tf.DType:
    """The precision of softmax and losses: float32 for narrower types, else the type itself."""
    dtype = tf.as_dtype(dtype)
    return tf.float32 if dtype.size < 4 else dtype
