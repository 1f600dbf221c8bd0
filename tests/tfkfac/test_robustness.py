"""What goes wrong in a run is survived where it can be, counted, and said."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.tfkfac.keras_versions import needs_keras_3
from tests.tfkfac.training import (
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
from tfkfac.schedules import StepDecay

EVERY_STEP: dict[str, Any] = {"factor_interval": 1, "eigen_interval": 1}


def rows(optimizer) -> dict[str, Any]:
    """Rows of the report by the last two parts of the variable's path."""
    return {"/".join(row.variable.split("/")[-2:]): row for row in optimizer.report().rows}


# --- statistics and factors that cannot be used ---


class Poison(layers.Layer):
    """Multiplies inputs by 1, but by `factor` where the first input exceeds 100."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, inputs):
        factor = tf.where(tf.reduce_max(inputs[:, 0]) > 100, self.factor, 1.0)
        return tf.stop_gradient(inputs * tf.cast(factor, inputs.dtype))


# 1e25 leaves the loss and all gradients finite; only the row factor overflows.
@pytest.mark.parametrize(("factor", "debias"), [(np.inf, False), (np.inf, True), (1e25, True)])
def test_statistics_that_are_not_finite_are_skipped(factor, debias):
    inputs = keras.Input((4,))
    healthy = layers.Dense(3, name="healthy")(inputs)
    sick = layers.Dense(3, name="sick")(Poison(factor)(inputs))
    model = keras.Model(inputs, [healthy, sick])
    optimizer = KFAC(debias=debias, **EVERY_STEP)

    def loss(targets, outputs):
        return mean_squared_error(targets, outputs[0]) + tf.reduce_mean(tf.sin(outputs[1]), axis=-1)

    step = train_step(model, optimizer, loss)
    x, y = data()
    step(x, y)
    before, weights = factors(optimizer), model.get_weights()
    poisoned = x.copy()
    poisoned[0, 0] = 1000
    step(poisoned, y)
    after, report = factors(optimizer), rows(optimizer)
    for path, value in after.items():
        changed = np.abs(value - before[path]).max() > 1e-4
        assert changed == ("healthy" in path), path
        assert np.isfinite(value).all()
    assert (report["sick/kernel"].factor_updates, report["sick/kernel"].non_finite) == (1, 1)
    assert (report["healthy/kernel"].factor_updates, report["healthy/kernel"].non_finite) == (2, 0)
    assert "1 not finite" in str(optimizer.report())
    assert optimizer.report().non_finite_steps == 1
    # An update that is not finite is not hidden.
    assert np.isnan(model.get_layer("sick").kernel.numpy()).any()
    # A mended model goes on; the skipped step left no trace in the average.
    model.set_weights(weights)
    for variable in optimizer.inner_optimizer.variables:
        variable.assign(np.nan_to_num(variable.numpy()))
    step(x, y)
    assert np.isfinite(flat_weights(model)).all()
    assert rows(optimizer)["sick/kernel"].factor_updates == 2


@needs_keras_3("its optimizers do not accumulate gradients")
def test_skipped_micro_batches_leave_the_average_alone():
    """With accumulation too, what is skipped counts as if it equalled the average so far."""
    model = dense_model()
    optimizer = KFAC(gradient_accumulation_steps=2, learning_rate=0.0, **EVERY_STEP)
    step = train_step(model, optimizer)
    x, y = data()
    step(x, y)
    step(x, y)
    before = factors(optimizer)
    x = np.full_like(x, np.nan)
    step(x, y)
    step(x, y)
    for path, value in factors(optimizer).items():
        np.testing.assert_allclose(value, before[path], rtol=1e-6, atol=1e-6, err_msg=path)
    assert rows(optimizer)["first/kernel"].non_finite == 2


@pytest.mark.parametrize("method", ["eigen", "inverse"])
def test_failed_decompositions_keep_the_last_basis(method):
    model = dense_model()
    optimizer = KFAC(method=method, factor_interval=1, eigen_interval=2)
    step = train_step(model, optimizer)
    step(*data())
    step(*data())
    state = optimizer.layers[0]
    used = {name: v.numpy() for name, v in state.variables.items() if "factor" not in name}
    other = {n: v.numpy() for n, v in optimizer.layers[1].variables.items() if "factor" not in n}
    factor = state.variables["rows_factor"]
    factor.assign(tf.tensor_scatter_nd_update(factor, [[0, 1, 1]], [np.nan]))
    step(*data())
    for name, value in used.items():
        np.testing.assert_array_equal(state.variables[name].numpy(), value, err_msg=name)
    assert any(
        not np.array_equal(optimizer.layers[1].variables[name].numpy(), value)
        for name, value in other.items()
    )
    report = rows(optimizer)
    assert report["first/kernel"].failed_decompositions == 1
    assert report["second/kernel"].failed_decompositions == 0
    assert "1 decompositions" in str(optimizer.report())
    assert np.isfinite(flat_weights(model)).all()


@pytest.mark.parametrize("method", ["eigen", "inverse"])
def test_singular_factors_and_extreme_scales(method):
    """Constant inputs make every factor singular; tiny damping, tiny and large gradients."""
    for scale in (1e-8, 1e6):
        model = dense_model()
        optimizer = KFAC(method=method, damping=1e-12, factor_decay=0.0, **EVERY_STEP)
        step = train_step(model, optimizer, lambda y, z, s=scale: s * mean_squared_error(y, z))
        x, y = data()
        for _ in range(3):
            step(np.ones_like(x), y)
        assert np.isfinite(flat_weights(model)).all(), scale


# --- layers and examples that are missing ---


def test_unused_layers_keep_their_factors():
    model = dense_model()
    optimizer = KFAC(momentum=0.0, **EVERY_STEP)
    optimizer.build(model.trainable_variables)
    first, second = model.layers

    @tf.function
    def step(inputs, targets, share, skip_first):
        with tf.GradientTape() as tape:
            outputs = second(first(inputs)) * share + targets * (1 - share)
            if skip_first:
                outputs = second(tf.ones([24, 5]))
            loss = tf.reduce_mean(tf.square(outputs - targets))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    step(*data(), 1.0, False)
    before, weights = factors(optimizer), flat_weights(model)
    # Used with weight 0: the gradient is zero, and so would the new G be.
    step(*data(), tf.constant(0.0), False)
    for path, value in factors(optimizer).items():
        np.testing.assert_allclose(value, before[path], rtol=1e-6)
    np.testing.assert_array_equal(flat_weights(model), weights)
    assert rows(optimizer)["first/kernel"].unused == 1
    # Not used at all: another trace, in which its gradient is None.
    first_kernel = first.kernel.numpy()
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        step(*data(), 1.0, True)
    np.testing.assert_array_equal(first.kernel.numpy(), first_kernel)
    report = rows(optimizer)
    assert report["first/kernel"].treatment == "dense"
    assert report["first/kernel"].factor_updates == 1
    assert report["second/kernel"].factor_updates == 2
    step(*data(), 1.0, False)
    assert rows(optimizer)["first/kernel"].factor_updates == 2


def test_batches_of_one_and_none():
    model = dense_model()
    optimizer = KFAC(momentum=0.0, **EVERY_STEP)
    # A sum over examples, which an empty batch leaves 0.
    step = train_step(model, optimizer, lambda y, z: tf.reduce_sum(mean_squared_error(y, z)))
    x, y = data()
    step(x[:1], y[:1])
    assert rows(optimizer)["first/kernel"].factor_updates == 1
    before, weights = factors(optimizer), flat_weights(model)
    step(x[:0], y[:0])
    np.testing.assert_array_equal(flat_weights(model), weights)
    for path, value in factors(optimizer).items():
        np.testing.assert_allclose(value, before[path], rtol=1e-6)
    assert rows(optimizer)["first/kernel"].non_finite == 1
    step(x[:5], y[:5])
    assert rows(optimizer)["first/kernel"].factor_updates == 2
    assert np.isfinite(flat_weights(model)).all()


# --- what cannot work is said ---


def test_a_model_with_nothing_to_precondition_warns_and_trains():
    inputs = keras.Input((3, 4))
    outputs = layers.Dense(3, trainable=False)(layers.LSTM(3)(inputs))
    model = keras.Model(inputs, outputs)
    optimizer = KFAC(learning_rate=0.125)
    step = train_step(model, optimizer)
    before = flat_weights(model)
    x = np.ones((2, 3, 4), np.float32)
    with pytest.warns(UserWarning, match=r"nothing to precondition .* SGD \(inside a rolled loop"):
        step(x, np.ones((2, 3), np.float32))
    assert np.abs(flat_weights(model) - before).max() > 1e-4
    report = optimizer.report()
    assert {row.treatment for row in report.rows} == {"plain"}
    assert all("rolled loop" in row.reason for row in report.rows)


def test_eager_execution_is_refused_with_advice():
    model = compiled(KFAC(), run_eagerly=True)
    with pytest.raises(RuntimeError, match="without run_eagerly=True, or .*@tf.function"):
        fit(model)
    optimizer = KFAC()
    with pytest.raises(RuntimeError, match="there is none in eager execution"):
        optimizer.apply_gradients([(tf.ones([2]), tf.Variable(tf.ones([2])))])


def test_report_before_the_first_step_is_refused():
    with pytest.raises(RuntimeError, match="needs one training step first"):
        KFAC().report()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        pytest.param("learning_rate", 1, marks=needs_keras_3("it takes whole numbers")),
        ("damping", 0.0),
        ("damping", -1.0),
        ("damping", float("nan")),
        ("factor_interval", 0),
        ("factor_interval", 1.5),
        ("eigen_interval", -3),
        ("factor_decay", 1.0),
        ("factor_decay", -0.1),
        ("kl_clip", 0.0),
        ("method", "cholesky"),
        ("max_factor_size", 0),
        ("oversized", "dense"),
        ("elementwise", "full"),
        ("factor_dtype", "float16"),
        ("momentum", 1.5),
        ("gradient_accumulation_steps", 1),
        ("ema_momentum", 2.0),
    ],
)
def test_invalid_arguments_are_named(option, value):
    arguments: dict[str, Any] = {option: value}
    if option.startswith("ema"):
        arguments["use_ema"] = True
    with pytest.raises(ValueError, match=option):
        KFAC(**arguments)
    # The smallest valid neighbour is accepted.
    valid = {"factor_interval": 1, "eigen_interval": 1.0, "factor_decay": 0.0, "momentum": 1.0}
    if option in valid:
        arguments[option] = valid[option]
        KFAC(**arguments)


@pytest.mark.parametrize("option", ["damping", "factor_interval", "eigen_interval"])
def test_values_set_later(option):
    optimizer = KFAC()
    setattr(optimizer, option, 5)
    assert float(getattr(optimizer, option)) == 5
    if option == "damping":
        with pytest.raises(ValueError, match="damping must be positive"):
            optimizer.damping = 0.0
    else:  # an interval that a callback scales down never becomes 0
        setattr(optimizer, option, 0.4)
        assert int(getattr(optimizer, option)) == 1
    schedule: dict[str, Any] = {option: StepDecay(8, [2], 0.5)}
    scheduled = KFAC(**schedule)
    with pytest.raises(TypeError, match=f"{option} follows the schedule"):
        setattr(scheduled, option, 3)


def test_a_diverging_run_shows():
    model = compiled(KFAC(learning_rate=1e30, kl_clip=None))
    losses = fit(model, epochs=2).history["loss"]
    assert np.isnan(losses[-1])
    report = model.optimizer.report()
    assert report.non_finite_steps >= 1
    assert f"WARNING: {report.non_finite_steps} updates were not finite" in str(report)


# --- schedules ---


def test_schedules_start_from_their_base_values():
    decay = StepDecay(0.5, [2, 4], 0.5)
    assert [float(decay(step)) for step in range(6)] == [0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    listed = StepDecay(8.0, [1, 2], [0.5, 2.0])
    assert [float(listed(step)) for step in range(3)] == [8.0, 4.0, 16.0]
    with pytest.raises(ValueError, match="2 boundaries need as many factors, got 1"):
        StepDecay(1.0, [1, 2], [0.5])
    with pytest.raises(ValueError, match="boundaries must ascend"):
        StepDecay(1.0, [2, 1], 0.5)


def test_scheduled_damping_and_intervals():
    damping = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.5, 0.125])
    # 4 for steps 0-4, then 0.4, which is no interval, then 2.
    interval = StepDecay(4, [5, 8], [0.1, 0.5])
    optimizer = KFAC(damping=damping, factor_interval=interval, eigen_interval=interval)
    model = dense_model()
    step = train_step(model, optimizer)
    updates = []
    for i in range(11):
        assert float(optimizer.damping) == (0.5 if i <= 2 else 0.125)
        assert (
            int(optimizer.factor_interval)
            == int(optimizer.eigen_interval)
            == (4 if i < 5 else 1 if i < 8 else 2)
        )
        step(*data())
        updates.append(rows(optimizer)["first/kernel"].factor_updates)
    assert updates == [1, 1, 1, 1, 2, 3, 4, 5, 6, 6, 7]
    values = optimizer.report().values
    assert values["damping"] == 0.125 and values["factor interval"] == 2


def test_damping_schedule_acts_between_decompositions():
    """The eigen method damps when it preconditions: a new value needs no new decomposition."""
    weights, moved = dense_model().get_weights(), []
    schedules: list[Any] = [
        keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.5, 0.125]),
        0.5,
    ]
    for damping in schedules:
        model = dense_model()
        model.set_weights(weights)
        optimizer = KFAC(damping=damping, kl_clip=None, eigen_interval=100)
        step = train_step(model, optimizer)
        step(*data())
        if damping == 0.5:
            optimizer.damping = 0.125
        step(*data())
        moved.append(flat_weights(model))
    np.testing.assert_allclose(moved[0], moved[1], rtol=1e-6)


# --- report ---


def test_report_tells_all():
    model = keras.Sequential(
        [
            keras.Input((4, 1, 4)),
            layers.Conv2D(4, (2, 1), groups=2, name="convolution"),
            layers.Reshape((3, 4)),
            layers.LayerNormalization(name="norm"),
            layers.LSTM(3, name="lstm"),
            layers.Dense(3, name="dense"),
        ]
    )
    optimizer = KFAC(damping=0.25, max_factor_size=5, oversized="block-diagonal", **EVERY_STEP)
    train_step(model, optimizer)(np.ones((2, 4, 1, 4), np.float32), np.ones((2, 3), np.float32))
    report = optimizer.report()
    assert [row.variable for row in report.rows] == [
        variable_path(v) for v in model.trainable_variables
    ]
    assert [row.shape for row in report.rows] == [v.shape for v in model.trainable_variables]
    found = rows(optimizer)
    convolution = found["convolution/kernel"]
    assert (convolution.treatment, convolution.factors) == ("convolution", "2 x (5 ⊗ 2)")
    assert found["convolution/bias"].treatment == f"bias of {convolution.variable}"
    assert found["norm/gamma"].treatment == "elementwise"
    assert found["dense/kernel"].factors == "4 ⊗ 3"
    plain = [row for row in report.rows if row.treatment == "plain"]
    assert len(plain) == 3
    assert all(row.reason == "inside a rolled loop (use unroll=True)" for row in plain)
    # Factors, eigenvectors and eigenvalues of both sides, in float32.
    sizes = {"convolution/kernel": 2 * (2 * (25 + 4) + 5 + 2), "norm/gamma": 2 * 4}
    for path, numbers in sizes.items():
        assert found[path].memory == 4 * numbers
    assert report.memory == sum(row.memory for row in report.rows)
    held = [v for state in optimizer.layers for v in state.variables.values()]
    assert report.memory == 4 * sum(int(np.prod(v.shape)) for v in held)
    for state in optimizer.layers:
        path = "/".join(state.plan.name.split("/")[-2:])
        low, high = 1.0, 1.0
        for name, _ in state.sides():
            factor = state.variables[f"{name}_factor"].numpy()
            values = factor if factor.ndim == 2 else np.linalg.eigvalsh(factor)
            low, high = low * values.min(), high * values.max()
        np.testing.assert_allclose(found[path].spectrum, (low, high), rtol=1e-4)
        assert found[path].factor_updates == 1
    text = str(report)
    for layer in ("convolution", "norm", "lstm", "dense"):  # longer paths are folded
        assert f"{layer}/" in text
    assert "rolled loop" in text
    assert "6 of 9 variables preconditioned" in text
    assert "damping 0.25" in text and "updates 1" in text
    assert report.values["learning rate"] == pytest.approx(0.1)
    assert 0 < report.kl_clip <= 1
    assert "WARNING" not in text
