"""Residual networks for CIFAR and ImageNet (He et al., "Deep Residual Learning", CVPR 2016).

Both families return logits in float32 whatever the dtype policy, use channels-last images, no
convolution biases, and He-normal initial kernels. Weight decay is the optimizer's business.

Strided convolutions pad both sides alike, as the published networks do. (TensorFlow's "same" pads
only the far side of an even input, which would shift the residual by a pixel against its
parameter-free shortcut.)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
import tensorflow as tf

BATCH_NORM_MOMENTUM = 0.9
BATCH_NORM_EPSILON = 1e-5
CLASSIFIER_NAME = "classifier"

IMAGENET_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@keras.saving.register_keras_serializable(package="models")
class ZeroPadShortcut(keras.layers.Layer):
    """The parameter-free shortcut ("option A", section 3.3) between feature maps of two sizes.

    Takes every `stride`-th pixel and appends zero channels up to `channels`.

    Args:
        channels: number of channels of the result, at least the input's.
        stride: distance in pixels, along both axes, between the pixels that are kept.

    Raises:
        ValueError: on the first call, if the input has more than `channels` channels.

    Example:

    >>> ZeroPadShortcut(channels=32, stride=2)(tf.ones((1, 8, 8, 16))).shape
    TensorShape([1, 4, 4, 32])
    """

    def __init__(self, channels: int, stride: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.stride = stride

    def call(self, inputs: Any) -> Any:  # N x H x W x C -> N x H/stride x W/stride x channels
        missing = self.channels - inputs.shape[-1]
        if missing < 0:
            raise ValueError(
                f"{self.name}: the shortcut appends channels, so it cannot turn "
                f"{inputs.shape[-1]} into {self.channels}"
            )
        kept = inputs[:, :: self.stride, :: self.stride, :]
        return tf.pad(kept, ((0, 0), (0, 0), (0, 0), (0, missing)))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, _ = input_shape

        def kept(size: int | None) -> int | None:
            return None if size is None else -(-size // self.stride)

        return batch, kept(height), kept(width), self.channels

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels, "stride": self.stride}


def _convolution(x: Any, filters: int, size: int, stride: int, name: str) -> Any:
    """A convolution without bias, padded by (size - 1) / 2 on every side."""
    padding = "same"
    if stride > 1 and size > 1:
        x = keras.layers.ZeroPadding2D((size - 1) // 2, name=f"{name}_padding")(x)
        padding = "valid"
    return keras.layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=keras.initializers.HeNormal(),
        name=name,
    )(x)


def _batch_norm(x: Any, name: str, zero_gamma: bool = False) -> Any:
    return keras.layers.BatchNormalization(
        momentum=BATCH_NORM_MOMENTUM,
        epsilon=BATCH_NORM_EPSILON,
        gamma_initializer="zeros" if zero_gamma else "ones",
        name=name,
    )(x)


def _relu(x: Any, name: str) -> Any:
    return keras.layers.Activation("relu", name=name)(x)


def _logits(x: Any, classes: int) -> Any:
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.layers.Dense(
        classes,
        kernel_initializer=keras.initializers.HeNormal(),
        dtype="float32",
        name=CLASSIFIER_NAME,
    )(x)


def _basic_block(x: Any, filters: int, stride: int, zero_gamma: bool, name: str) -> Any:
    """Two 3x3 convolutions and a shortcut without parameters (figure 5, left)."""
    shortcut = x
    if stride > 1 or x.shape[-1] != filters:
        shortcut = ZeroPadShortcut(filters, stride, name=f"{name}_shortcut")(x)
    x = _convolution(x, filters, 3, stride, f"{name}_conv1")
    x = _relu(_batch_norm(x, f"{name}_bn1"), f"{name}_relu1")
    x = _convolution(x, filters, 3, 1, f"{name}_conv2")
    x = _batch_norm(x, f"{name}_bn2", zero_gamma)
    return _relu(keras.layers.Add(name=f"{name}_add")([shortcut, x]), f"{name}_relu2")


def cifar_resnet(
    depth: int,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    width: int = 16,
    zero_gamma: bool = False,
) -> keras.Model:
    """The CIFAR network of section 4.2: a 3x3 stem and three stages of basic blocks.

    With n = (depth - 2) / 6 blocks a stage, the stages have `width`, 2 `width` and 4 `width`
    filters at full, half and quarter resolution; shortcuts are "option A", without parameters.

    Args:
        depth: layers with weights, 6 n + 2: 20, 32, 44, 56 and 110 in the paper.
        input_shape: height, width, channels of an image.
        classes: number of logits.
        width: filters of the first stage; 16 in the paper.
        zero_gamma: start each block as the identity (its last batch normalisation's scale is 0).

    Returns:
        A Keras model from N x height x width x channels to N x classes logits.

    Raises:
        ValueError: if `depth` is not 6 n + 2 with n >= 1.

    Example:

    >>> cifar_resnet(20).output_shape
    (None, 10)
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"a CIFAR ResNet has 6 n + 2 layers (8, 14, 20, ...), not {depth}")
    inputs = keras.Input(input_shape, name="image")
    x = _convolution(inputs, width, 3, 1, "stem_conv")
    x = _relu(_batch_norm(x, "stem_bn"), "stem_relu")
    for stage in range(3):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            name = f"stage{stage + 1}_block{block + 1}"
            x = _basic_block(x, width * 2**stage, stride, zero_gamma, name)
    return keras.Model(inputs, _logits(x, classes), name=f"resnet{depth}")


