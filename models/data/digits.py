"""scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels, part of its installation."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from models.data.arrays import ArrayDataset
from tfkfac.errors import InputError

TEST_EXAMPLES = 360
# Over all pixels of the training examples, whose values are 0 ... 16.
MEAN, STANDARD_DEVIATION = 4.889, 6.021


def load() -> ArrayDataset:
    """The digits, 1,437 for training and 360 for testing, always split alike.

    Raises:
        InputError: if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            "dataset digits comes with scikit-learn, which is not installed: "
            "pip install scikit-learn"
        ) from error
    digits = load_digits()
    # The legacy generator's stream is frozen by NumPy, so the split never changes.
    order = np.random.RandomState(0).permutation(len(digits.target))
    images, labels = digits.images[order].astype(np.uint8)[..., np.newaxis], digits.target[order]

    def prepare(batch: Any) -> Any:
        return (tf.cast(batch, tf.float32) - MEAN) / STANDARD_DEVIATION

    return ArrayDataset(
        "digits",
        x_train=images[TEST_EXAMPLES:],
        y_train=labels[TEST_EXAMPLES:],
        x_test=images[:TEST_EXAMPLES],
        y_test=labels[:TEST_EXAMPLES],
        classes=10,
        prepare=prepare,
    )
