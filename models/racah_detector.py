"""The single-stage detector of extreme weather (Racah et al., "ExtremeWeather", NIPS 2017).

An encoder halves the map several times; each cell of the last features says whether a storm is
centred in it, of which class, and how large it is. A decoder may reconstruct the map from the same
features, which lets maps without labels take part (the paper's semi-supervised network).

Cells predict, in this order: position of the centre within the cell (y, x, 0 to 1), logarithms to
base 2 of height and width in cells, logits for no storm and for a storm, logits of the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models import boxes as box
from models.data.extreme_weather import CLASSES

FILTERS = (128, 256, 512, 768, 1024, 1280)
KERNEL = 5
NEGATIVE_SLOPE = 0.1
POSITION_WEIGHT, SIZE_WEIGHT, BACKGROUND_WEIGHT, RECONSTRUCTION_WEIGHT = 5.0, 7.0, 0.5, 10.0


def racah_detector(
    input_shape: tuple[int, int, int] = (768, 1152, 16),
    filters: Sequence[int] = FILTERS,
    classes: int = len(CLASSES),
    reconstruct: bool = False,
) -> keras.Model:
    """The encoder and its three heads; with `reconstruct` the decoder, too.

    Args:
        input_shape: rows, columns, channels; rows and columns divisible by 2 to the number of
            layers.
        filters: of the encoder's 5x5 convolutions, each of stride 2.
        classes: of storms.
        reconstruct: return a dictionary of `cells` and `reconstruction`, the map again.

    Returns:
        A Keras model from N x rows x columns x channels to N x cells x cells x (6 + classes).

    Raises:
        ValueError: if the layers do not divide the map.

    Example:

    >>> racah_detector((96, 144, 16), filters=(16, 32, 32, 64)).output_shape
    (None, 6, 9, 10)
    """
    if input_shape[0] % 2 ** len(filters) or input_shape[1] % 2 ** len(filters):
        raise ValueError(f"{len(filters)} halvings do not divide a map of {input_shape[:2]}")

    def normalised(x: Any, name: str) -> Any:
        x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
        return keras.layers.LeakyReLU(NEGATIVE_SLOPE, name=f"{name}_relu")(x)

    inputs = keras.Input(input_shape, name="map")
    x = inputs
    for number, count in enumerate(filters, start=1):
        name = f"encoder{number}"
        x = keras.layers.Conv2D(
            count, KERNEL, strides=2, padding="same", use_bias=False, name=f"{name}_conv"
        )(x)
        x = normalised(x, name)

    def head(name: str, outputs: int) -> Any:
        return keras.layers.Conv2D(outputs, 3, padding="same", dtype="float32", name=name)(x)

    heads = [head("coordinates", 4), head("objectness", 2), head("classes", classes)]
    cells = keras.layers.Concatenate(dtype="float32", name="cells")(heads)
    if not reconstruct:
        return keras.Model(inputs, cells, name="racah_detector")
    for number, count in enumerate([*reversed(filters[:-1]), input_shape[-1]], start=1):
        last = number == len(filters)
        name = f"decoder{number}"
        x = keras.layers.Conv2DTranspose(
            count, KERNEL, strides=2, padding="same", use_bias=last, name=f"{name}_deconv"
        )(x)
        if not last:
            x = normalised(x, name)
    x = keras.layers.Activation("linear", dtype="float32", name="reconstruction")(x)
    return keras.Model(
        inputs, {"cells": cells, "reconstruction": x}, name="racah_detector_reconstructing"
    )


def cell_targets(boxes: np.ndarray, shape: tuple[int, int], stride: int) -> np.ndarray:
    """What the cells are to predict.

    Args:
        boxes: N x M x 5, top, left, bottom, right in pixels and the class, -1 for none.
        shape: rows and columns of cells.
        stride: pixels of a cell's side.

    Returns:
        N x rows x columns x 6 float32: position (2), log sizes (2), 1 where a storm is centred,
        and its class. Of two in a cell the later one stays.
    """
    targets = np.zeros((len(boxes), *shape, 6), np.float32)
    image, number = np.nonzero(boxes[..., 4] >= 0)
    found = boxes[image, number]
    corners = found[:, :4].reshape(-1, 2, 2) / stride
    centre, size = corners.mean(1), corners[:, 1] - corners[:, 0]
    cell = np.minimum(np.floor(centre), np.array(shape) - 1).astype(int)
    targets[image, cell[:, 0], cell[:, 1]] = np.concatenate(
        [
            centre - cell,
            np.log2(np.maximum(size, 1e-3)),
            np.ones((len(found), 1)),
            found[:, 4:],
        ],
        axis=1,
    )
    return targets


def detection_loss(targets: Any, outputs: Any) -> Any:
    """The supervised loss, mean over maps of sums over cells.

    5 smooth L1(position) + 7 smooth L1(size) - log p(storm) + cross entropy(class) where a storm
    is; -0.5 log p(no storm) elsewhere.

    Args:
        targets: of `cell_targets`, N x rows x columns x 6.
        outputs: N x rows x columns x (6 + classes).
    """
    storm = targets[..., 4]
    position = tf.reduce_sum(box.smooth_absolute(outputs[..., :2] - targets[..., :2]), -1)
    size = tf.reduce_sum(box.smooth_absolute(outputs[..., 2:4] - targets[..., 2:4]), -1)
    log_objectness = tf.nn.log_softmax(outputs[..., 4:6])
    kind = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.cast(targets[..., 5], tf.int32), outputs[..., 6:]
    )
    with_storm = POSITION_WEIGHT * position + SIZE_WEIGHT * size - log_objectness[..., 1] + kind
    without = -BACKGROUND_WEIGHT * log_objectness[..., 0]
    cells = storm * with_storm + (1 - storm) * without
    return tf.reduce_mean(tf.reduce_sum(cells, axis=[1, 2]))


def reconstruction_loss(maps: Any, reconstructed: Any) -> Any:
    """10 times the mean squared error."""
    return RECONSTRUCTION_WEIGHT * tf.reduce_mean(tf.square(maps - reconstructed))


def detections(
    outputs: np.ndarray, stride: int, count: int = 30, overlap: float = 0.3
) -> np.ndarray:
    """Boxes from the network's outputs, without those of the same class that overlap.

    Args:
        outputs: N x rows x columns x (6 + classes).
        stride: pixels of a cell's side.
        count: boxes of a map, at most.
        overlap: intersection over union above which the worse of two goes.

    Returns:
        N x count x 6: top, left, bottom, right, class, and the score p(storm) p(class); class -1
        where there are no more.
    """
    number, rows, columns, width = outputs.shape
    cells = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    centre = (outputs[..., :2] + cells) * stride
    half = 2.0 ** np.clip(outputs[..., 2:4], -10, 10) * stride / 2
    found = np.concatenate([centre - half, centre + half], axis=-1).reshape(number, -1, 4)
    found = box.clip(tf.constant(found, tf.float32), (rows * stride, columns * stride))
    flat = outputs.reshape(number, -1, width)
    objectness = tf.nn.softmax(flat[..., 4:6])[..., 1:]
    scores = objectness * tf.nn.softmax(flat[..., 6:])
    return np.asarray(box.suppress_by_class(found, scores, count, overlap))


racah_tiny = partial(racah_detector, (48, 72, 16), (16, 32, 32))
racah_small = partial(racah_detector, (96, 144, 16), (32, 48, 64, 96))
racah_reference = racah_detector
