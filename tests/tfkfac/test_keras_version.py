"""Which combinations of TensorFlow and Keras are taken, and what the others are told."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.tfkfac.keras_versions import needs_keras_3
from tfkfac.keras_version import is_keras_3


@pytest.mark.parametrize(
    ("tensorflow", "keras", "expected"),
    [
        ("2.21.0", "3.15.1", True),
        ("2.16.1", "3.0.5", True),
        ("2.22.0rc1", "3.16.0", True),
        ("2.15.1", "2.15.0", False),
    ],
)
def test_supported_combinations(tensorflow, keras, expected):
    assert is_keras_3(tensorflow, keras, "") is expected
    assert is_keras_3(tensorflow, keras, "0") is expected


@pytest.mark.parametrize(
    ("tensorflow", "keras"), [("2.15.1", "3.5.0"), ("2.14.0", "2.14.0"), ("2.21.0", "2.15.0")]
)
def test_other_combinations_are_told_what_is_supported(tensorflow, keras):
    message = (
        f"found Keras {keras} with TensorFlow {tensorflow}. tfkfac supports Keras 3 with "
        "TensorFlow 2.16 or later .* and Keras 2.15 with TensorFlow 2.15"
    )
    with pytest.raises(ImportError, match=message):
        is_keras_3(tensorflow, keras, "")


@needs_keras_3("its tf.keras is no other package")
def test_legacy_keras_is_refused_on_import():
    """`tf.keras` would be tf-keras, and KFAC an optimizer of Keras 3."""
    done = subprocess.run(
        [sys.executable, "-c", "from tfkfac import KFAC"],
        env=os.environ | {"TF_USE_LEGACY_KERAS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: tfkfac: TF_USE_LEGACY_KERAS is set")
    assert "unset the variable and import keras itself (docs/compatibility.md)" in last
