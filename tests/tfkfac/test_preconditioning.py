"""Whole training steps against numpy: explicit Kronecker products and linear solves."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.tfkfac.keras_versions import underlying
from tests.tfkfac.reference import Reference
from tests.tfkfac.training import flat_weights, train_step
from tfkfac import KFAC
from tfkfac.base_optimizer import variable_path

pytestmark = pytest.mark.usefixtures("double_precision")


class Opaque(layers.Layer):
    """A dense layer inside `tf.cond`: its variable gets the plain update."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2), name="kernel")

    def call(self, inputs):
        kernel = tf.convert_to_tensor(self.kernel)
        always = tf.reduce_sum(tf.square(inputs)) >= 0
        return tf.cond(always, lambda: inputs @ kernel, lambda: -inputs @ kernel)


def image_model() -> keras.Model:
    """Grouped, depthwise and strided convolutions, elementwise and plain variables."""
    return keras.Sequential(
        [
            keras.Input((5, 5, 4)),
            layers.Conv2D(4, 2, groups=2, activation="tanh"),
            layers.DepthwiseConv2D(2, depth_multiplier=2),
            layers.Conv2D(3, 2, strides=2, use_bias=False, activation="tanh", padding="same"),
            layers.LayerNormalization(),
            layers.Flatten(),
            # 1/8 is exact in float32, to which some versions of Keras round it.
            layers.Dense(3, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.125)),
            Opaque(),
        ]
    )


def image_loss(targets, outputs):
    """Per example, [N]."""
    return tf.reduce_sum(tf.square(outputs - targets), axis=1)


def image_batch(step: int, size: int = 3):
    generator = np.random.default_rng(step)
    return generator.normal(size=(size, 5, 5, 4)), generator.normal(size=(size, 2))


def token_model() -> keras.Model:
    """Embedding and dense layers on sequences."""
    return keras.Sequential(
        [
            keras.Input((4,), dtype="int64"),
            layers.Embedding(6, 3),
            layers.Dense(5, activation="tanh"),
            layers.EinsumDense("ntd,dhe->nthe", (4, 2, 2), bias_axes="he"),
            layers.Flatten(),
            layers.Dense(2, use_bias=False),
        ]
    )


def token_batch(step: int, size: int = 2):
    generator = np.random.default_rng(step)
    return generator.integers(0, 6, (size, 4)), generator.normal(size=(size, 2))


def clone(model: keras.Model, build) -> keras.Model:
    copy = build()
    copy.set_weights(model.get_weights())
    return copy


def assert_weights_equal(model, other, tolerance=1e-10, what=""):
    pairs = zip(model.trainable_variables, other.trainable_variables, strict=True)
    for one, two in pairs:
        np.testing.assert_allclose(
            one.numpy(),
            two.numpy(),
            rtol=tolerance,
            atol=tolerance,
            err_msg=f"{variable_path(one)} {what}",
        )


