"""Steps come out the same however Keras runs them: batched, compiled, in low precision."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

from tests.tfkfac.keras_versions import needs_keras_3, reset_dtype_policy
from tests.tfkfac.training import (
    CALM,
    assert_factors_close,
    assert_weights_close,
    compiled,
    dense_model,
    factors,
    fit,
)
from tfkfac import KFAC


@needs_keras_3("its optimizers do not accumulate gradients")
@pytest.mark.parametrize("factor_interval", [1, 2])
def test_gradient_accumulation_equals_larger_batches(factor_interval):
    optimizers = [
        KFAC(factor_interval=factor_interval, gradient_accumulation_steps=steps, **CALM)
        for steps in (None, 3)
    ]
    whole = compiled(optimizers[0])
    parts = compiled(optimizers[1], whole.get_weights())
    fit(whole, epochs=2, batch_size=12)
    fit(parts, epochs=2, batch_size=4)
    assert int(optimizers[0].iterations) == int(optimizers[1].iterations) == 4
    assert_weights_close(parts, whole, 2e-6)
    assert_factors_close(optimizers[1], optimizers[0], 2e-6)
    updates = [optimizer.report().rows[0].factor_updates for optimizer in optimizers]
    assert updates == [4 // factor_interval, 12 // factor_interval]


def image_model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Reshape((2, 2, 1)),
            layers.Conv2D(2, 2, padding="same", activation="tanh"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def test_compiled_and_multi_step_runs_equal_plain_ones():
    plain = compiled(KFAC(factor_interval=2, **CALM), model=image_model())
    weights = plain.get_weights()
    fit(plain, epochs=2)
    for arguments in (
        {"jit_compile": True},
        {"steps_per_execution": 4},
    ):
        other = compiled(KFAC(factor_interval=2, **CALM), weights, model=image_model(), **arguments)
        fit(other, epochs=2)
        assert int(other.optimizer.iterations) == 8
        assert_weights_close(other, plain, 2e-4 if "jit_compile" in arguments else 1e-6)
        assert_factors_close(other.optimizer, plain.optimizer, 1e-3)


@needs_keras_3("its optimizers are built in another way")
@pytest.mark.parametrize("inner", [None, "adam"])
def test_fit_traces_the_step_once(inner):
    """What an optimizer creates in the first trace would make TensorFlow trace it again."""
    traces = []

    class Counting(keras.Sequential):
        def train_step(self, data):
            traces.append(data)
            return super().train_step(data)

    model = Counting([keras.Input((4,)), layers.Dense(3)])
    model.compile(optimizer=KFAC(optimizer=inner), loss="mse")
    fit(model, epochs=2)
    assert len(traces) == 1 and model.optimizer.state_variables


@pytest.fixture
def restore_policy():
    yield
    reset_dtype_policy()


def test_mixed_precision(restore_policy):
    weights = dense_model().get_weights()
    cases: dict[str, tuple[str, Callable]] = {
        "float32": ("float32", lambda kfac: kfac),
        "bfloat16": ("mixed_bfloat16", lambda kfac: kfac),
        "float16": ("mixed_float16", lambda kfac: kfac),
        "float16, scale 8": (
            "mixed_float16",
            lambda kfac: keras.mixed_precision.LossScaleOptimizer(kfac, initial_scale=8.0),
        ),
    }
    found: dict[str, list[np.ndarray]] = {}
    for name, (policy, wrap) in cases.items():
        keras.mixed_precision.set_global_policy(policy)
        kfac = KFAC(learning_rate=0.0, factor_interval=1, factor_decay=0.5)
        model = compiled(wrap(kfac), weights)
        wrapped = isinstance(model.optimizer, keras.mixed_precision.LossScaleOptimizer)
        assert wrapped == (policy == "mixed_float16")
        fit(model)  # weights stay, so that all runs see the same statistics
        found[name] = list(factors(kfac).values())
        assert {value.dtype for value in found[name]} == {np.dtype("float32")}
        assert kfac.report().rows[0].factor_updates == 4
        kfac.learning_rate = 0.05
        losses = fit(model, epochs=4).history["loss"]
        assert losses[-1] < 0.9 * losses[0]
    for name, other, tolerance in (
        ("bfloat16", "float32", 0.05),
        ("float16", "float32", 0.005),
        ("float16", "float16, scale 8", 0.002),
    ):
        for one, two in zip(found[name], found[other], strict=True):
            np.testing.assert_allclose(one, two, rtol=0, atol=tolerance * np.abs(two).max())
    # The tolerances could tell a factor from the identity that it started as.
    assert all(np.abs(value - np.eye(value.shape[-1])).max() > 0.1 for value in found["float32"])


@needs_keras_3("its optimizers do not accumulate gradients")
def test_all_modes_together(restore_policy):
    """Loss scaling and accumulation put the optimizer into nested branches, XLA compiles them."""
    generator = np.random.default_rng(0)
    inputs, targets = generator.integers(0, 9, (24, 4)), generator.normal(size=(24, 3))

    def token_model():
        return keras.Sequential(
            [
                keras.Input((4,), dtype="int32"),
                layers.Embedding(9, 3),
                layers.Flatten(),
                layers.Dense(3),
            ]
        )

    plain = compiled(KFAC(factor_interval=1, **CALM), model=token_model())
    weights = plain.get_weights()
    plain.fit(inputs, targets, batch_size=12, shuffle=False, verbose=0)
    keras.mixed_precision.set_global_policy("mixed_float16")
    kfac = KFAC(factor_interval=1, gradient_accumulation_steps=2, global_clipnorm=100.0, **CALM)
    model = compiled(kfac, weights, token_model(), jit_compile=True, steps_per_execution=2)
    assert isinstance(model.optimizer, keras.mixed_precision.LossScaleOptimizer)
    model.fit(inputs, targets, batch_size=6, shuffle=False, verbose=0)
    assert int(kfac.iterations) == 2
    assert_weights_close(model, plain, 2e-4)
    assert_factors_close(kfac, plain.optimizer, 2e-3)


@needs_keras_3("its optimizers have no loss_scale_factor")
def test_loss_scale_factor_changes_nothing():
    plain = compiled(KFAC(factor_interval=1))
    scaled = compiled(KFAC(factor_interval=1, loss_scale_factor=64.0), plain.get_weights())
    fit(plain)
    fit(scaled)
    assert_weights_close(scaled, plain)
    assert_factors_close(scaled.optimizer, plain.optimizer, 1e-6)
