"""KFAC with tensorflow-addons: its optimizers, wrappers, schedules and callbacks."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tfkfac.training import CALM, compiled, data, dense_model, fit, flat_weights, train_step
from tfkfac import KFAC

tfa = pytest.importorskip("tensorflow_addons", reason="tensorflow-addons needs TensorFlow 2.15")
legacy: Any = None if tfa is None else keras.optimizers.legacy

# Directions that depend on nothing but one step's gradients and statistics.
MEMORYLESS: dict[str, Any] = {
    "factor_decay": 0.0,
    "kl_clip": None,
    "damping": 0.125,
    "factor_interval": 1,
    "eigen_interval": 1,
}


@pytest.mark.parametrize(
    "make",
    [
        lambda: tfa.optimizers.SGDW(weight_decay=0.25, learning_rate=0.125, momentum=0.5),
        lambda: tfa.optimizers.LAMB(0.125, weight_decay_rate=0.25),
        lambda: tfa.optimizers.LazyAdam(0.125),
        lambda: tfa.optimizers.Lookahead(tfa.optimizers.LAMB(0.125), sync_period=1),
        lambda: legacy.SGD(0.125, momentum=0.5, nesterov=True),
    ],
)
def test_inner_optimizers_receive_the_preconditioned_gradient(make):
    model = dense_model()
    weights = model.get_weights()
    plain = KFAC(learning_rate=1.0, momentum=0.0, **MEMORYLESS)
    train_step(model, plain)(*data())
    directions = [w - v.numpy() for w, v in zip(weights, model.trainable_variables, strict=True)]
    model.set_weights(weights)
    train_step(model, KFAC(optimizer=make(), **MEMORYLESS))(*data())
    expected = [
        tf.Variable(w, name=v.name.partition(":")[0])
        for w, v in zip(weights, model.trainable_variables, strict=True)
    ]
    make().apply_gradients(zip(map(tf.constant, directions), expected, strict=True))
    for variable, value, before in zip(model.trainable_variables, expected, weights, strict=True):
        np.testing.assert_allclose(variable.numpy(), value.numpy(), rtol=2e-4, atol=2e-5)
        assert np.abs(value.numpy() - before).max() > 1e-3


def test_sgdw_is_sgd_with_another_weight_decay():
    """That of tensorflow-addons is not multiplied with the learning rate."""
    addons = tfa.optimizers.SGDW(weight_decay=0.25, learning_rate=0.125, momentum=0.5)
    of_keras = keras.optimizers.SGD(0.125, momentum=0.5, weight_decay=0.25 / 0.125)
    one, other = (trajectory(KFAC(optimizer=inner, damping=0.1), 3) for inner in (addons, of_keras))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


# --- wrappers ---


def trajectory(optimizer, steps: int, after_step=lambda i, model: None) -> np.ndarray:
    """Weights before each step and after the last, [steps + 1, parameters]."""
    keras.utils.set_random_seed(0)
    model = dense_model()
    step = train_step(model, optimizer)
    weights = [flat_weights(model)]
    for i in range(steps):
        step(*data())
        after_step(i, model)
        weights.append(flat_weights(model))
    optimizer.finalize_variable_values(model.trainable_variables)
    return np.array(weights)


def test_lookahead_inside_is_lookahead_around():
    """Lookahead looks at weights only: inside KFAC it does what it would do around it."""
    slow: list[np.ndarray] = []

    def look_back(i, model):
        if (i + 1) % 2 == 0:
            for variable, kept in zip(model.trainable_variables, slow, strict=True):
                kept += 0.25 * (variable.numpy() - kept)
                variable.assign(kept)

    keras.utils.set_random_seed(0)
    slow = [variable.numpy() for variable in dense_model().trainable_variables]
    by_hand = trajectory(KFAC(optimizer=legacy.SGD(0.05), damping=0.1), 5, look_back)
    inner = tfa.optimizers.Lookahead(legacy.SGD(0.05), sync_period=2, slow_step_size=0.25)
    np.testing.assert_allclose(
        trajectory(KFAC(optimizer=inner, damping=0.1), 5), by_hand, rtol=1e-5, atol=1e-6
    )


def averaged(inner, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights by step of KFAC with an averaging wrapper, and the average it ends with."""
    models: list[keras.Model] = []
    weights = trajectory(
        KFAC(optimizer=inner, damping=0.1), steps, lambda i, model: models.append(model)
    )
    inner.assign_average_vars(models[0].trainable_variables)
    return weights, flat_weights(models[0])


