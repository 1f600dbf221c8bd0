"""Steps in float64 give the same numbers with every supported TensorFlow and Keras.

`same_numbers.json` holds the weights after three steps with TensorFlow 2.21 and Keras 3. Made by

    python -m tests.tfkfac.test_same_numbers
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.tfkfac.test_preconditioning import (
    HYPERPARAMETERS,
    image_batch,
    image_loss,
    image_model,
    token_batch,
    token_model,
)
from tests.tfkfac.training import train_step
from tfkfac import KFAC

FILE = Path(__file__).with_name("same_numbers.json")
STEPS = 3
MODELS = {"image": (image_model, image_batch), "token": (token_model, token_batch)}


def weights_after_steps(kind: str) -> list[np.ndarray]:
    """Starting from weights that no Keras has drawn."""
    build, batch = MODELS[kind]
    model = build()
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=w.shape) / 2 for w in model.get_weights()])
    hyperparameters: dict[str, Any] = HYPERPARAMETERS
    step = train_step(model, KFAC(**hyperparameters), image_loss)
    for i in range(STEPS):
        step(*batch(i))
    return [variable.numpy() for variable in model.trainable_variables]


@pytest.mark.parametrize("kind", MODELS)
def test_steps_give_the_same_numbers(kind, double_precision):
    expected = [np.array(values) for values in json.loads(FILE.read_text())[kind]]
    for actual, values in zip(weights_after_steps(kind), expected, strict=True):
        np.testing.assert_allclose(actual.ravel(), values, rtol=1e-10, atol=1e-10)


def main() -> None:
    """Writes the file."""
    keras.backend.set_floatx("float64")
    lines = []
    for kind in MODELS:
        values = ",\n".join(json.dumps(w.ravel().tolist()) for w in weights_after_steps(kind))
        lines.append(f'"{kind}": [\n{values}\n]')
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