def _bottleneck_block(
    x: Any, filters: int, stride: int, stride_in_3x3: bool, zero_gamma: bool, name: str
) -> Any:
    """1x1, 3x3 and 1x1 convolutions, the last four times as wide (figure 5, right)."""
    shortcut = x
    if stride > 1 or x.shape[-1] != 4 * filters:
        shortcut = _convolution(x, 4 * filters, 1, stride, f"{name}_shortcut_conv")
        shortcut = _batch_norm(shortcut, f"{name}_shortcut_bn")
    first, second = (1, stride) if stride_in_3x3 else (stride, 1)
    x = _convolution(x, filters, 1, first, f"{name}_conv1")
    x = _relu(_batch_norm(x, f"{name}_bn1"), f"{name}_relu1")
    x = _convolution(x, filters, 3, second, f"{name}_conv2")
    x = _relu(_batch_norm(x, f"{name}_bn2"), f"{name}_relu2")
    x = _convolution(x, 4 * filters, 1, 1, f"{name}_conv3")
    x = _batch_norm(x, f"{name}_bn3", zero_gamma)
    return _relu(keras.layers.Add(name=f"{name}_add")([shortcut, x]), f"{name}_relu3")


def bottleneck_resnet(
    blocks: Sequence[int],
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    width: int = 64,
    stride_in_3x3: bool = False,
    zero_gamma: bool = False,
) -> keras.Model:
    """A network of bottleneck blocks as in table 1, of any depth and width.

    A 7x7 stem and a pooling quarter the resolution; each stage after the first halves it and
    doubles the filters.

    Args:
        blocks: how many each stage has.
        input_shape: height, width, channels of an image.
        classes: number of logits.
        width: filters of the stem and of the first stage's 3x3 convolutions; 64 in the paper.
        stride_in_3x3: put a block's stride into its 3x3 convolution ("v1.5"); the paper has it
            in the first 1x1 convolution. The number of parameters is the same.
        zero_gamma: start each block as the identity (its last batch normalisation's scale is 0).

    Returns:
        A Keras model from N x height x width x channels to N x classes logits.

    Example:

    >>> bottleneck_resnet((1, 1, 1, 1), (64, 64, 3), classes=2, width=8).output_shape
    (None, 2)
    """
    inputs = keras.Input(input_shape, name="image")
    x = _convolution(inputs, width, 7, 2, "stem_conv")
    x = _relu(_batch_norm(x, "stem_bn"), "stem_relu")
    # Zeros are a neutral padding for the maximum, since they follow a ReLU.
    x = keras.layers.ZeroPadding2D(1, name="stem_pool_padding")(x)
    x = keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    for stage, count in enumerate(blocks):
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            name = f"stage{stage + 1}_block{block + 1}"
            x = _bottleneck_block(x, width * 2**stage, stride, stride_in_3x3, zero_gamma, name)
    depth = 3 * sum(blocks) + 2
    return keras.Model(inputs, _logits(x, classes), name=f"resnet{depth}")


def imagenet_resnet(
    depth: int,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    stride_in_3x3: bool = False,
    zero_gamma: bool = False,
) -> keras.Model:
    """The ImageNet network of table 1 with bottleneck blocks: ResNet-50, -101 or -152.

    Args:
        depth: 50, 101 or 152.
        input_shape, classes, stride_in_3x3, zero_gamma: as for `bottleneck_resnet`.

    Returns:
        A Keras model from N x height x width x channels to N x classes logits.

    Raises:
        ValueError: if `depth` is none of the three.

    Example:

    >>> imagenet_resnet(50, classes=10).output_shape
    (None, 10)
    """
    if depth not in IMAGENET_BLOCKS:
        raise ValueError(f"an ImageNet ResNet has 50, 101 or 152 layers, not {depth}")
    return bottleneck_resnet(
        IMAGENET_BLOCKS[depth],
        input_shape,
        classes,
        stride_in_3x3=stride_in_3x3,
        zero_gamma=zero_gamma,
    )


# Small enough for 8x8 digits: one block a stage, 8, 16 and 32 filters.
resnet8 = partial(cifar_resnet, 8, input_shape=(8, 8, 1), width=8)
resnet20 = partial(cifar_resnet, 20)
resnet32 = partial(cifar_resnet, 32)
resnet44 = partial(cifar_resnet, 44)
resnet56 = partial(cifar_resnet, 56)
resnet110 = partial(cifar_resnet, 110)
resnet50 = partial(imagenet_resnet, 50)
resnet101 = partial(imagenet_resnet, 101)
resnet152 = partial(imagenet_resnet, 152)