HYPERPARAMETERS = {
    # Exact in float32, to which Keras and TensorFlow round these three.
    "learning_rate": 1 / 16,
    "momentum": 0.75,
    "damping": 1 / 64,
    "factor_interval": 2,
    "eigen_interval": 4,
    "factor_decay": 0.6,
    "kl_clip": 0.002,
}
BLOCKS = {"max_factor_size": 4, "oversized": "block-diagonal"}
# Options of both implementations, and options that only change the plan.
CASES: dict[str, tuple[str, dict, dict]] = {
    "image, eigen": ("image", {}, {}),
    "image, eigen, blocks": ("image", {}, BLOCKS),
    "image, inverse, debiased": (
        "image",
        {"method": "inverse", "debias": True},
        {"elementwise": "plain"},
    ),
    "image, eigen, reduced": ("image", {"weight_sharing": "reduce"}, {}),
    "token, inverse, reduced": ("token", {"method": "inverse", "weight_sharing": "reduce"}, {}),
    "token, eigen": ("token", {}, {}),
    "token, eigen without clip": ("token", {"kl_clip": None}, {}),
    "token, eigen, diagonal": ("token", {"debias": True}, {"max_factor_size": 5}),
    "token, eigen, blocks": ("token", {}, BLOCKS),
    "token, inverse": ("token", {"method": "inverse"}, {}),
    "token, inverse, blocks": ("token", {"method": "inverse", "debias": True}, BLOCKS),
    "token, inverse, diagonal": ("token", {"method": "inverse"}, {"max_factor_size": 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_steps_equal_explicit_solutions(case):
    kind, shared, structural = CASES[case]
    build, batch = (image_model, image_batch) if kind == "image" else (token_model, token_batch)
    hyperparameters = HYPERPARAMETERS | shared
    model = build()
    other = clone(model, build)
    optimizer = KFAC(**hyperparameters, **structural)
    step = train_step(model, optimizer, image_loss)
    reference: Reference | None = None
    for i in range(5):
        inputs, targets = batch(i)
        step(inputs, targets)
        if reference is None:
            plans = [state.plan for state in optimizer.layers]
            reference = Reference(other, image_loss, plans, **hyperparameters)
        reference.step(inputs, targets)
        assert_weights_equal(model, other, what=f"after step {i}")
    assert reference is not None
    plain = {row.variable for row in optimizer.report().rows if row.treatment == "plain"}
    expected = {"image": {"opaque/kernel"}, "token": set()}[kind]
    if kind == "image" and "elementwise" in structural:
        expected |= {"layer_normalization/gamma", "layer_normalization/beta"}
    assert {name.removeprefix("sequential/") for name in plain} == expected
    if hyperparameters["kl_clip"] is not None:
        assert min(reference.clips) < 1
        assert optimizer.report().kl_clip == pytest.approx(reference.clips[-1], rel=1e-6)


@pytest.mark.parametrize("method", ["eigen", "inverse"])
def test_fit_equals_explicit_solutions(method):
    hyperparameters = HYPERPARAMETERS | {"method": method, "factor_interval": 1}
    model = token_model()
    other = clone(model, token_model)
    optimizer = KFAC(**hyperparameters)
    model.compile(optimizer, loss=image_loss)
    inputs, targets = token_batch(0, size=7)  # the last batch of an epoch has one example
    model.fit(inputs, targets, batch_size=3, epochs=2, shuffle=False, verbose=0)
    plans = [state.plan for state in optimizer.layers]
    reference = Reference(other, image_loss, plans, **hyperparameters)
    for _ in range(2):
        for start in (0, 3, 6):
            reference.step(inputs[start : start + 3], targets[start : start + 3])
    assert_weights_equal(model, other)


def test_a_kronecker_factored_fisher_is_solved_exactly():
    """Deep linear network, full factorial design of inputs and residuals.

    Each residual occurs with each input, so that the empirical Fisher block of each layer is the
    Kronecker product exactly; the residuals' second moment is the identity, so that it is the
    Gauss-Newton block of the squared loss, too.
    """
    model = keras.Sequential([keras.Input((3,))] + [layers.Dense(n) for n in (4, 3, 2)])
    generator = np.random.default_rng(1)
    inputs = np.repeat(generator.normal(size=(5, 3)), 2, axis=0)
    residuals = np.tile(np.sqrt(2) * np.eye(2), (5, 1))
    targets = model(inputs).numpy() - residuals

    with tf.GradientTape(persistent=True) as tape:
        outputs = model(inputs)
        losses = tf.reduce_sum(tf.square(outputs - targets), axis=1, keepdims=True) / 2
    before = [variable.numpy() for variable in model.trainable_variables]
    damping = 1 / 16
    optimizer = KFAC(
        learning_rate=1.0, momentum=0.0, damping=damping, factor_decay=0.0, kl_clip=None
    )
    train_step(model, optimizer, lambda y, z: tf.reduce_sum(tf.square(y - z), axis=1) / 2)(
        inputs, targets
    )
    for state in optimizer.layers:
        assert state.plan.bias is not None
        indices = (state.plan.weight, state.plan.bias)
        parts = [underlying(model.trainable_variables[i]) for i in indices]
        blocks, means = [], []
        for values in (losses, outputs):
            count, width = values.shape
            jacobian = np.concatenate(
                [
                    tape.jacobian(values, part, experimental_use_pfor=False)
                    .numpy()
                    .reshape(count, width, -1)
                    for part in parts
                ],
                axis=2,
            )
            blocks.append(np.einsum("nki,nkj->ij", jacobian, jacobian) / count)
            means.append(jacobian.sum(axis=1).mean(axis=0))
        fisher, gauss_newton = blocks
        kronecker = np.kron(
            state.variables["rows_factor"].numpy()[0], state.variables["columns_factor"].numpy()[0]
        )
        np.testing.assert_allclose(kronecker, fisher, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(kronecker, gauss_newton, rtol=1e-10, atol=1e-12)
        newton = np.linalg.solve(gauss_newton + damping * np.eye(len(gauss_newton)), means[0])
        moved = [before[i] - model.trainable_variables[i].numpy() for i in indices]
        np.testing.assert_allclose(
            np.concatenate([part.ravel() for part in moved]), newton, rtol=1e-10, atol=1e-12
        )


def test_precision_of_factors():
    """`factor_dtype` decides the precision of state and solution, not the variables' one."""
    model = token_model()
    weights, before, moved = model.get_weights(), flat_weights(model), {}
    for dtype in ("float32", "float64"):
        model.set_weights(weights)
        optimizer = KFAC(factor_dtype=dtype, kl_clip=None, damping=1 / 64)
        train_step(model, optimizer, image_loss)(*token_batch(0))
        states = [v for s in optimizer.layers for v in s.variables.values()]
        assert {v.dtype for v in states} == {tf.as_dtype(dtype)}
        moved[dtype] = flat_weights(model) - before
    error = np.abs(moved["float32"] - moved["float64"]).max() / np.abs(moved["float64"]).max()
    assert 1e-12 < error < 1e-4
