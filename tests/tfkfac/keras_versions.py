"""What these tests have to know of the Keras version they run with."""

from __future__ import annotations

from typing import Any

import keras
import pytest
import tensorflow as tf

from tfkfac.keras_version import KERAS_3


def needs_keras_3(reason: str) -> pytest.MarkDecorator:
    """Skips a test under Keras 2, where `reason` holds."""
    return pytest.mark.skipif(not KERAS_3, reason=f"Keras 2: {reason}")


def reset_dtype_policy() -> None:
    """Makes layers follow `floatx` again."""
    keras.mixed_precision.set_global_policy("float32" if KERAS_3 else None)


def underlying(variable: Any) -> tf.Variable:
    """TensorFlow's variable behind one of Keras."""
    return variable.value if KERAS_3 else variable
