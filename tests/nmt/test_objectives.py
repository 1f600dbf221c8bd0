"""Objectives of a training: weights and schedules, equalities, independence of batches."""

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt.config import Config, Loss, Training
from nmt.models import ModelConfig, build_model
from nmt.training import objectives
from nmt.training.objectives.scheduled_sampling import reference_probability
from nmt.training.step import TrainingStep
from tests.nmt.tiny_models import BATCH, MODELS, VOCABULARY
from tfkfac.errors import InputError
from tfkfac.ranks import Ranks


def made(name="rnn", dropout=0.0, tied="all", **options) -> tuple[Any, Any]:
    """A model and its objective, always with the same random numbers."""
    keras.utils.set_random_seed(5)
    sizes = {**MODELS[name], "dropout": dropout, "tied_embeddings": tied}
    model = build_model(ModelConfig(VOCABULARY, VOCABULARY, **sizes))
    return model, objectives.build(model, Loss(**options))


def trained(model, objective, updates=3, jit=False, batch=BATCH):
    """The weights after some updates, and the terms of each."""
    optimizer = keras.optimizers.SGD(0.5)
    optimizer.build(model.trainable_variables)
    step = TrainingStep(model, optimizer, objective, Ranks(), jit=jit)
    sums = [step(batch, update, 0.5).numpy() for update in range(1, updates + 1)]
    return [np.asarray(variable) for variable in model.trainable_variables], sums


def same(ours, theirs, **tolerance):
    for one, other in zip(ours, theirs, strict=True):
        if tolerance:
            np.testing.assert_allclose(one, other, **tolerance)
        else:
            np.testing.assert_array_equal(one, other)


def test_weight_zero_is_maximum_likelihood_bit_for_bit():
    """With dropout: the random numbers are the same too. So are the updates before the start."""
    mle, _ = trained(*made(dropout=0.4, objective="mle"))
    zero, _ = trained(*made(dropout=0.4, objective="saml", saml_weight=0.0))
    same(zero, mle)
    model, objective = made(dropout=0.4, objective="saml", saml_start=2)
    late, sums = trained(model, objective, updates=2)
    same(late, trained(*made(dropout=0.4, objective="mle"), updates=2)[0])
    names = dict(zip(objective.terms, sums[-1].tolist(), strict=True))
    assert names["saml_loss"] == [0, 0] and names["mle_loss"][1] == 9  # words, ends included


def test_the_same_seed_makes_the_same_run():
    options = {"objective": "saml", "dropout": 0.4}
    first, sums = trained(*made(**options))
    again, _ = trained(*made(**options))
    same(again, first)
    assert not np.array_equal(sums[0], sums[1])


@pytest.mark.parametrize("name", ["rnn", "tied transformer"])
def test_xla_agrees(name):
    """Samples without noise: XLA draws other random numbers."""
    options = {"objective": "saml", "sampler": "st-softmax", "saml_warmup": 4}
    plain, sums = trained(*made(name, **options), updates=2)
    jit, jit_sums = trained(*made(name, **options), updates=2, jit=True)
    same(jit, plain, atol=2e-5)
    same(jit_sums, sums, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "policy"), [("rnn", "mixed_float16"), ("tied transformer", "mixed_bfloat16")]
)
def test_half_precision(name, policy):
    """Losses are computed in float32, and close to those of float32."""
    options = {"objective": "saml", "sampler": "st-softmax"}
    _, expected = trained(*made(name, **options), updates=1)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        weights, sums = trained(*made(name, **options), updates=1)
    finally:
        keras.config.set_dtype_policy(before)
    assert all(np.isfinite(variable).all() for variable in weights)
    np.testing.assert_allclose(sums[0][:3], expected[0][:3], rtol=0.02)


def test_weights_of_the_two_losses():
    model, objective = made(objective="saml", saml_weight=0.8, saml_start=10, saml_warmup=4)
    assert [objective.stage(update) for update in (1, 10)] == [objective.stage(1)] * 2
    stage = objective.stage(11)
    assert stage != objective.stage(10)
    for update, weight in ((11, 0.2), (13, 0.6), (14, 0.8), (1000, 0.8)):
        terms = objective(BATCH, tf.constant(update, tf.int64), stage)
        assert set(terms) == set(objective.terms)
        np.testing.assert_allclose(terms["saml_loss"].weight, weight, rtol=1e-6)
        np.testing.assert_allclose(terms["mle_loss"].weight, 1 - weight, rtol=1e-6)
        for name in ("cross_entropy", "sample_match", "alignment_entropy"):
            assert terms[name].weight == 0
    assert terms["saml_loss"].count == 6 and terms["mle_loss"].count == 9


