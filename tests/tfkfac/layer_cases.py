"""One small model per layer kind, for the tests that go through all of them.

Each case says how to build a model, the shape of its input, and which treatment each of its
variables is to get.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import pytest
import tensorflow as tf
from keras import layers

from tests.tfkfac.keras_versions import needs_keras_3


@dataclasses.dataclass(frozen=True)
class Case:
    """`kinds` maps variable names (path suffixes) to `Row.treatment`, "bias" or "plain: reason"."""

    build: Callable[[], keras.Model]
    input_shape: tuple[int, ...]
    kinds: dict[str, str]
    integer_input: bool = False


class TiedEmbedding(layers.Layer):
    """Embedding whose transpose gives the logits, as in most language models."""

    def build(self, shape):
        self.table = self.add_weight(shape=(11, 4), name="table")

    def call(self, indices):
        hidden = tf.nn.tanh(tf.gather(self.table, indices) * 3.0)
        return tf.einsum("ntd,vd->ntv", hidden, tf.convert_to_tensor(self.table))


class TiedMatmul(TiedEmbedding):
    """The same with a transposed matrix product and a second lookup."""

    def call(self, indices):
        table = tf.convert_to_tensor(self.table)
        hidden = tf.nn.tanh(tf.gather(table, indices) * 3.0 + tf.gather(table, (indices + 1) % 11))
        return tf.matmul(tf.reshape(hidden, [-1, 4]), table, transpose_b=True)


class EinsumLayer(layers.Layer):
    """A custom layer that calls `tf.einsum` itself."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, shape[-1], 2), name="kernel")

    def call(self, inputs):
        return tf.einsum("ntc,dce->ntde", inputs, tf.convert_to_tensor(self.kernel))


