"""The programs in docs/keras-2-to-3.md run, and train alike."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfkfac.keras_version import KERAS_3

PAGE = Path(__file__).parents[2] / "docs" / "keras-2-to-3.md"
# Of both programs.
LOSSES = [0.608144, 0.121602, 0.075782, 0.052763]


def program(heading: str) -> str:
    found = re.search(rf"^## {heading}\n+```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert found, heading
    return found[1]


def test_programs_train_alike(tmp_path, monkeypatch):
    if not KERAS_3:
        pytest.importorskip("tensorflow_addons")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(program("With Keras 3" if KERAS_3 else "With Keras 2"), names)
    np.testing.assert_allclose(names["history"].history["loss"], LOSSES, rtol=1e-4)
    assert names["rates"] == pytest.approx([0.05] * len(LOSSES))
    # Taking the model along, as the page says.
    saved = np.load("weights.npz")
    weights = [saved[f"arr_{i}"] for i in range(len(names["model"].get_weights()))]
    names["model"].set_weights(weights)
    assert [w.shape for w in weights] == [(8, 16), (16,), (16, 2), (2,)]
