"""The Transformer (Vaswani et al., 2017), normalised before each sublayer."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from nmt.models.attention import CrossAttention, SelfAttention, on_rows, padding_bias
from nmt.models.config import ModelConfig
from nmt.models.embeddings import OutputLayer, Positions, WordEmbedding, at_least_float32
from nmt.models.interface import DecoderState, TranslationModel
from nmt.subwords import BEGIN, PAD


def _normalization(size: int, name: str) -> keras.layers.Layer:
    layer = keras.layers.LayerNormalization(epsilon=1e-6, name=name)
    layer.build((None, size))
    return layer


class FeedForward(keras.layers.Layer):
    """Two maps with a ReLU between them (section 3.3)."""

    def __init__(self, size: int, inner_size: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = keras.layers.Dense(inner_size, activation="relu", name="inner")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")
        self.outer = keras.layers.Dense(size, name="outer")
        with keras.name_scope(self.name):
            self.inner.build((None, size))
            self.outer.build((None, inner_size))
        self.built = True

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:  # [..., size] -> same
        return self.outer(self.dropout(self.inner(x), training=training))


class EncoderLayer(keras.layers.Layer):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: ModelConfig, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # biases remain wide
        size = config.embedding_size
        with keras.name_scope(self.name):
            self.attention_norm = _normalization(size, "attention_norm")
            self.attention = SelfAttention(
                size, config.heads, config.attention_dropout, name="attention"
            )
            self.feed_forward_norm = _normalization(size, "feed_forward_norm")
            self.feed_forward = FeedForward(
                size, config.feed_forward_size, config.feed_forward_dropout, name="feed_forward"
            )
        self.dropout = keras.layers.Dropout(config.dropout, name="dropout")
        self.built = True

    def call(self, x: tf.Tensor, bias: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[batch, S, size] -> [batch, S, size]."""
        attended = self.attention(self.attention_norm(x), bias, training=training)
        x += self.dropout(attended, training=training)
        mapped = self.feed_forward(self.feed_forward_norm(x), training=training)
        return x + self.dropout(mapped, training=training)