@pytest.mark.parametrize("objective", ["saml", "saml-hard", "scheduled-sampling"])
@pytest.mark.parametrize("name", ["rnn", "transformer"])
def test_padding_and_other_sentences_change_nothing(name, objective):
    """Each sentence alone, without padding; without noise, since a batch's noise has its shape."""
    _, term = made(name, objective=objective, sampler="st-softmax", sampling_floor=1.0)
    update = tf.constant(1, tf.int64)

    def sums(batch):
        terms = term(batch, update, term.stage(1))
        return np.array([terms[name][:2] for name in term.terms], np.float64)

    whole = sums(BATCH)
    padded = {
        "source": tf.pad(BATCH["source"], [(0, 0), (0, 2)]),
        "target": tf.pad(BATCH["target"], [(0, 0), (0, 3)]),
    }
    np.testing.assert_allclose(sums(padded), whole, rtol=1e-5)
    alone = 0
    for source, target, row in ((5, 4, 0), (3, 2, 1), (4, 3, 2)):
        alone += sums(
            {
                "source": BATCH["source"][row : row + 1, :source],
                "target": BATCH["target"][row : row + 1, :target],
            }
        )
    np.testing.assert_allclose(alone, whole, rtol=1e-5)


def test_samples_beyond_the_reference_count_only_where_wanted():
    values = []
    for steps in ("reference", "batch"):
        model, objective = made(objective="saml", sampler="st-softmax", saml_steps=steps)
        model.output_layer.bias.assign(tf.one_hot(7, VOCABULARY) * 5)  # samples never end
        terms = objective(BATCH, tf.constant(1, tf.int64), objective.stage(1))
        values.append(float(terms["saml_loss"].total))
    assert abs(values[0] - values[1]) > 1e-3


@pytest.mark.parametrize("name", ["rnn", "transformer"])
def test_gradient_through_samples_only_where_wanted(name):
    """Without it, no embedding of a word that was merely sampled is trained by SAML."""
    found = {}
    for differentiable in (True, False):
        model, objective = made(
            name, tied="none", objective="saml", saml_weight=1.0,
            differentiable=differentiable, label_smoothing=0.0,
        )  # fmt: skip
        table = model.target_embedding.embeddings
        with tf.GradientTape() as tape:
            terms = objective(BATCH, tf.constant(1, tf.int64), objective.stage(1))
            total = terms["saml_loss"].total
        rows = np.abs(tf.convert_to_tensor(tape.gradient(total, table))).max(axis=1)
        found[differentiable] = rows.nonzero()[0].tolist()
    assert found[False] == [2]  # BEGIN
    assert len(found[True]) > 2


def test_probabilities_of_scheduled_sampling():
    number = tf.constant([0, 10, 20], tf.int64)
    expected = [5 / (5 + math.exp(i / 5)) for i in (0, 10, 20)]
    np.testing.assert_allclose(reference_probability("inverse-sigmoid", 5, number), expected)
    np.testing.assert_allclose(
        reference_probability("exponential", 0.9, number), [1, 0.9**10, 0.9**20]
    )
    np.testing.assert_allclose(
        reference_probability("linear", 0.04, number, 0.3), [1, 0.6, 0.3], rtol=1e-12
    )
    assert reference_probability("inverse-sigmoid", 5, tf.constant(10**6)) == 0
    _, objective = made(
        objective="scheduled-sampling", sampling_schedule="linear", sampling_constant=0.25,
        sampling_interval=10,
    )  # fmt: skip
    found = [float(objective.probability(tf.constant(u, tf.int64))) for u in (1, 10, 11, 41)]
    assert found == [1, 1, 0.75, 0]


def test_coins_of_scheduled_sampling():
    for kind in ("example", "batch"):
        _, objective = made(objective="scheduled-sampling", sampling_coins=kind)
        coins = objective._coins(tf.constant(400), tf.constant(60), tf.constant(0.3, tf.float64))
        assert coins.shape == (400, 60) and coins.numpy()[:, 0].all()
        alike = (coins.numpy() == coins.numpy()[:1]).all()
        assert alike == (kind == "batch")
    shares = coins.numpy()[0] if kind == "batch" else coins.numpy()
    assert 0.1 < shares.mean() < 0.5


def test_always_given_the_reference_scheduled_sampling_is_maximum_likelihood():
    options = {"sampling_floor": 1.0, "label_smoothing": 0.2}
    mle, _ = trained(*made(objective="mle", label_smoothing=0.2))
    for name in ("scheduled-sampling", "differentiable-scheduled-sampling"):
        same(trained(*made(objective=name, **options))[0], mle, atol=1e-6)


def test_scheduled_sampling_trains_on_its_samples():
    """With the reference never given, the two kinds differ in what the samples receive."""
    options = {"sampling_schedule": "linear", "sampling_constant": 0.9, "sampling_interval": 1}
    found = []
    for name in ("scheduled-sampling", "differentiable-scheduled-sampling"):
        model, objective = made(objective=name, tied="none", **options)
        with tf.GradientTape() as tape:
            terms = objective(BATCH, tf.constant(100, tf.int64), "")
        gradient = tape.gradient(terms["loss"].total, model.trainable_variables)
        found.append([np.asarray(tf.convert_to_tensor(g)) for g in gradient])
        assert terms["reference_share"].total == 0
    assert not np.allclose(found[0][-2], found[1][-2])


@pytest.mark.parametrize(
    ("schedule", "constant"), [("inverse-sigmoid", 0.5), ("exponential", 1.5), ("linear", 1.0)]
)
def test_constants_that_fit_no_schedule(schedule, constant):
    loss = Loss(sampling_schedule=schedule, sampling_constant=constant)
    with pytest.raises(
        InputError, match=f"^sampling_constant: {constant:g} is none for {schedule}"
    ):
        Config(loss=loss, training=Training())
