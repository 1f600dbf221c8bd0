"""Every match is proved: the captured tensors contract back to the gradient."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tfkfac.keras_versions import reset_dtype_policy
from tests.tfkfac.layer_cases import CASES, NAMES, Case
from tfkfac.base_optimizer import variable_path
from tfkfac.planning import Layout, Weight, discover

LAYOUT = Layout(max_factor_size=None, oversized="diagonal", elementwise="diagonal")


def make_input(case: Case, batch: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if case.integer_input:
        return generator.integers(0, 10, (batch, *case.input_shape))
    return generator.normal(size=(batch, *case.input_shape))


def loss_of(outputs: tf.Tensor, targets_seed: int = 7) -> tf.Tensor:
    """Mean over examples of a smooth function that treats every output differently."""
    shape = [1, *outputs.shape[1:]]
    weights = np.random.default_rng(targets_seed).normal(size=shape)
    batch = tf.cast(tf.shape(outputs)[0], outputs.dtype)
    return tf.reduce_sum(tf.sin(outputs * tf.constant(weights, outputs.dtype))) / batch


def trace(model: keras.Model, inputs: np.ndarray, inspect, jit: bool = False):
    """Runs `inspect(gradients, discovery)` inside a traced step and returns its value."""

    @tf.function(jit_compile=jit, autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            loss = loss_of(model(x, training=True)) + sum(model.losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        weights = [
            Weight(variable_path(v), tuple(v.shape), i)
            for i, v in enumerate(model.trainable_variables)
        ]
        return inspect(gradients, discover(gradients, weights, LAYOUT))

    return step(tf.constant(inputs))


@pytest.fixture(autouse=True)
def double_precision():
    keras.utils.set_random_seed(0)
    keras.backend.set_floatx("float64")
    yield
    keras.backend.set_floatx("float32")
    reset_dtype_policy()


def treatments(model, discovery) -> dict[str, str]:
    kinds = {}
    for plan, _ in discovery.layers:
        kinds[plan.weight] = plan.kind
        if plan.bias is not None:
            kinds[plan.bias] = "bias"
    for index, reason in discovery.plain.items():
        kinds[index] = f"plain: {reason}"
    return {variable_path(v): kinds[i] for i, v in enumerate(model.trainable_variables)}


@pytest.mark.parametrize("name", NAMES)
def test_match_contracts_back_to_gradient(name):
    case = CASES[name]
    model = case.build()
    found = {}

    def inspect(gradients, discovery):
        found.update(treatments(model, discovery))
        pairs = []
        for plan, uses in discovery.layers:
            contracted = tf.add_n([use.contract(tf.float64) for use in uses])
            for step in plan.steps:
                if step[0] == "reshape":
                    contracted = tf.reshape(contracted, step[2])
                else:
                    contracted = tf.transpose(contracted, step[1])
            variable = model.trainable_variables[plan.weight]
            gradient = tf.convert_to_tensor(gradients[plan.weight])
            # What a regulariser adds does not come from the data.
            for layer in model.layers:
                if getattr(layer, "kernel_regularizer", None) and layer.kernel is variable:
                    gradient -= 2 * layer.kernel_regularizer.l2 * variable
            pairs.append((contracted, gradient))
        return pairs

    pairs = trace(model, make_input(case, batch=3), inspect)
    for contracted, gradient in pairs:
        np.testing.assert_allclose(contracted, gradient, rtol=1e-10, atol=1e-12)
        assert np.abs(gradient).max() > 1e-6
    assert len(found) == len(model.trainable_variables)
    for path, kind in found.items():
        expected = [k for suffix, k in case.kinds.items() if path.endswith(suffix)]
        assert len(expected) >= 1, path
        longest = max((s for s in case.kinds if path.endswith(s)), key=len)
        assert kind == case.kinds[longest], (path, found)