class DecoderLayer(keras.layers.Layer):
    """As an encoder layer, with attention to the source in the middle."""

    def __init__(self, config: ModelConfig, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # biases remain wide
        size = config.embedding_size
        with keras.name_scope(self.name):
            self.attention_norm = _normalization(size, "attention_norm")
            self.attention = SelfAttention(
                size, config.heads, config.attention_dropout, name="attention"
            )
            self.source_norm = _normalization(size, "source_norm")
            self.source_attention = CrossAttention(
                size, config.heads, config.attention_dropout, name="source_attention"
            )
            self.feed_forward_norm = _normalization(size, "feed_forward_norm")
            self.feed_forward = FeedForward(
                size, config.feed_forward_size, config.feed_forward_dropout, name="feed_forward"
            )
        self.dropout = keras.layers.Dropout(config.dropout, name="dropout")
        self.built = True

    def call(
        self,
        x: tf.Tensor,
        bias: tf.Tensor,
        memory: dict[str, tf.Tensor],
        source_bias: tf.Tensor,
        training: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """[batch, T, size] -> [batch, T, size] and source weights [batch, heads, T, S]."""
        attended = self.attention(self.attention_norm(x), bias, training=training)
        return self._after_attention(x, attended, memory, source_bias, training, in_loop=False)

    def step(
        self,
        x: tf.Tensor,
        cache: dict[str, tf.Tensor],
        step: tf.Tensor,
        bias: tf.Tensor,
        memory: dict[str, tf.Tensor],
        source_bias: tf.Tensor,
        training: bool,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
        """One word: [batch, copies, size] -> the same, the new cache, source weights."""
        attended, cache = self.attention.step(self.attention_norm(x), cache, step, bias, training)
        x, weights = self._after_attention(x, attended, memory, source_bias, training, in_loop=True)
        return x, cache, weights

    def _after_attention(
        self,
        x: tf.Tensor,
        attended: tf.Tensor,
        memory: dict[str, tf.Tensor],
        source_bias: tf.Tensor,
        training: bool,
        in_loop: bool,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        x += self.dropout(attended, training=training)
        found, weights = self.source_attention(
            self.source_norm(x), memory, source_bias, training=training, in_loop=in_loop
        )
        x += self.dropout(found, training=training)
        layer: Any = self.feed_forward
        feed_forward = partial(layer, training=training)
        normalized = self.feed_forward_norm(x)
        mapped = on_rows(feed_forward, normalized) if in_loop else feed_forward(normalized)
        return x + self.dropout(mapped, training=training), weights


class Transformer(TranslationModel):
    """Encoder and decoder layers over scaled embeddings and positions.

    The attention that it reports is the mean over the heads of the layer before the last (the
    only one, if there is one), which follows word alignments best (Garg et al., 2019).

    A decoding state keeps the keys and values of all copies of a sentence in one cache that is
    never reordered; `slots` [batch, copies, steps] says which copy wrote each word of a hypothesis.
    """

    def __init__(self, config: ModelConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        size, tied = config.embedding_size, config.tied_embeddings
        scale = math.sqrt(size)
        self.target_embedding = WordEmbedding(
            config.target_vocabulary, size, scale, name="target_embedding"
        )
        self.target_embedding.build()
        if tied == "all":
            self.source_embedding = self.target_embedding
        else:
            self.source_embedding = WordEmbedding(
                config.source_vocabulary, size, scale, name="source_embedding"
            )
            self.source_embedding.build()
        self.source_positions, self.target_positions = (
            Positions(size, config.positions, config.max_positions, name=f"{side}_positions")
            for side in ("source", "target")
        )
        self.source_positions.build()
        self.target_positions.build()
        self.dropout = keras.layers.Dropout(config.dropout, name="dropout")
        self.encoder_layers = [
            EncoderLayer(config, name=f"encoder_{i}") for i in range(config.encoder_layers)
        ]
        self.encoder_norm = _normalization(size, "encoder_norm")
        self.decoder_layers = [
            DecoderLayer(config, name=f"decoder_{i}") for i in range(config.decoder_layers)
        ]
        self.decoder_norm = _normalization(size, "decoder_norm")
        self.output_layer = OutputLayer(
            config.target_vocabulary, tied != "none", name="output_layer"
        )
        self.output_layer.build((None, size))
        self.reported_layer = max(0, config.decoder_layers - 2)
        self.built = True

    @property
    def longest(self) -> int | None:
        return self.config.max_positions if self.config.positions == "learned" else None

    # --- the encoder ---

    def encode(self, source: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """{"encoded": [batch, S, size], "bias": [batch, 1, 1, S]}."""
        bias = padding_bias(tf.not_equal(source, PAD), self.compute_dtype)
        bias = bias[:, tf.newaxis, tf.newaxis, :]
        positions = self.source_positions(tf.range(tf.shape(source)[1]))
        x = self.dropout(self.source_embedding(source) + positions, training=training)
        for layer in self.encoder_layers:
            x = layer(x, bias, training=training)
        return {"encoded": self.encoder_norm(x), "bias": bias}

    # --- all words at once ---

    def teacher_forced(
        self, inputs: dict[str, tf.Tensor], training: bool = False, encoding: Any = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if encoding is None:
            encoding = self.encode(inputs["source"], training)
        words = tf.pad(inputs["target"][:, :-1], [(0, 0), (1, 0)], constant_values=BEGIN)
        steps = tf.range(tf.shape(words)[1])
        # Padding needs no mask of its own here: it comes last.
        bias = padding_bias(steps[:, tf.newaxis] >= steps, self.compute_dtype)
        x = self.target_embedding(words) + self.target_positions(steps)
        x = self.dropout(x, training=training)
        reported = None
        for i, layer in enumerate(self.decoder_layers):
            memory = layer.source_attention.memory(encoding["encoded"])
            x, weights = layer(x, bias, memory, encoding["bias"], training=training)
            if i == self.reported_layer:
                reported = tf.reduce_mean(weights, axis=1)
        return self.decoder_norm(x), reported

    def logits(self, outputs: tf.Tensor) -> tf.Tensor:
        return self.output_layer(outputs, self.target_embedding.embeddings)

    # --- word by word ---

    def start(
        self,
        encoding: dict[str, tf.Tensor],
        steps: tf.Tensor | int,
        copies: int = 1,
        training: bool = False,
    ) -> DecoderState:
        batch = tf.shape(encoding["encoded"])[0]
        source = {
            "bias": encoding["bias"],
            "memory": [
                layer.source_attention.memory(encoding["encoded"]) for layer in self.decoder_layers
            ],
        }
        history = {
            "slots": tf.zeros([batch, copies, steps], tf.int32),
            "cache": [layer.attention.start(batch, copies, steps) for layer in self.decoder_layers],
        }
        return DecoderState(tf.constant(0), source, history)

    def advance(
        self, state: DecoderState, inputs: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, DecoderState, tf.Tensor]:
        source, step = state.source, state.step
        copies = state.history["slots"].shape[1]
        words = tf.convert_to_tensor(inputs)
        if not words.dtype.is_floating:
            words = self.embed_target(words)
        x = words + self.target_positions(step[tf.newaxis])
        x = self.dropout(x, training=training)
        x = tf.reshape(x, [-1, copies, self.config.embedding_size])
        slots = _write_slots(state.history["slots"], step)
        bias = _history_bias(slots, step, self.compute_dtype)
        caches, reported = [], None
        for i, layer in enumerate(self.decoder_layers):
            cache, memory = state.history["cache"][i], source["memory"][i]
            x, cache, weights = layer.step(
                x, cache, step, bias, memory, source["bias"], training=training
            )
            caches.append(cache)
            if i == self.reported_layer:
                reported = tf.reduce_mean(weights, axis=1)  # batch x copies x S
        x = tf.reshape(self.decoder_norm(x), [-1, self.config.embedding_size])
        attention = tf.reshape(reported, [-1, tf.shape(reported)[-1]])
        history = {"slots": slots, "cache": caches}
        return x, state._replace(step=step + 1, history=history), attention

    def reorder(self, state: DecoderState, parents: tf.Tensor) -> DecoderState:
        slots = tf.gather(state.history["slots"], parents, batch_dims=1)
        return state._replace(history={**state.history, "slots": slots})

    def extend(self, state: DecoderState, steps: tf.Tensor | int) -> DecoderState:
        slots = state.history["slots"]
        batch, copies = tf.shape(slots)[0], slots.shape[1]
        room = [layer.attention.start(batch, copies, steps) for layer in self.decoder_layers]
        caches = tf.nest.map_structure(
            lambda old, new: tf.concat([old, new], axis=2), state.history["cache"], room
        )
        slots = tf.concat([slots, tf.zeros([batch, copies, steps], tf.int32)], axis=2)
        return state._replace(history={"slots": slots, "cache": caches})

    def embed_target(self, ids: tf.Tensor) -> tf.Tensor:
        return self.target_embedding(ids)

    def embed_target_mixture(self, weights: tf.Tensor) -> tf.Tensor:
        return self.target_embedding.mixture(weights)


def _write_slots(slots: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """Each copy writes the word of this step in its own place."""
    copies = tf.range(slots.shape[1])[tf.newaxis, :, tf.newaxis]
    here = tf.equal(tf.range(tf.shape(slots)[2]), step)
    return tf.where(here, copies, slots)


def _history_bias(slots: tf.Tensor, step: tf.Tensor, dtype: Any) -> tf.Tensor:
    """What each copy may see of the common cache: [batch, 1, copies, steps * copies]."""
    copies, steps = slots.shape[1], tf.shape(slots)[2]
    written = tf.range(steps) <= step
    if copies == 1:
        return padding_bias(written, dtype)
    own = tf.equal(slots[..., tf.newaxis], tf.range(copies))  # batch x copies x steps x copies
    bias = padding_bias(own & written[:, tf.newaxis], at_least_float32(dtype))
    return tf.reshape(bias, [tf.shape(slots)[0], 1, copies, steps * copies])