class ConditionalScale(layers.Layer):
    """Uses its weight only inside `tf.cond`."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2), name="kernel")

    def call(self, inputs):
        kernel = tf.convert_to_tensor(self.kernel)
        return tf.cond(
            tf.reduce_sum(inputs) > 0,
            lambda: tf.matmul(inputs, kernel),
            lambda: tf.matmul(-inputs, kernel),
        )


class PositionTable(layers.Layer):
    """Adds a learned vector per position."""

    def build(self, shape):
        self.table = self.add_weight(shape=tuple(shape[1:]), name="table", initializer="ones")

    def call(self, inputs):
        return inputs * 1.5 + self.table


def _sequential(*stack, shape, integer=False):
    def build():
        inputs = keras.Input(shape, dtype="int32" if integer else None)
        outputs = inputs
        for make in stack:
            outputs = make()(outputs)
        return keras.Model(inputs, outputs)

    return build


def _case(shape, kinds, *stack, integer=False):
    return Case(_sequential(*stack, shape=shape, integer=integer), shape, kinds, integer)


def _shared_dense():
    inputs = keras.Input((6, 4))
    dense = layers.Dense(4, activation="tanh", name="shared")
    first, second = inputs[:, :2], inputs[:, 2:]
    pooled = layers.Concatenate(axis=1)([dense(first), dense(dense(second))])
    return keras.Model(inputs, pooled)


def _self_attention():
    inputs = keras.Input((5, 4))
    return keras.Model(inputs, layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs))


def _residual_after_normalization():
    inputs = keras.Input((5, 4))
    outputs = layers.Add()(
        [layers.LayerNormalization(name="norm")(inputs), layers.Dense(4, name="dense")(inputs)]
    )
    return keras.Model(inputs, outputs)


_CONV = {"kernel": "convolution", "bias": "bias"}
_LOOP = "plain: inside a rolled loop (use unroll=True)"

CASES: dict[str, Case] = {
    "dense": _case((5,), {"kernel": "dense", "bias": "bias"}, lambda: layers.Dense(4)),
    "dense without bias": _case((5,), {"kernel": "dense"}, lambda: layers.Dense(4, use_bias=False)),
    "dense on sequences": _case(
        (7, 5), {"kernel": "dense", "bias": "bias"}, lambda: layers.Dense(4)
    ),
    "dense on images": _case(
        (3, 2, 5), {"kernel": "dense", "bias": "bias"}, lambda: layers.Dense(4)
    ),
    "dense with regulariser and gelu": _case(
        (5,),
        {"kernel": "dense", "bias": "bias"},
        lambda: layers.Dense(4, activation="gelu", kernel_regularizer=keras.regularizers.L2(0.25)),
    ),
    "dense after flatten": _case(
        (3, 2, 2), {"kernel": "dense", "bias": "bias"}, layers.Flatten, lambda: layers.Dense(4)
    ),
    "time distributed": _case(
        (3, 5),
        {"kernel": "dense", "bias": "bias"},
        lambda: layers.TimeDistributed(layers.Dense(2)),
    ),
    "einsum dense": _case(
        (7, 5),
        {"kernel": "dense", "bias": "bias"},
        lambda: layers.EinsumDense("abc,cd->abd", output_shape=(None, 4), bias_axes="d"),
    ),
    "einsum dense with heads": _case(
        (7, 5),
        {"kernel": "dense", "bias": "bias"},
        lambda: layers.EinsumDense("abc,cde->abde", output_shape=(None, 4, 2), bias_axes="de"),
    ),
    "einsum dense contracting two axes": _case(
        (7, 3, 2),
        {"kernel": "dense", "bias": "bias"},
        lambda: layers.EinsumDense("abcd,cde->abe", output_shape=(None, 4), bias_axes="e"),
    ),
    "custom einsum": _case((7, 5), {"kernel": "dense"}, EinsumLayer),
    # The softmax over keys is invariant under a shift of the key: its bias has no effect.
    "attention": Case(
        _self_attention,
        (5, 4),
        {
            f"{part}/{name}": kind
            for part in ("query", "key", "value", "attention_output")
            for name, kind in (("kernel", "dense"), ("bias", "bias"))
        },
    ),
    "conv1d": _case((9, 5), _CONV, lambda: layers.Conv1D(4, 3)),
    "conv1d causal dilated": _case(
        (9, 5), _CONV, lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2)
    ),
    "conv1d same dilated": _case(
        (9, 5), _CONV, lambda: layers.Conv1D(4, 3, padding="same", dilation_rate=2)
    ),
    "conv1d grouped": _case(
        (9, 6), _CONV, lambda: layers.Conv1D(4, 3, groups=2, strides=2, padding="same")
    ),
    "conv2d": _case((7, 6, 3), _CONV, lambda: layers.Conv2D(4, 3, padding="same")),
    "conv2d strided": _case(
        (7, 6, 3), _CONV, lambda: layers.Conv2D(4, (3, 2), strides=2, padding="same")
    ),
    "conv2d pointwise strided": _case(
        (7, 6, 3), {"kernel": "convolution"}, lambda: layers.Conv2D(4, 1, strides=2, use_bias=False)
    ),
    "conv2d dilated": _case(
        (9, 8, 3), _CONV, lambda: layers.Conv2D(4, 3, padding="same", dilation_rate=2)
    ),
    "conv2d dilated valid": _case(
        (9, 8, 3), _CONV, lambda: layers.Conv2D(4, 3, dilation_rate=(2, 1))
    ),
    "conv2d grouped": _case((7, 6, 6), _CONV, lambda: layers.Conv2D(4, 3, groups=2)),
    "conv2d grouped dilated": _case(
        (7, 6, 6),
        {"kernel": "plain: inside a called function", "bias": "elementwise"},
        lambda: layers.Conv2D(4, 2, groups=2, dilation_rate=2),
    ),
    "conv3d grouped": _case((4, 4, 4, 4), _CONV, lambda: layers.Conv3D(4, 2, groups=2)),
    "conv3d": _case((5, 4, 4, 2), _CONV, lambda: layers.Conv3D(3, 3, padding="same")),
    "conv3d strided": _case((5, 4, 4, 2), _CONV, lambda: layers.Conv3D(3, 2, strides=2)),
    "conv3d dilated": _case((5, 5, 5, 2), _CONV, lambda: layers.Conv3D(3, 2, dilation_rate=2)),
    "conv2d transposed": _case(
        (4, 4, 2),
        {"kernel": "convolution", "bias": "elementwise"},
        lambda: layers.Conv2DTranspose(3, 3, strides=2),
    ),
    "depthwise": _case(
        (6, 6, 3),
        {"kernel": "depthwise convolution", "bias": "bias"},
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
    ),
    "depthwise strided": _case(
        (6, 6, 3),
        {"kernel": "depthwise convolution", "bias": "bias"},
        lambda: layers.DepthwiseConv2D(3, strides=2, padding="same"),
    ),
    "depthwise dilated": _case(
        (7, 7, 3),
        {"kernel": "depthwise convolution", "bias": "bias"},
        lambda: layers.DepthwiseConv2D(3, dilation_rate=2),
    ),
    "depthwise 1d": _case(
        (7, 3),
        {"kernel": "depthwise convolution", "bias": "bias"},
        lambda: layers.DepthwiseConv1D(3),
    ),
    "separable 2d": _case(
        (6, 6, 3),
        {
            "depthwise_kernel": "depthwise convolution",
            "pointwise_kernel": "convolution",
            "bias": "bias",
        },
        lambda: layers.SeparableConv2D(4, 3),
    ),
    "separable 1d": _case(
        (7, 3),
        {
            "depthwise_kernel": "depthwise convolution",
            "pointwise_kernel": "convolution",
            "bias": "bias",
        },
        lambda: layers.SeparableConv1D(4, 3),
    ),
    "embedding": _case(
        (5,), {"embeddings": "embedding"}, lambda: layers.Embedding(10, 4), integer=True
    ),
    "tied embedding": _case((5,), {"table": "embedding"}, TiedEmbedding, integer=True),
    "tied embedding, two lookups": _case((5,), {"table": "embedding"}, TiedMatmul, integer=True),
    "shared dense": Case(_shared_dense, (6, 4), {"kernel": "dense", "bias": "bias"}),
    "unrolled lstm": _case(
        (4, 3),
        {"kernel": "dense", "recurrent_kernel": "dense", "bias": "bias"},
        lambda: layers.LSTM(3, unroll=True),
    ),
    "rolled lstm": _case(
        (4, 3),
        {"kernel": _LOOP, "recurrent_kernel": _LOOP, "bias": _LOOP},
        lambda: layers.LSTM(3),
    ),
    "batch normalization": _case(
        (5, 5, 2),
        {"kernel": "convolution", "gamma": "elementwise", "beta": "elementwise"},
        lambda: layers.Conv2D(3, 1, use_bias=False),
        layers.BatchNormalization,
    ),
    "layer normalization": _case(
        (5, 4), {"gamma": "elementwise", "beta": "elementwise"}, layers.LayerNormalization
    ),
    "group normalization": _case(
        (5, 5, 4),
        {"gamma": "elementwise", "beta": "elementwise"},
        lambda: layers.GroupNormalization(2),
    ),
    "rms normalization": _case((5, 4), {"scale": "elementwise"}, lambda: layers.RMSNormalization()),
    "prelu": _case((4,), {"alpha": "elementwise"}, layers.PReLU),
    "position table": _case((5, 4), {"table": "elementwise"}, PositionTable),
    "normalization beside dense": Case(
        _residual_after_normalization,
        (5, 4),
        {
            "norm/gamma": "elementwise",
            "norm/beta": "elementwise",
            "dense/kernel": "dense",
            "dense/bias": "bias",
        },
    ),
    "inside cond": _case((4,), {"kernel": "plain: inside tf.cond"}, ConditionalScale),
}
ONLY_IN_KERAS_3 = {"rms normalization"}
NAMES = [
    pytest.param(name, marks=needs_keras_3("it has no such layer"))
    if name in ONLY_IN_KERAS_3
    else name
    for name in CASES
]
