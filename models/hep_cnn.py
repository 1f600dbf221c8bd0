"""Convolutional networks that tell signal from background in images of particle collisions.

HEP-CNN in its two published forms: for 64x64 images with a dense hidden layer (Kurth et al., "Deep
learning at 15PF", SC17; NERSC's benchmark), and for 224x224 images without one. Logits, in float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import keras

from models.resnet import CLASSIFIER_NAME, bottleneck_resnet, imagenet_resnet


def hep_cnn(
    input_shape: tuple[int, int, int] = (64, 64, 3),
    classes: int = 2,
    blocks: int = 3,
    filters: int = 128,
    dense: int | None = 512,
    dropout: float = 0.5,
) -> keras.Model:
    """Blocks of a 3x3 convolution, ReLU, pooling by 2 and dropout, and one of two heads.

    Args:
        input_shape: height, width, channels of an image.
        classes: number of logits.
        blocks: how many.
        filters: of every convolution.
        dense: units of a hidden layer on the flattened features, with dropout behind it. None: one
            more convolution and the average over all pixels instead.
        dropout: its rate, after every block and the hidden layer.

    Returns:
        A Keras model from N x height x width x channels to N x classes logits.

    Example:

    >>> hep_cnn((24, 24, 1), classes=3, filters=16, dense=32).output_shape
    (None, 3)
    """

    def convolution(x: Any, name: str) -> Any:
        x = keras.layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv")(x)
        return keras.layers.Activation("relu", name=f"{name}_relu")(x)

    inputs = keras.Input(input_shape, name="image")
    x = inputs
    for block in range(1, blocks + 1):
        x = convolution(x, f"block{block}")
        x = keras.layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
        x = keras.layers.Dropout(dropout, name=f"block{block}_dropout")(x)
    if dense is None:
        x = convolution(x, "last")
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    else:
        x = keras.layers.Flatten(name="flatten")(x)
        x = keras.layers.Dense(dense, activation="relu", name="dense")(x)
        x = keras.layers.Dropout(dropout, name="dense_dropout")(x)
    x = keras.layers.Dense(classes, dtype="float32", name=CLASSIFIER_NAME)(x)
    return keras.Model(inputs, x, name="hep_cnn")


hep_cnn_64 = hep_cnn
hep_cnn_224 = partial(hep_cnn, (224, 224, 3), blocks=4, dense=None)
hep_cnn_tiny = partial(hep_cnn, (64, 64, 3), blocks=4, filters=12, dense=None, dropout=0.0)
hep_cnn_small = partial(hep_cnn, (64, 64, 3), filters=16, dense=64, dropout=0.1)
hep_resnet50 = partial(imagenet_resnet, 50, (224, 224, 3), 2)
hep_resnet_small = partial(bottleneck_resnet, (1, 1, 1, 1), (64, 64, 3), classes=2, width=16)
# For jets of 24x24 pixels and one channel.
jets_tiny = partial(hep_cnn, (24, 24, 1), classes=3, filters=8, dense=None, dropout=0.0)
jets_small = partial(hep_cnn, (24, 24, 1), classes=3, filters=32, dense=64, dropout=0.2)
