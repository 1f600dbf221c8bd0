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
import tensorflow as tf

from models import boxes as box
from models.data.storms import CLASSES

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


def cell_targets(boxes: Any, shape: tuple[int, int], stride: int) -> Any:
    """What the cells are to predict.

    Args:
        boxes: N x M x 5, top, left, bottom, right in pixels and the class, -1 for none.
        shape: rows and columns of cells.
        stride: pixels of a cell's side.

    Returns:
        N x rows x columns x 6 float32: position (2), log sizes (2), 1 where a storm is centred,
        and its class. Of two in a cell the later one stays.
    """
    boxes = tf.cast(boxes, tf.float32)
    corner, opposite = boxes[..., :2] / stride, boxes[..., 2:4] / stride
    centre, size = (corner + opposite) / 2, opposite - corner
    cell = tf.minimum(tf.floor(centre), tf.constant(shape, tf.float32) - 1)
    present = boxes[..., 4:] >= 0
    values = tf.concat(
        [
            centre - cell,
            tf.math.log(tf.maximum(size, 1e-3)) / tf.math.log(2.0),
            tf.ones_like(boxes[..., 4:]),
            boxes[..., 4:],
        ],
        axis=-1,
    )
    cells = shape[0] * shape[1]
    number = tf.cast(cell[..., 0] * shape[1] + cell[..., 1], tf.int32)  # N x M
    within = tf.one_hot(number, cells, on_value=True, off_value=False) & present
    order = tf.range(1, boxes.shape[1] + 1)[:, None]
    last = tf.reduce_max(tf.where(within, order, 0), axis=1)  # N x cells, 0 for none
    chosen = tf.gather(values, tf.maximum(last - 1, 0), batch_dims=1)
    chosen = tf.where(last[..., None] > 0, chosen, 0.0)
    return tf.reshape(chosen, [-1, *shape, 6])


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


def detections(outputs: Any, stride: int, count: int = 30, overlap: float = 0.3) -> Any:
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
    outputs = tf.convert_to_tensor(outputs)
    rows, columns, width = outputs.shape[1:]
    cells = tf.stack(tf.meshgrid(tf.range(rows), tf.range(columns), indexing="ij"), axis=-1)
    centre = (outputs[..., :2] + tf.cast(cells, outputs.dtype)) * stride
    half = 2.0 ** tf.clip_by_value(outputs[..., 2:4], -10, 10) * stride / 2
    found = tf.concat([centre - half, centre + half], axis=-1)
    found = box.clip(found, (rows * stride, columns * stride))
    found = tf.reshape(found, [-1, rows * columns, 4])
    flat = tf.reshape(outputs, [-1, rows * columns, width])
    objectness = tf.nn.softmax(flat[..., 4:6])[..., 1:]
    scores = objectness * tf.nn.softmax(flat[..., 6:])
    return box.suppress_by_class(found, scores, count, overlap)


racah_tiny = partial(racah_detector, (48, 72, 16), (16, 32, 32))
racah_small = partial(racah_detector, (48, 72, 16), (24, 48, 64))
racah_reference = racah_detector
