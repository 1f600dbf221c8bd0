"""Counting of FLOPs: layers by hand, published networks, and what a traced step does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import cosmoflow, resnet
from models.benchmark import flops


def spec(*shape):
    return tf.TensorSpec(shape, tf.float32)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (keras.layers.Dense(5), (3, 7), 2 * 3 * 7 * 5),
        (keras.layers.Conv2D(4, 3, padding="same"), (2, 8, 6, 3), 2 * 2 * 48 * 9 * 3 * 4),
        (keras.layers.Conv2D(4, 3, strides=2), (1, 9, 9, 3), 2 * 16 * 9 * 3 * 4),
        (keras.layers.Conv2D(4, 3, groups=2), (1, 5, 5, 6), 2 * 9 * 9 * 3 * 4),
        (keras.layers.Conv3D(2, 3, padding="same"), (1, 4, 4, 4, 3), 2 * 64 * 27 * 3 * 2),
        (keras.layers.DepthwiseConv2D(3, padding="same"), (1, 4, 4, 6), 2 * 16 * 9 * 6),
        # Forward it is a convolution's gradient: each of the 4 x 4 inputs meets the kernel.
        (keras.layers.Conv2DTranspose(2, 5, 2, "same"), (1, 4, 4, 3), 2 * 16 * 25 * 3 * 2),
        # query, key and value 3 of 8 -> 2 heads of 3, scores, sums, and back
        (
            lambda x, **options: keras.layers.MultiHeadAttention(2, 3)(x, x),
            (1, 5, 8),
            3 * 2 * 5 * 8 * 6 + 2 * (2 * 2 * 25 * 3) + 2 * 5 * 6 * 8,
        ),
    ],
)
def test_layers(layer, shape, expected):
    inputs = keras.Input(shape[1:])
    model = keras.Model(inputs, layer(inputs))
    assert flops.forward_flops(model, spec(*shape)) == expected


@pytest.mark.parametrize(
    ("build", "shape", "macs"),
    [
        # Stem 0.44 million, 14.16, and 1.18 + 11.80 twice
        (resnet.resnet20, (1, 32, 32, 3), 40_551_040),
        # Known as 34.4 billion
        (cosmoflow.cosmoflow_reference, (1, 128, 128, 128, 4), 34.4e9),
    ],
)
def test_published_networks(build, shape, macs):
    assert flops.forward_flops(build(), spec(*shape)) / 2 == pytest.approx(macs, rel=1e-3)


def test_a_step_is_three_forward_passes_but_for_the_first_layer():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 8, 2)),
            keras.layers.Conv3D(4, 3, padding="same", activation="relu"),
            keras.layers.Conv3D(3, 3, strides=2, padding="same"),
            keras.layers.Reshape((16, 4, 3)),
            keras.layers.DepthwiseConv2D(3, padding="same"),
            keras.layers.Conv2D(5, 3, padding="same"),
            keras.layers.Conv2DTranspose(2, 3, padding="same"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    model.compile(optimizer="sgd", loss="mse")
    batch = spec(2, 8, 8, 8, 2), spec(2, 3)
    first = 2 * 2 * 512 * 27 * 2 * 4
    expected = flops.training_flops(model, *batch) - first
    assert flops.step_flops(model, *batch) == expected


def test_the_loss_of_a_model_counts():
    class WithHead(keras.Model):
        def __init__(self):
            super().__init__()
            self.body, self.head = keras.layers.Dense(4), keras.layers.Dense(2)
            self.body.build((None, 3))
            self.head.build((None, 4))
            self.built = True

        def call(self, inputs):
            return self.body(inputs)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return tf.reduce_mean(self.head(y_pred))

    model = WithHead()
    assert flops.forward_flops(model, spec(5, 3)) == 2 * 5 * 3 * 4
    assert flops.forward_flops(model, spec(5, 3), spec(5, 1)) == 2 * 5 * (12 + 8)


def test_open_shapes_are_refused():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="open shape"):
        flops.forward_flops(model, tf.TensorSpec((None, 3), tf.float32))
    assert flops.forward_flops(model, np.zeros((4, 3), np.float32)) == 48
