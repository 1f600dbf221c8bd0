"""Fixtures that the tests of tfkfac share."""

from __future__ import annotations

import keras
import pytest

from tests.tfkfac.keras_versions import reset_dtype_policy


@pytest.fixture
def double_precision():
    """Keras layers in float64."""
    keras.backend.set_floatx("float64")
    yield
    keras.backend.set_floatx("float32")
    reset_dtype_policy()


@pytest.fixture(autouse=True)
def same_start():
    """Same random numbers and layer names whichever tests ran before."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
