"""DeepCAM: segmentation of extreme weather (Kurth et al., SC18), as MLPerf HPC has it.

DeepLabv3+ (Chen et al., ECCV 2018): a modified Xception whose last features are a sixteenth of the
map, atrous convolutions of four rates and the global mean side by side, and a decoder of transposed
convolutions that also sees features of a quarter of the map. Classes are background, tropical
cyclone and atmospheric river. Logits, in float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.data.extreme_weather import MASKS

ATROUS_RATES = (6, 12, 18)
# Fractions of the pixels in the ClimateNet maps; a class weighs its fraction to the power of -1/8.
FREQUENCIES = (0.98627, 0.000458, 0.01327)
WEIGHT_EXPONENT = -0.125


def _batch_norm(x: Any, name: str) -> Any:
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def _relu(x: Any, name: str) -> Any:
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _convolution(x: Any, filters: int, size: int, name: str, stride: int = 1, rate: int = 1) -> Any:
    """A convolution, batch normalisation and ReLU."""
    x = keras.layers.Conv2D(
        filters,
        size,
        strides=stride,
        dilation_rate=rate,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return _relu(_batch_norm(x, name), name)


def _separable(x: Any, filters: int, name: str, stride: int = 1, rate: int = 1) -> Any:
    """A 3x3 convolution within each channel, then a 1x1 convolution over channels."""
    x = keras.layers.DepthwiseConv2D(
        3,
        strides=stride,
        dilation_rate=rate,
        padding="same",
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{name}_depthwise",
    )(x)
    return keras.layers.Conv2D(
        filters, 1, use_bias=False, kernel_initializer="he_normal", name=f"{name}_pointwise"
    )(x)


def _block(
    x: Any,
    filters: list[int],
    name: str,
    stride: int = 1,
    more: bool = False,
    relu: bool = True,
) -> Any:
    """Xception's residual block.

    Args:
        x: features.
        filters: of the separable convolutions, which batch normalisation follows.
        name: begins its layers' names.
        stride: of one more separable convolution and of the shortcut.
        more: one more separable convolution though the stride is 1.
        relu: end with one.
    """
    shortcut = x
    if stride > 1 or x.shape[-1] != filters[-1]:
        shortcut = keras.layers.Conv2D(
            filters[-1],
            1,
            strides=stride,
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_shortcut",
        )(x)
        shortcut = _batch_norm(shortcut, f"{name}_shortcut")
    for number, count in enumerate(filters, start=1):
        part = f"{name}_{number}"
        x = _batch_norm(_separable(x, count, part), part)
        if number < len(filters):
            x = _relu(x, part)
    if stride > 1 or more:
        x = _separable(x, filters[-1], f"{name}_last", stride)
    x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return _relu(x, name) if relu else x


def deepcam(
    input_shape: tuple[int, int, int] = (768, 1152, 16),
    classes: int = len(MASKS),
    width: int = 128,
    middle: int = 728,
    middle_blocks: int = 16,
    exit_widths: tuple[int, int, int] = (1024, 1536, 2048),
    decoder: int = 256,
) -> keras.Model:
    """The network.

    Args:
        input_shape: rows, columns, channels; rows and columns divisible by 16.
        classes: number of logits of a pixel.
        width: of the first block; the stem has a quarter and a half of it, the second block twice
            as much.
        middle: of the blocks in the middle.
        middle_blocks: their number.
        exit_widths: of the last block and the convolutions behind it.
        decoder: of everything after that.

    Returns:
        A Keras model from N x rows x columns x channels to N x rows x columns x classes.

    Raises:
        ValueError: if the map cannot be halved four times.
    """
    if input_shape[0] % 16 or input_shape[1] % 16:
        raise ValueError(f"a map of {input_shape[:2]} cannot be halved four times")
    inputs = keras.Input(input_shape, name="map")
    x = _convolution(inputs, width // 4, 3, "stem1", stride=2)
    x = _convolution(x, width // 2, 3, "stem2")
    x = _block(x, [width] * 2, "entry1", stride=2, relu=False)
    low_level = x
    x = _relu(x, "entry1")
    x = _block(x, [2 * width] * 2, "entry2", stride=2)
    x = _block(x, [middle] * 2, "entry3", stride=2)
    for number in range(1, middle_blocks + 1):
        x = _block(x, [middle] * 3, f"middle{number}")
    x = _block(x, [middle, exit_widths[0]], "exit1", more=True, relu=False)
    for number, count in enumerate((exit_widths[1], exit_widths[1], exit_widths[2]), start=2):
        name = f"exit{number}"
        x = _relu(_batch_norm(_separable(x, count, name, rate=2), name), name)

    branches = [_convolution(x, decoder, 1, "atrous1")]
    branches += [_convolution(x, decoder, 3, f"atrous{rate}", rate=rate) for rate in ATROUS_RATES]
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True, name="mean")(x)
    # A scale and a shift, as batch normalisation has, but no statistics: there is one mean a map.
    mean = keras.layers.Conv2D(
        decoder, 1, kernel_initializer="he_normal", activation="relu", name="mean_conv"
    )(mean)
    mean = keras.layers.UpSampling2D(tuple(x.shape[1:3]), name="mean_everywhere")(mean)
    x = keras.layers.Concatenate(name="scales")([*branches, mean])
    x = _convolution(x, decoder, 1, "bottleneck")

    def doubled(x: Any, filters: int, name: str) -> Any:
        return keras.layers.Conv2DTranspose(
            filters,
            3,
            strides=2,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_deconv",
        )(x)

    for name in ("up1", "up2"):
        x = _relu(_batch_norm(doubled(x, decoder, name), name), name)
    low_level = _convolution(low_level, 3 * decoder // 16, 1, "low_level")
    x = keras.layers.Concatenate(name="levels")([x, low_level])
    x = _convolution(x, decoder, 3, "decoder1")
    x = _convolution(x, decoder, 3, "decoder2")
    x = keras.layers.Conv2D(decoder, 1, name="decoder3_conv")(x)
    x = _relu(_batch_norm(doubled(x, decoder, "up3"), "up3"), "up3")
    x = doubled(x, classes, "up4")
    x = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    return keras.Model(inputs, x, name="deepcam")


def class_weights(frequencies: tuple[float, ...] = FREQUENCIES) -> np.ndarray:
    """What a pixel of each class weighs: its frequency to the power of -0.125."""
    return np.array(frequencies, np.float32) ** WEIGHT_EXPONENT


def segmentation_loss(masks: Any, logits: Any) -> Any:
    """Cross entropy of all pixels, weighted by the class of each; its mean.

    Args:
        masks: classes, N x rows x columns.
        logits: N x rows x columns x classes.
    """
    masks = tf.cast(masks, tf.int32)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(masks, logits)
    return tf.reduce_mean(tf.gather(tf.constant(class_weights()), masks) * entropy)


deepcam_tiny = partial(
    deepcam,
    (48, 80, 16),
    width=16,
    middle=32,
    middle_blocks=1,
    exit_widths=(32, 48, 48),
    decoder=16,
)
deepcam_reference = deepcam
