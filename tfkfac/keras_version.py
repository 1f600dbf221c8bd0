"""Which Keras this process has, and whether tfkfac knows it."""

from __future__ import annotations

import os

import keras
import tensorflow as tf

SUPPORTED = (
    "tfkfac supports Keras 3 with TensorFlow 2.16 or later (tested with 2.21), and Keras 2.15 with "
    "TensorFlow 2.15"
)
ADVICE = "docs/compatibility.md"


def is_keras_3(
    tensorflow_version: str = tf.__version__,
    keras_version: str = keras.__version__,
    legacy_keras: str = os.environ.get("TF_USE_LEGACY_KERAS", ""),
) -> bool:
    """Whether KFAC is to be a Keras 3 optimizer (else one of Keras 2).

    Args:
        tensorflow_version: As `tf.__version__`.
        keras_version: As `keras.__version__`.
        legacy_keras: The environment variable `TF_USE_LEGACY_KERAS`.

    Raises:
        ImportError: The combination is not supported; the message says which ones are.
    """
    tensorflow_minor = _version(tensorflow_version)
    keras_minor = _version(keras_version)
    if legacy_keras.lower() in ("1", "true"):
        raise ImportError(
            "tfkfac: TF_USE_LEGACY_KERAS is set, so that tf.keras is the package tf-keras, whose "
            f"models take no optimizer of Keras {keras_version}. {SUPPORTED}: unset the variable "
            f"and import keras itself ({ADVICE})."
        )
    if tensorflow_minor >= (2, 16) and keras_minor >= (3, 0):
        return True
    if tensorflow_minor == (2, 15) and keras_minor == (2, 15):
        return False
    raise ImportError(
        f"tfkfac: found Keras {keras_version} with TensorFlow {tensorflow_version}. "
        f"{SUPPORTED} ({ADVICE})."
    )


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


KERAS_3 = is_keras_3()
