"""Attention: scaled dot products with several heads, and the single-headed kinds of the RNN.

A bias is added to the scores before the softmax: 0 where attention is allowed, `FORBIDDEN` where
it is not. In float32 or wider the exponential of that is exactly 0, so that forbidden positions
influence nothing, and a row that may attend to nothing at all still gives numbers.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from nmt.models.embeddings import at_least_float32

FORBIDDEN = -1e9

Cache = dict[str, tf.Tensor]


def padding_bias(present: tf.Tensor, dtype: Any) -> tf.Tensor:
    """0 where `present`, else `FORBIDDEN`, in float32 or wider."""
    return (1.0 - tf.cast(present, at_least_float32(dtype))) * FORBIDDEN


def attention_weights(scores: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Softmax of scores + bias over the last axis, in the precision of the bias."""
    return tf.nn.softmax(tf.cast(scores, bias.dtype) + bias)


class MultiHeadAttention(keras.layers.Layer):
    """What self- and cross-attention share (Vaswani et al., 2017, section 3.2).

    Args:
        size: of inputs and outputs.
        heads: a divisor of `size`.
        dropout: share of attention weights dropped in training.
    """

    def __init__(self, size: int, heads: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # biases remain wide
        self.size, self.heads = size, heads
        self.head_size = size // heads
        self.weight_dropout = keras.layers.Dropout(dropout, name="weight_dropout")
        self.merge = self._dense(size, "merge")

    def _dense(self, outputs: int, name: str) -> keras.layers.Layer:
        layer = keras.layers.Dense(outputs, name=name)
        with keras.name_scope(self.name):
            layer.build((None, self.size))
        return layer

    def _split(self, x: tf.Tensor, parts: int) -> list[tf.Tensor]:
        """[batch, n, parts * size] -> as many tensors [batch, heads, n, head size]."""
        shape = tf.shape(x)
        x = tf.reshape(x, [shape[0], shape[1], parts, self.heads, self.head_size])
        x = tf.transpose(x, [2, 0, 3, 1, 4])
        return tf.unstack(x, parts)

    def _attend(
        self,
        queries: tf.Tensor,  # batch x heads x n x head size
        keys: tf.Tensor,  # batch x heads x m x head size
        values: tf.Tensor,
        bias: tf.Tensor,  # broadcast to batch x heads x n x m
        training: bool,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Outputs [batch, n, size] and weights [batch, heads, n, m]."""
        scores = tf.matmul(queries * self.head_size**-0.5, keys, transpose_b=True)
        weights = attention_weights(scores, bias)
        mixing = self.weight_dropout(tf.cast(weights, values.dtype), training=training)
        context = tf.transpose(tf.matmul(mixing, values), [0, 2, 1, 3])
        merged = self.merge(tf.reshape(context, [-1, self.size]))
        return tf.reshape(merged, [-1, tf.shape(context)[1], self.size]), weights


class SelfAttention(MultiHeadAttention):
    """Attention of a sequence to itself; queries, keys and values come from one product."""

    def __init__(self, size: int, heads: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(size, heads, dropout, **kwargs)
        self.query_key_value = self._dense(3 * size, "query_key_value")
        self.built = True

    def call(self, x: tf.Tensor, bias: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[batch, n, size] -> [batch, n, size], under a bias broadcast to [batch, heads, n, n]."""
        queries, keys, values = self._split(self.query_key_value(x), 3)
        return self._attend(queries, keys, values, bias, training)[0]

    def start(self, batch: tf.Tensor, copies: int, steps: tf.Tensor | int) -> Cache:
        """Room for the keys and values of `steps` words in `copies` hypotheses a sentence."""
        shape = [batch, self.heads, steps, copies, self.head_size]
        return {name: tf.zeros(shape, self.compute_dtype) for name in ("keys", "values")}

    def step(
        self, x: tf.Tensor, cache: Cache, step: tf.Tensor, bias: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, Cache]:
        """One word: [batch, copies, size] -> [batch, copies, size], and the new cache.

        A sentence's copies read one common cache; `bias` [batch, 1, copies, steps * copies] tells
        them apart.
        """
        queries, keys, values = self._split(on_rows(self.query_key_value, x), 3)
        cache = {
            "keys": write_step(cache["keys"], step, keys, in_place=not training),
            "values": write_step(cache["values"], step, values, in_place=not training),
        }
        shape = tf.shape(cache["keys"])
        flat = [shape[0], self.heads, shape[2] * shape[3], self.head_size]
        all_keys, all_values = tf.reshape(cache["keys"], flat), tf.reshape(cache["values"], flat)
        return self._attend(queries, all_keys, all_values, bias, training)[0], cache


def on_rows(layer: Any, x: tf.Tensor) -> tf.Tensor:
    """A layer on [..., size] as one product of rows, which XLA can transpose in a loop."""
    result = layer(tf.reshape(x, [-1, x.shape[-1]]))
    return tf.reshape(result, tf.concat([tf.shape(x)[:-1], result.shape[-1:]], 0))


def write_step(
    cache: tf.Tensor, step: tf.Tensor, new: tf.Tensor, in_place: bool = True
) -> tf.Tensor:
    """A cache [batch, heads, steps, ...] with `new` [batch, heads, ...] at one step.

    Args:
        cache: zeros at that step and all later ones.
        step: int32 scalar.
        new: as above.
        in_place: whether nothing else will read the old cache; a gradient would.
    """
    shape = tf.shape(cache)
    # XLA, under which shapes tend to be known, cannot update at a place that is not.
    if not in_place or cache.shape.is_fully_defined():
        here = tf.reshape(tf.equal(tf.range(shape[2]), step), [-1] + [1] * (cache.shape.rank - 3))

        @tf.custom_gradient
        def written(cache: tf.Tensor, new: tf.Tensor) -> Any:
            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                # No step before wrote here, so that what reaches the zeros here changes nothing.
                return upstream, tf.gather(upstream, step, axis=2)

            return tf.where(here, tf.expand_dims(new, 2), cache), gradient

        return written(cache, new)
    # In place where nobody else holds the cache; quicker with few axes.
    size = math.prod(cache.shape[3:])
    begin = tf.stack([0, step])
    written = tf.raw_ops.TensorStridedSliceUpdate(
        input=tf.reshape(cache, [-1, shape[2], size]),
        begin=begin,
        end=begin + 1,
        strides=[1, 1],
        value=tf.reshape(new, [-1, size]),
        begin_mask=0b01,
        end_mask=0b01,
        shrink_axis_mask=0b10,
    )
    return tf.reshape(written, [-1, *cache.shape[1:2], shape[2], *cache.shape[3:]])


class CrossAttention(MultiHeadAttention):
    """Attention of the target to the encoded source."""

    def __init__(self, size: int, heads: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(size, heads, dropout, **kwargs)
        self.query = self._dense(size, "query")
        self.key_value = self._dense(2 * size, "key_value")
        self.built = True

    def memory(self, encoded: tf.Tensor) -> Cache:
        """Keys and values [batch, heads, S, head size], once per sentence."""
        keys, values = self._split(self.key_value(encoded), 2)
        return {"keys": keys, "values": values}

    def call(
        self,
        x: tf.Tensor,
        memory: Cache,
        bias: tf.Tensor,
        training: bool = False,
        in_loop: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """[batch, n, size] -> [batch, n, size] and weights [batch, heads, n, S]."""
        (queries,) = self._split(on_rows(self.query, x) if in_loop else self.query(x), 1)
        return self._attend(queries, memory["keys"], memory["values"], bias, training)


class SingleHeadAttention(keras.layers.Layer):
    """Attention of an RNN decoder's state q to the annotations k of the source.

        additive (Bahdanau et al., 2015, appendix A.1.2)    vᵀ tanh(q' + W k)
        dot (Luong et al., 2015, "general")                 q'ᵀ W k

    q' is what the caller makes of the state: a map of it to `size` for the additive kind, the state
    itself for the other.

    Args:
        kind: `"additive"` or `"dot"`.
        annotation_size: of an annotation.
        size: of W k.
    """

    def __init__(self, kind: str, annotation_size: int, size: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # the bias remains wide
        self.kind, self.size = kind, size
        self.key = keras.layers.Dense(size, use_bias=False, name="key")
        with keras.name_scope(self.name):
            self.key.build((None, annotation_size))
        if kind == "additive":
            self.energy = self.add_weight(
                name="energy",
                shape=(size, 1),
                initializer=keras.initializers.RandomUniform(-(size**-0.5), size**-0.5),
            )
        self.built = True

    def keys(self, annotations: tf.Tensor) -> tf.Tensor:
        """W k [batch, S, size], once per sentence."""
        return self.key(annotations)

    def call(
        self, queries: tf.Tensor, keys: tf.Tensor, annotations: tf.Tensor, bias: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Contexts [batch, n, annotation size] and weights [batch, n, S].

        Args:
            queries: q' [batch, n, size].
            keys: from `keys`.
            annotations: [batch, S, annotation size].
            bias: [batch, 1, S], see `padding_bias`.
        """
        if self.kind == "dot":
            scores = tf.matmul(queries, keys, transpose_b=True)
        else:
            # batch x n x S x size
            activations = tf.tanh(queries[:, :, tf.newaxis] + keys[:, tf.newaxis])
            rows = tf.reshape(activations, [-1, self.size])
            scores = tf.matmul(rows, tf.cast(self.energy, rows.dtype))
            scores = tf.reshape(scores, tf.shape(activations)[:3])
        weights = attention_weights(scores, bias)
        return tf.matmul(tf.cast(weights, annotations.dtype), annotations), weights
