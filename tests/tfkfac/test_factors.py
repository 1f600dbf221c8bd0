"""Factors of every layer kind against explicit sums over examples and positions."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.tfkfac.ground_truth import expected_factors, observe
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


def factor_step(case):
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
                    combine(second_moments(plan, uses, tf.float64), plan.rows, plan.columns)
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
                one, other, rtol=1e-10, atol=1e-10 * scale, err_msg=f"{what}, {side}"
            )


@pytest.mark.parametrize("name", TREATED)
def test_factors_equal_sums_over_examples(name):
    case = CASES[name]
    model, step, plans = factor_step(case)
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
                actual, expected_factors(observation, plan), f"{plan.name} {layout}"
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
