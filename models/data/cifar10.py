"""CIFAR-10 (Krizhevsky 2009): 60,000 colour images of 32x32 pixels in ten classes."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.data.arrays import ArrayDataset
from models.data.dataset import derived_key
from tfkfac.errors import InputError

CLASSES = 10
SIZE = 32
PADDING = 4
# Of each channel over the 50,000 training images, scaled to 0 ... 1.
MEAN = (0.4914, 0.4822, 0.4465)
STANDARD_DEVIATION = (0.2470, 0.2435, 0.2616)

EXPECTED = "x_train and x_test (N x 32 x 32 x 3, uint8), y_train and y_test (N labels from 0 to 9)"


def load(
    path: str | Path | None = None, train: int | None = None, test: int | None = None
) -> ArrayDataset:
    """CIFAR-10 from a file, or, without a path, as Keras downloads and caches it.

    Training images are padded by 4 pixels, cropped at random and flipped at random, as in section
    4.2 of He et al.; all are normalised by channel.

    Args:
        path: an .npz file holding x_train, y_train, x_test and y_test.
        train, test: take so many images, the first ones; None for all.

    Raises:
        InputError: if the file is missing, damaged or of another form, or if the download fails.
    """
    x_train, y_train, x_test, y_test = _downloaded() if path is None else _read(Path(path))
    return ArrayDataset(
        "cifar10",
        x_train[:train],
        y_train[:train],
        x_test[:test],
        y_test[:test],
        CLASSES,
        prepare=normalise,
        augment=augment,
    )


def normalise(images: Any) -> Any:  # N x 32 x 32 x 3, uint8 -> float32
    """Zero mean and unit variance for each channel over the training set."""
    return (tf.cast(images, tf.float32) / 255.0 - MEAN) / STANDARD_DEVIATION


def augment(images: Any, key: Any) -> Any:  # N x 32 x 32 x 3, uint8 -> float32
    """Random crops of the padded images, half of them mirrored, then normalised.

    The padding is black before normalisation. The whole batch is cropped by two gathers.

    Args:
        images: the batch.
        key: two integers; the same key gives the same crops.
    """
    count = tf.shape(images)[0]
    margin = [PADDING, PADDING]
    padded = tf.pad(images, [[0, 0], margin, margin, [0, 0]])
    top, left, mirrored = (
        tf.random.stateless_uniform([count, 1], derived_key(key, draw), 0, choices, tf.int32)
        for draw, choices in enumerate((2 * PADDING + 1, 2 * PADDING + 1, 2))
    )
    pixels = tf.range(SIZE)
    rows = top + pixels  # N x 32
    columns = left + tf.where(mirrored == 1, SIZE - 1 - pixels, pixels)  # N x 32
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    cropped = tf.gather(cropped, columns, axis=2, batch_dims=1)
    return normalise(cropped)


def _downloaded() -> tuple[np.ndarray, ...]:
    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.cifar10.load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        reason = str(error).splitlines()[0]
        raise InputError(
            f"CIFAR-10 could not be downloaded ({reason}); without a connection, give a file "
            f"with --data FILE.npz holding {EXPECTED}"
        ) from error
    return x_train, y_train.reshape(-1), x_test, y_test.reshape(-1)


def _read(path: Path) -> tuple[np.ndarray, ...]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an .npz file with {EXPECTED}")
    names = [f"{kind}_{part}" for part in ("train", "test") for kind in "xy"]
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("no zip archive")
        with np.load(path, allow_pickle=False) as archive:
            held = archive.files
            parts = {name: archive[name] for name in names if name in held}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path}: damaged or not an .npz file ({error}); expected {EXPECTED}"
        ) from error
    if missing := [name for name in names if name not in parts]:
        raise InputError(
            f"{path}: has no {', '.join(missing)}, only {', '.join(held)}; expected {EXPECTED}"
        )
    checked: list[np.ndarray] = []
    for part in ("train", "test"):
        checked += _checked(path, part, parts[f"x_{part}"], parts[f"y_{part}"])
    return tuple(checked)


def _checked(
    path: Path, part: str, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (SIZE, SIZE, 3):
        raise InputError(
            f"{path}: x_{part} is {images.dtype} of shape {images.shape}; "
            f"expected uint8 of shape (N, {SIZE}, {SIZE}, 3)"
        )
    if len(images) == 0:
        raise InputError(f"{path}: x_{part} holds no images")
    if labels.shape == (len(images), 1):  # as Keras stores them
        labels = labels.reshape(-1)
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{path}: y_{part} is {labels.dtype} of shape {labels.shape}; "
            f"expected integers of shape ({len(images)},), one for each image"
        )
    if labels.min() < 0 or labels.max() >= CLASSES:
        raise InputError(
            f"{path}: y_{part} has labels from {labels.min()} to {labels.max()}; "
            f"expected 0 to {CLASSES - 1}"
        )
    return images, labels
