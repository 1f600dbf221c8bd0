"""From one encoded photograph to a network input: decoding, cropping, normalising."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from models.data.dataset import derived_key

EVALUATION_RESIZE = 256  # shorter side, for a crop of 224
EVALUATION_CROP = 224
# Of each channel over ImageNet's training images, scaled to 0 ... 1.
MEAN = (0.485, 0.456, 0.406)
STANDARD_DEVIATION = (0.229, 0.224, 0.225)


def as_jpeg(encoded: Any, source: Any) -> Any:
    """The encoded image itself if it is a JPEG; a PNG (ImageNet holds one) is encoded anew.

    Anything else fails with tf.errors.InvalidArgumentError, naming `source`.
    """
    is_jpeg = tf.io.is_jpeg(encoded)
    is_png = tf.strings.substr(encoded, 0, 8) == b"\x89PNG\r\n\x1a\n"
    known = tf.debugging.Assert(is_jpeg | is_png, ["neither JPEG nor PNG:", source])
    with tf.control_dependencies([known]):
        return tf.cond(
            is_jpeg,
            lambda: encoded,
            lambda: tf.io.encode_jpeg(tf.io.decode_png(encoded, channels=3), quality=100),
        )


def training_input(encoded: Any, key: Any, size: int) -> Any:  # -> size x size x 3, float32
    """A random part of the image (8 % to 100 % of its area, aspect ratio 3/4 to 4/3), resized to a
    square, half of the time mirrored, and normalised."""
    shape = tf.io.extract_jpeg_shape(encoded)
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.zeros([1, 0, 4]),
        seed=derived_key(key, 0),
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    image = _cropped(encoded, begin[0], begin[1], extent[0], extent[1], size)
    mirrored = tf.random.stateless_uniform([], derived_key(key, 1)) < 0.5
    return _normalised(tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image))


def evaluation_input(encoded: Any, size: int) -> Any:  # -> size x size x 3, float32
    """The centre of the image, as if its shorter side were resized to 256 for a crop of 224."""
    shape = tf.io.extract_jpeg_shape(encoded)
    height, width = shape[0], shape[1]
    ratio = EVALUATION_CROP / EVALUATION_RESIZE
    side = tf.cast(tf.round(ratio * tf.cast(tf.minimum(height, width), tf.float32)), tf.int32)
    side = tf.maximum(side, 1)
    image = _cropped(encoded, (height - side) // 2, (width - side) // 2, side, side, size)
    return _normalised(image)


def _cropped(encoded: Any, top: Any, left: Any, height: Any, width: Any, size: int) -> Any:
    """Decodes the window only, and resizes it with antialiasing, as Pillow does."""
    window = tf.stack([top, left, height, width])
    image = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
    resized = tf.image.resize(image, [size, size], method="bilinear", antialias=True)
    return tf.ensure_shape(resized, [size, size, 3])


def _normalised(image: Any) -> Any:
    return (image / 255.0 - MEAN) / STANDARD_DEVIATION
