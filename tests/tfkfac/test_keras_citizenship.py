"""KFAC does what Keras promises of every optimizer."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.tfkfac.keras_versions import needs_keras_3
from tests.tfkfac.training import (
    CALM,
    assert_factors_close,
    assert_weights_close,
    compiled,
    data,
    dense_model,
    factors,
    fit,
    flat_weights,
    mean_squared_error,
    train_step,
)
from tfkfac import KFAC
from tfkfac.base_optimizer import variable_path
from tfkfac.keras_version import KERAS_3
from tfkfac.schedules import StepDecay

# Directions that depend on nothing but one step's gradients and statistics.
MEMORYLESS: dict[str, Any] = {
    "momentum": 0.0,
    "factor_decay": 0.0,
    "kl_clip": None,
    "damping": 0.125,
    "factor_interval": 1,
    "eigen_interval": 1,
}


def one_layer_model(**arguments) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, **arguments)])


def gradients_of(model) -> list[np.ndarray]:
    inputs, targets = data()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(mean_squared_error(targets, model(inputs)))
    return [g.numpy() for g in tape.gradient(loss, model.trainable_variables)]


# --- learning rate ---


def test_learning_rate_schedule_reaches_the_inner_optimizer():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 2], [0.25, 0.125, 0.0625])
    model, other = dense_model(), dense_model()
    other.set_weights(model.get_weights())
    scheduled, by_hand = KFAC(learning_rate=schedule), KFAC(learning_rate=1.0)
    step, other_step = train_step(model, scheduled), train_step(other, by_hand)
    for rate in (0.25, 0.25, 0.125, 0.0625):
        assert float(scheduled.learning_rate) == rate
        by_hand.learning_rate = rate
        assert float(by_hand.inner_optimizer.learning_rate) == rate
        step(*data())
        other_step(*data())
    assert_weights_close(model, other)


def test_callbacks_that_change_the_learning_rate():
    model = compiled(KFAC(learning_rate=0.25))
    seen: list[float] = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(float(model.optimizer.inner_optimizer.learning_rate))

    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    fit(model, epochs=2, callbacks=[scheduler, Watch()])
    assert seen == [0.125, 0.0625]
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.25, patience=1, min_delta=1e6)
    history = fit(model, epochs=3, callbacks=[plateau, Watch()])
    assert seen[2:] == [0.0625, 0.0625 / 4, 0.0625 / 16]
    logged = history.history["learning_rate" if KERAS_3 else "lr"]
    np.testing.assert_allclose(logged, [0.0625, *seen[2:4]])


# --- the update around the preconditioned gradient ---


def test_weight_decay_is_decoupled():
    model = one_layer_model(bias_initializer="ones")
    weights = model.get_weights()
    rate, decay = 0.125, 0.5
    moved = {}
    for name, optimizer in {
        "none": KFAC(learning_rate=rate),
        "outer": KFAC(learning_rate=rate, weight_decay=decay),
        "inner": KFAC(optimizer=keras.optimizers.SGD(rate, 0.9, weight_decay=decay)),
    }.items():
        model.set_weights(weights)
        if name == "outer":
            optimizer.exclude_from_weight_decay(var_names=["bias"])
        train_step(model, optimizer)(*data())
        moved[name] = [v.numpy() for v in model.trainable_variables]
    for name, decays_bias in (("outer", 0), ("inner", 1)):
        for i, decays in ((0, 1), (1, decays_bias)):
            difference = moved["none"][i] - moved[name][i]
            np.testing.assert_allclose(difference, decays * rate * decay * weights[i], atol=1e-6)


@pytest.mark.parametrize("option", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_clipping_acts_on_raw_gradients(option, double_precision):
    model = one_layer_model()
    gradients = gradients_of(model)
    limit = 0.125
    norms = [np.linalg.norm(g) for g in gradients]
    clipped = {
        "clipnorm": [g * min(1, limit / norm) for g, norm in zip(gradients, norms, strict=True)],
        "global_clipnorm": [g * min(1, limit / np.linalg.norm(norms)) for g in gradients],
        "clipvalue": [np.clip(g, -limit, limit) for g in gradients],
    }[option]
    matrix = np.concatenate([clipped[0], clipped[1][np.newaxis]])
    assert np.abs(matrix - np.concatenate([gradients[0], gradients[1][np.newaxis]])).max() > 1e-3
    before = model.get_weights()
    arguments: dict[str, Any] = {option: limit}
    optimizer = KFAC(learning_rate=1.0, **MEMORYLESS, **arguments)
    train_step(model, optimizer)(*data())
    # The factors are those of the raw statistics.
    unclipped = KFAC(**MEMORYLESS)
    moved = np.concatenate(
        [
            before[0] - model.trainable_variables[0].numpy(),
            (before[1] - model.trainable_variables[1].numpy())[np.newaxis],
        ]
    )
    model.set_weights(before)
    train_step(model, unclipped)(*data())
    assert_factors_close(optimizer, unclipped, 1e-12)
    rows, columns = (factor[0] for factor in factors(optimizer).values())
    system = np.kron(rows, columns) + 0.125 * np.eye(matrix.size)
    np.testing.assert_allclose(moved.ravel(), np.linalg.solve(system, matrix.ravel()), rtol=1e-9)


def test_any_inner_optimizer_receives_the_preconditioned_gradient():
    model = dense_model()
    weights = model.get_weights()
    train_step(model, KFAC(learning_rate=1.0, **MEMORYLESS))(*data())
    directions = [w - v.numpy() for w, v in zip(weights, model.trainable_variables, strict=True)]
    options = {key: value for key, value in MEMORYLESS.items() if key != "momentum"}
    for make in (
        lambda: keras.optimizers.AdamW(0.125, weight_decay=0.5),
        lambda: keras.optimizers.RMSprop(0.125, clipnorm=0.5),
        lambda: keras.optimizers.SGD(0.125, 0.5, nesterov=True),
    ):
        model.set_weights(weights)
        train_step(model, KFAC(optimizer=make(), **options))(*data())
        expected = [tf.Variable(w) for w in weights]
        make().apply_gradients(zip(map(tf.constant, directions), expected, strict=True))
        for variable, value in zip(model.trainable_variables, expected, strict=True):
            np.testing.assert_allclose(variable.numpy(), value.numpy(), rtol=2e-4, atol=2e-5)
    # By name, as everywhere in Keras.
    assert isinstance(KFAC(optimizer="adam").inner_optimizer, keras.optimizers.Adam)


@pytest.mark.parametrize("averaging", ["outer", "inner"])
def test_exponential_moving_average_of_weights(averaging):
    ema: dict[str, Any] = {"use_ema": True, "ema_momentum": 0.75}
    optimizer = (
        KFAC(**ema)
        if averaging == "outer"
        else KFAC(optimizer=keras.optimizers.SGD(0.1, 0.9, **ema))
    )
    model = one_layer_model()
    step = train_step(model, optimizer)
    average = flat_weights(model)
    for i in range(3):
        step(*data())
        # Keras 3's average starts with the weights after the first step, Keras 2's before it.
        share = 1.0 if i == 0 and KERAS_3 else 0.25
        average += share * (flat_weights(model) - average)
    optimizer.finalize_variable_values(model.trainable_variables)
    np.testing.assert_allclose(flat_weights(model), average, rtol=1e-5, atol=1e-6)


def test_constraints_hold_after_each_update():
    model = one_layer_model(
        kernel_constraint=keras.constraints.UnitNorm(axis=0), bias_constraint="non_neg"
    )
    train_step(model, KFAC())(*data())
    kernel, bias = (variable.numpy() for variable in model.trainable_variables)
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, rtol=1e-5)
    assert bias.min() >= 0 and bias.max() > 0


# --- layers and variables ---


def test_frozen_layers_stay():
    model = dense_model()
    model.get_layer("second").trainable = False
    frozen = model.get_layer("second").get_weights()
    compiled(optimizer := KFAC(), model=model)
    fit(model)
    for before, after in zip(frozen, model.get_layer("second").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    treated = {
        row.variable.removeprefix("sequential/"): row.treatment for row in optimizer.report().rows
    }
    assert treated.keys() == {"first/kernel", "first/bias"}
    assert treated["first/kernel"] == "dense"
    # Thawed for the same optimizer, which was not built for it.
    model.get_layer("second").trainable = True
    compiled(optimizer, model=model)
    with pytest.raises(ValueError, match="Unknown variable.*second/kernel"):
        fit(model)


# --- configuration ---


def test_configuration_round_trip():
    options: dict[str, Any] = {
        "damping": StepDecay(0.5, [3, 5], [0.5, 0.125]),
        "factor_interval": keras.optimizers.schedules.PiecewiseConstantDecay([2], [1, 4]),
        "eigen_interval": 7,
        "factor_decay": 0.75,
        "kl_clip": None,
        "method": "inverse",
        "debias": True,
        "max_factor_size": 100,
        "oversized": "block-diagonal",
        "elementwise": "plain",
        "factor_dtype": "float64",
        "weight_decay": 0.25,
        "global_clipnorm": 3.0,
        "use_ema": True,
        "ema_momentum": 0.5,
        "ema_overwrite_frequency": 3,
        "name": "mine",
    }
    if KERAS_3:
        options |= {"loss_scale_factor": 2.0, "gradient_accumulation_steps": 2}
    schedule = keras.optimizers.schedules.CosineDecay(0.5, 10)
    inner = keras.optimizers.AdamW(schedule, weight_decay=0.125, beta_1=0.5)
    optimizer = KFAC(optimizer=inner, **options)
    # Through text, as a saved model keeps it.
    text = json.dumps(keras.optimizers.serialize(optimizer))
    other = keras.optimizers.deserialize(json.loads(text))
    assert isinstance(other, KFAC)
    assert other.get_config() == optimizer.get_config()
    assert options.keys() <= other.get_config().keys()
    for option, value in options.items():
        if option not in ("damping", "factor_interval"):
            assert other.get_config()[option] == value, option
    assert isinstance(other.inner_optimizer, keras.optimizers.AdamW)
    assert other.inner_optimizer.beta_1 == 0.5
    for step in (0, 4, 6):
        other._iterations.assign((2 if KERAS_3 else 1) * step)  # two micro-batches an update
        assert float(other.damping) == float(options["damping"](step))
        assert int(other.factor_interval) == (1 if step < 3 else 4)
    # Default arguments make the published configuration.
    default = KFAC.from_config(KFAC().get_config())
    assert isinstance(default.inner_optimizer, keras.optimizers.SGD)
    assert default.inner_optimizer.momentum == 0.9
    assert float(default.learning_rate) == pytest.approx(0.1)


def test_an_optimizer_in_the_place_of_the_learning_rate():
    with pytest.raises(TypeError, match=r"by name: KFAC\(optimizer=Adam\(\.\.\.\)\)"):
        KFAC(keras.optimizers.Adam())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": 0.5}, "learning_rate and momentum belong to the default inner"),
        ({"momentum": 0.5}, "learning_rate and momentum belong to the default inner"),
        ({"learning_rate": StepDecay(0.1, [], [])}, "set them on the Adam that you pass"),
    ],
)
def test_learning_rate_of_two_optimizers_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        KFAC(optimizer="adam", **arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (KFAC, "optimizer=KFAC cannot be the inner optimizer"),
        (
            lambda: keras.mixed_precision.LossScaleOptimizer(KFAC()),
            "LossScaleOptimizer(V3)? cannot be",
        ),
        pytest.param(
            lambda: keras.optimizers.SGD(gradient_accumulation_steps=2),
            "give gradient_accumulation_steps to KFAC",
            marks=needs_keras_3("its optimizers do not accumulate gradients"),
        ),
    ],
)
def test_inner_optimizers_that_cannot_work_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        KFAC(optimizer=make())


# --- training loops of one's own ---


def test_plain_variables_in_a_custom_loop():
    """No Keras layer, an optimizer not built beforehand, a last, smaller batch, AutoGraph."""
    model = dense_model()
    reference = KFAC(factor_interval=2, **CALM)
    reference_step = train_step(model, reference)
    first, first_bias, second, second_bias = variables = [
        tf.Variable(variable.numpy(), name=variable_path(variable))
        for variable in model.trainable_variables
    ]
    optimizer = KFAC(factor_interval=2, **CALM)

    @tf.function
    def step(inputs, targets):
        with tf.GradientTape() as tape:
            hidden = tf.tanh(inputs @ first + first_bias)
            loss = tf.reduce_mean(tf.square(hidden @ second + second_bias - targets))
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    inputs, targets = data()
    for batch in (slice(0, 10), slice(10, 20), slice(20, 24), slice(0, 10)):
        reference_step(inputs[batch], targets[batch])
        step(inputs[batch], targets[batch])
    for variable, expected in zip(variables, model.trainable_variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    kernel, bias, *_ = optimizer.report().rows
    assert (kernel.variable, kernel.treatment) == (variable_path(first), "dense")
    assert bias.treatment == f"bias of {variable_path(first)}"
    assert kernel.factor_updates == 2


def test_another_use_of_a_weight_in_a_later_trace_is_refused():
    kernel = tf.Variable(tf.ones([4, 3]), name="kernel")
    bias = tf.Variable(tf.zeros([3]), name="bias")
    optimizer = KFAC()
    optimizer.build([kernel, bias])

    @tf.function
    def step(inputs, targets, with_bias):
        with tf.GradientTape() as tape:
            outputs = inputs @ kernel
            if with_bias:
                outputs += bias
            loss = tf.reduce_mean(tf.square(outputs - targets))
        variables = [kernel, bias] if with_bias else [kernel]
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    step(*data(), True)
    with pytest.raises(ValueError, match="layer 'kernel' is not what .*: bias 1 became None"):
        step(*data(), False)
