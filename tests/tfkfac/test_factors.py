"""Factors of every layer kind against explicit sums over examples and positions."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tfkfac.ground_truth import expected_factors, observe
from tests.tfkfac.keras_versions import underlying
from tests.tfkfac.layer_cases import CASES, NAMES
from tests.tfkfac.test_statistics import loss_of, make_input
from tfkfac.base_optimizer import variable_path
from tfkfac.factors import combine, second_moments
from tfkfac.planning import Layout, Weight, discover

pytestmark = pytest.mark.usefixtures("double_precision")

LAYOUTS = (
    Layout(max_factor_size=None, oversized="diagonal", elementwise="diagonal"),
    Layout(max_factor_size=2, oversized="diagonal", elementwise="diagonal"),
    Layout(max_factor_size=3, oversized="block-diagonal", elementwise="diagonal"),
)
# The others have nothing that the graph shows: test_statistics says why.
TREATED = [
    parameter
    for parameter, case in zip(NAMES, CASES.values(), strict=True)
    if not all(kind.startswith("plain") for kind in case.kinds.values())
]


def factor_step(case, weight_sharing):
    """A model, and a traced function from a batch to factors by layout and layer, with plans."""
    model = case.build()
    plans: list = []

    dtype = "int64" if case.integer_input else "float64"
    signature = [tf.TensorSpec([None, *case.input_shape], dtype)]

    @tf.function(input_signature=signature, autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            loss = loss_of(model(x, training=True)) + sum(model.losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        weights = [
            Weight(variable_path(v), tuple(v.shape), i)
            for i, v in enumerate(model.trainable_variables)
        ]
        factors = []
        for layout in LAYOUTS:
            layers = discover(gradients, weights, layout).layers
            plans.append([plan for plan, _ in layers])
            factors.append(
                [
                    combine(
                        second_moments(plan, uses, tf.float64, weight_sharing),
                        plan.rows,
                        plan.columns,
                    )
                    for plan, uses in layers
                ]
            )
        return factors

    step.get_concrete_function()
    return model, step, plans


def assert_factors_equal(actual, expected, what):
    for side, one, other in zip(("rows", "columns"), actual, expected, strict=True):
        assert (one is None) == (other is None), (what, side)
        if one is not None:
            assert tuple(one.shape) == other.shape, (what, side)
            scale = np.abs(other).max()
            np.testing.assert_allclose(
                one,
                other,
                rtol=1e-10,
                atol=1e-10 * scale + 1e-25,  # gradients of attention keys sum to zero
                err_msg=f"{what}, {side}",
            )


@pytest.mark.parametrize("weight_sharing", ["expand", "reduce"])
@pytest.mark.parametrize("name", TREATED)
def test_factors_equal_sums_over_examples(name, weight_sharing):
    case = CASES[name]
    model, step, plans = factor_step(case, weight_sharing)
    batch = make_input(case, batch=4)
    observation = observe(model, batch, loss_of)
    if name == "batch normalization":
        freeze_batch_statistics(observation, model, batch)

    factors = step(batch)
    seen = set()
    for layout, layout_plans, layout_factors in zip(LAYOUTS, plans, factors, strict=True):
        assert layout_plans
        for plan, actual in zip(layout_plans, layout_factors, strict=True):
            assert_factors_equal(
                actual,
                expected_factors(observation, plan, weight_sharing == "reduce"),
                f"{plan.name} {layout}",
            )
            seen |= {plan.weight, plan.bias}
    treated = [kind for kind in case.kinds.values() if not kind.startswith("plain")]
    assert len(seen - {None}) == len(treated)

    if name != "batch normalization":
        halves = [step(batch[:2]), step(batch[2:])]
        for whole, first, second in zip(
            *(tf.nest.flatten(f) for f in (factors, *halves)), strict=True
        ):
            # Tied embeddings mix two orientations by a ratio of traces, which is not linear.
            if whole is not None and "tied" not in name:
                np.testing.assert_allclose(whole, (first + second) / 2, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("weight_sharing", "is_exact"), [("reduce", True), ("expand", False)])
def test_reduced_factors_are_exact_in_front_of_global_average_pooling(weight_sharing, is_exact):
    """Of a linear network with outputs that all examples weigh alike, Fisher = A ⊗ G."""
    model = keras.Sequential(
        [
            keras.Input((5, 4, 2)),
            keras.layers.Conv2D(3, 2, strides=(2, 1)),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    variables = model.trainable_variables
    weighting = tf.constant([[1.0, -2.0, 0.5]] * 6, tf.float64)
    layout = Layout(max_factor_size=None, oversized="diagonal", elementwise="diagonal")
    weights = [Weight(variable_path(v), tuple(v.shape), i) for i, v in enumerate(variables)]

    @tf.function(autograph=False)
    def factors(images, weighting):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.reduce_sum(model(images) * weighting, axis=1))
        layers = discover(tape.gradient(loss, variables), weights, layout).layers
        ((plan, uses),) = layers
        moments = second_moments(plan, uses, tf.float64, weight_sharing)
        return combine(moments, plan.rows, plan.columns)

    images = np.random.default_rng(3).normal(size=(6, 5, 4, 2))
    rows, columns = (factor[0].numpy() for factor in factors(tf.constant(images), weighting))

    with tf.GradientTape() as tape:
        losses = tf.reduce_sum(model(images) * weighting, axis=1)
    kernel, bias = (j.numpy() for j in tape.jacobian(losses, [underlying(v) for v in variables]))
    gradients = np.concatenate([kernel.reshape(6, -1, 3), bias.reshape(6, 1, 3)], axis=1)
    gradients = gradients.reshape(6, -1)
    fisher = gradients.T @ gradients / 6
    error = np.abs(np.kron(rows, columns) - fisher).max() / np.abs(fisher).max()
    assert (error < 1e-12) if is_exact else (error > 0.1)


def freeze_batch_statistics(observation, model, batch):
    """Per-example gradients of a final batch normalisation whose statistics are constants."""
    convolution, normalization = model.layers[1:3]
    hidden = convolution(batch).numpy()
    normalized = (hidden - hidden.mean(axis=(0, 1, 2))) / np.sqrt(
        hidden.var(axis=(0, 1, 2)) + normalization.epsilon
    )
    outputs = tf.constant(normalized * normalization.gamma + normalization.beta)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = loss_of(outputs)
    gradient = tape.gradient(loss, outputs).numpy()
    paths = [variable_path(variable) for variable in model.trainable_variables]

    def per_example(index):
        inputs = normalized if paths[index].endswith("gamma") else np.ones_like(normalized)
        return np.sum(inputs * gradient, axis=(1, 2))

    observation.per_example = per_example


def test_tied_embeddings_are_linear_before_they_are_combined():
    """What ranks average, the moments of each orientation, is linear in the examples."""
    case = CASES["tied embedding"]
    model = case.build()

    @tf.function(
        input_signature=[tf.TensorSpec([None, *case.input_shape], "int64")], autograph=False
    )
    def moments(x):
        with tf.GradientTape() as tape:
            loss = loss_of(model(x))
        gradients = tape.gradient(loss, model.trainable_variables)
        ((plan, uses),) = discover(gradients, [Weight("table", (11, 4), 0)], LAYOUTS[0]).layers
        return second_moments(plan, uses, tf.float64)

    batch = make_input(case, batch=4)
    whole, first, second = moments(batch), moments(batch[:2]), moments(batch[2:])
    assert len(whole) == 2
    for one, half, other in zip(*map(tf.nest.flatten, (whole, first, second)), strict=True):
        np.testing.assert_allclose(one, (half + other) / 2, rtol=1e-10, atol=1e-13)