def test_averages_of_weights():
    plain = trajectory(KFAC(optimizer=legacy.SGD(0.05), damping=0.1), 5)
    wrapper = tfa.optimizers.MovingAverage(legacy.SGD(0.05), average_decay=0.75)
    weights, average = averaged(wrapper, 5)
    np.testing.assert_allclose(weights, plain, rtol=1e-5, atol=1e-6)
    expected = plain[0]
    for now in plain[1:]:
        expected = 0.75 * expected + 0.25 * now
    np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-6)

    wrapper = tfa.optimizers.SWA(legacy.SGD(0.05), start_averaging=1, average_period=2)
    weights, average = averaged(wrapper, 5)
    np.testing.assert_allclose(weights, plain, rtol=1e-5, atol=1e-6)
    # Snapshots of the weights after updates 1, 3 and 5 as SWA counts them, from 0.
    np.testing.assert_allclose(average, plain[[2, 4]].mean(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrapper", ["Lookahead", "MovingAverage", "SWA"])
def test_wrappers_refuse_what_is_no_legacy_optimizer(wrapper):
    """tensorflow-addons' own message: KFAC is none, since it must see all gradients at once."""
    with pytest.raises(TypeError, match="optimizer is not an object of .*legacy.Optimizer"):
        getattr(tfa.optimizers, wrapper)(KFAC())


@pytest.mark.parametrize("name", ["COCOB", "MultiOptimizer"])
def test_optimizers_without_a_learning_rate_are_refused(name):
    layers = dense_model().layers
    optimizer = (
        tfa.optimizers.COCOB()
        if name == "COCOB"
        else tfa.optimizers.MultiOptimizer([(legacy.SGD(0.1), layers)])
    )
    with pytest.raises(ValueError, match=f"{name} cannot be .* no learning rate of its own"):
        KFAC(optimizer=optimizer)


# --- schedules, saving, callbacks ---


@pytest.mark.parametrize(
    "make",
    [keras.optimizers.SGD, legacy.SGD, lambda rate: tfa.optimizers.Lookahead(legacy.SGD(rate))],
)
def test_cyclical_learning_rates(make):
    cycle = tfa.optimizers.TriangularCyclicalLearningRate(0.125, 0.375, step_size=2)
    rates = [0.125, 0.25, 0.375, 0.25, 0.125]
    optimizer = KFAC(optimizer=make(cycle), **MEMORYLESS)
    by_hand = KFAC(learning_rate=1.0, momentum=0.0, **MEMORYLESS)
    model, other = dense_model(), dense_model()
    other.set_weights(model.get_weights())
    step, other_step = train_step(model, optimizer), train_step(other, by_hand)
    for rate in rates:
        assert float(optimizer.learning_rate) == rate
        by_hand.learning_rate = rate
        step(*data())
        other_step(*data())
    np.testing.assert_allclose(flat_weights(model), flat_weights(other), rtol=2e-5, atol=2e-6)


def test_decay_of_the_older_optimizers_reaches_the_clip():
    rate = keras.optimizers.schedules.InverseTimeDecay(0.5, 1, 0.25)
    inner = tfa.optimizers.Lookahead(legacy.SGD(0.5, decay=0.25), sync_period=100)
    one, other = (KFAC(optimizer=o) for o in (inner, legacy.SGD(rate)))
    weights = [trajectory(optimizer, 3) for optimizer in (one, other)]
    np.testing.assert_allclose(weights[0], weights[1], rtol=1e-5, atol=1e-6)
    assert one.report().kl_clip == pytest.approx(other.report().kl_clip, rel=1e-5)
    assert one.report().kl_clip < 1


def test_saved_models_continue(tmp_path):
    cycle = tfa.optimizers.Triangular2CyclicalLearningRate(0.01, 0.1, step_size=3)
    inner = tfa.optimizers.Lookahead(
        tfa.optimizers.SGDW(weight_decay=0.01, learning_rate=cycle, momentum=0.9), sync_period=3
    )
    model = compiled(KFAC(optimizer=inner, damping=0.1, factor_interval=2, eigen_interval=3))
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, KFAC)
    assert isinstance(loaded.optimizer.inner_optimizer, tfa.optimizers.Lookahead)
    for one in (model, loaded):
        fit(one, epochs=2)
    np.testing.assert_allclose(flat_weights(loaded), flat_weights(model), rtol=1e-6, atol=1e-7)


def test_callbacks(capsys):
    pytest.importorskip("tqdm")
    model = compiled(KFAC(**CALM))
    callbacks = [
        tfa.callbacks.TimeStopping(seconds=0, verbose=1),
        tfa.callbacks.TQDMProgressBar(),
    ]
    history = fit(model, epochs=3, callbacks=callbacks)
    assert history.epoch == [0]
    assert "Timed stopping at epoch 1" in capsys.readouterr().out
