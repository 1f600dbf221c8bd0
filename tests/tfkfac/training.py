"""Small models, data and training steps for tests of whole runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

# Small enough a condition number for float32 rounding not to grow.
CALM: dict[str, Any] = {"learning_rate": 0.05, "damping": 0.1, "eigen_interval": 2}


def dense_model() -> keras.Model:
    """Two dense layers, `first` (4 to 5) and `second` (5 to 3)."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, activation="tanh", name="first"),
            layers.Dense(3, name="second"),
        ]
    )


def data(size: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(size, 4))
    targets = np.sin(inputs @ generator.normal(size=(4, 3)))
    return inputs.astype(keras.backend.floatx()), targets.astype(keras.backend.floatx())


def fit(model: keras.Model, epochs: int = 1, batch_size: int = 6, **arguments):
    """`model.fit` on `data()`, four steps an epoch, always in the same order."""
    arguments = {"shuffle": False, "verbose": 0} | arguments
    return model.fit(*data(), batch_size=batch_size, epochs=epochs, **arguments)


def mean_squared_error(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.square(outputs - targets), axis=-1)


def train_step(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, loss: Callable = mean_squared_error
) -> Callable:
    """A traced step (inputs, targets) -> loss, as in a training loop of one's own."""
    # Else the step would be traced twice: once to create the variables.
    optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True, autograph=False)
    def step(inputs, targets):
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(loss(targets, model(inputs, training=True)))
            value += sum(model.losses)
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return value

    return step


def flat_weights(model: keras.Model) -> np.ndarray:
    return np.concatenate([variable.numpy().ravel() for variable in model.trainable_variables])


def factors(optimizer) -> dict[str, np.ndarray]:
    """All factors of a KFAC by layer path and side."""
    return {
        f"{state.plan.name}/{name}": state.variables[f"{name}_factor"].numpy()
        for state in optimizer.layers
        for name, _ in state.sides()
    }


def assert_factors_close(optimizer, other, tolerance: float) -> None:
    """Largest differences, relative to the largest entry of each factor."""
    expected, actual = factors(other), factors(optimizer)
    assert len(expected) == len(actual) > 0
    # Layers of two models may be numbered differently: compare in order.
    for (path, one), two in zip(actual.items(), expected.values(), strict=True):
        scale = np.abs(two).max()
        np.testing.assert_allclose(one, two, rtol=0, atol=tolerance * scale, err_msg=path)


def compiled(optimizer, weights=None, model=None, **arguments) -> keras.Model:
    model = dense_model() if model is None else model
    if weights is not None:
        model.set_weights(weights)
    model.compile(optimizer, loss="mse", **arguments)
    return model


def assert_weights_close(model, other, tolerance=1e-6):
    np.testing.assert_allclose(
        flat_weights(model), flat_weights(other), rtol=tolerance, atol=tolerance
    )
