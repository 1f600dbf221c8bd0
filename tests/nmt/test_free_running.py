"""Decoders that read their own samples, in float64, against a plain loop and finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt.losses import SmoothedCrossEntropy, SoftAlignedMaximumLikelihood
from nmt.models import ModelConfig, build_model
from nmt.models.feedback import Feedback
from nmt.sampling import DifferentiableSampler
from nmt.subwords import BEGIN
from tests.nmt.tiny_models import BATCH, MODELS, VOCABULARY

STEPS = 4


@pytest.fixture(autouse=True)
def double_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def tiny_model(name, **options):
    keras.utils.set_random_seed(3)
    model = build_model(ModelConfig(VOCABULARY, VOCABULARY, **{**MODELS[name], **options}))
    for variable in model.trainable_variables:  # far from ties and from symmetry
        variable.assign(variable + np.random.default_rng(0).normal(size=variable.shape) * 0.3)
    return model


def feedback_of(kind, gradient="sample", coins=False):
    sampler = DifferentiableSampler(kind, temperature=0.7, noise_scale=0.8)
    noise = sampler.noise([STEPS, 3, VOCABULARY], tf.constant([1, 2]), tf.float64)
    feedback = Feedback(sampler, tf.constant(STEPS), noise, gradient)
    if coins:
        words = tf.pad(BATCH["target"][:, :-1], [(0, 0), (1, 0)], constant_values=BEGIN)
        forced = tf.constant([[1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1]]) == 1
        feedback = feedback._replace(words=words, forced=forced)
    return feedback


def plain_logits(model, encoding, feedback):
    """Step by step, without any loop of TensorFlow's, a mixture over the vocabulary each time."""
    sampler = feedback.sampler
    state = model.start(encoding, STEPS, training=True)
    embedded = model.embed_target(tf.fill([3], BEGIN))
    found = []
    for t in range(STEPS):
        if feedback.words is not None:
            given = model.embed_target(feedback.words[:, t])
            embedded = tf.where(feedback.forced[:, t, tf.newaxis], given, embedded)
        logits, state, _ = model.step(state, embedded, training=True)
        found.append(logits)
        noise = None if feedback.noise is None else feedback.noise[t]
        weights = sampler(logits, noise)
        if feedback.gradient != "sample":
            weights = tf.stop_gradient(weights)
        embedded = model.embed_target_mixture(weights)
        if feedback.gradient == "none":
            embedded = tf.stop_gradient(embedded)
    return tf.stack(found)


def loop_logits(model, encoding, feedback):
    return model.free_running(encoding, feedback, training=True).logits


def loss_of(model, decode, feedback):
    """Both passes, over one encoding."""
    encoding = model.encode(BATCH["source"], training=True)
    outputs, _ = model.teacher_forced(BATCH, training=True, encoding=encoding)
    loss = SmoothedCrossEntropy()(BATCH["target"], model.logits(outputs))
    sampled = tf.transpose(decode(model, encoding, feedback), [1, 0, 2])
    return loss + SoftAlignedMaximumLikelihood()(BATCH["target"], sampled)


def value_and_gradients(model, decode, feedback):
    with tf.GradientTape() as tape:
        value = loss_of(model, decode, feedback)
    gradients = tape.gradient(value, model.trainable_variables)
    return value, [tf.convert_to_tensor(gradient) for gradient in gradients]


def compiled(model, feedback, **options):
    return tf.function(value_and_gradients, **options)(model, loop_logits, feedback)


def assert_same(model, ours, theirs):
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-10)
    for variable, one, other in zip(model.trainable_variables, ours[1], theirs[1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9, err_msg=variable.path)


@pytest.mark.parametrize(
    ("name", "kind", "gradient", "coins"),
    [
        ("rnn", "softmax", "sample", True),
        ("rnn", "st-softmax", "sample", False),
        ("rnn", "gumbel-softmax", "embedding", False),
        ("rnn", "st-gumbel-softmax", "none", True),
        ("deep rnn", "st-gumbel-softmax", "sample", False),
        ("deep rnn", "st-softmax", "embedding", True),
        ("transformer", "gumbel-softmax", "sample", False),
        ("transformer", "st-gumbel-softmax", "sample", True),
        ("tied transformer", "st-softmax", "none", False),
    ],
)
def test_hoisted_gradients_are_those_of_a_plain_loop(name, kind, gradient, coins):
    model = tiny_model(name)
    feedback = feedback_of(kind, gradient, coins)
    ours = compiled(model, feedback)
    theirs = value_and_gradients(model, plain_logits, feedback)
    assert_same(model, ours, theirs)
    assert all(np.abs(one).max() > 0 for one in ours[1])


@pytest.mark.parametrize(
    ("name", "kind"), [("rnn", "gumbel-softmax"), ("tied transformer", "softmax")]
)
def test_finite_differences_through_both_passes(name, kind):
    """Of relaxed samples; those of single words have no derivative to compare with."""
    model = tiny_model(name)
    feedback = feedback_of(kind)
    _, gradients = compiled(model, feedback)
    value = tf.function(lambda: loss_of(model, loop_logits, feedback))
    generator = np.random.default_rng(1)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        direction = generator.normal(size=variable.shape)
        here, values = variable.numpy(), []
        for step in (1e-5, -1e-5):
            variable.assign(here + step * direction)
            values.append(float(value()))
        variable.assign(here)
        expected = (values[0] - values[1]) / 2e-5
        found = np.sum(np.asarray(gradient) * direction)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9, err_msg=variable.path)


def test_samples_without_noise_are_the_likeliest_words():
    model = tiny_model("rnn")
    encoding = model.encode(BATCH["source"])
    run = model.free_running(encoding, feedback_of("st-softmax"))
    words = tf.transpose(run.samples)
    # Teacher forcing with them reads the same words.
    forced = model({"source": BATCH["source"], "target": words})
    np.testing.assert_allclose(tf.transpose(run.logits, [1, 0, 2]), forced, atol=1e-12)
    np.testing.assert_array_equal(tf.argmax(forced, axis=-1), words)
    assert run.attention.shape == (STEPS, 3, 5)
    np.testing.assert_allclose(tf.reduce_sum(run.attention, axis=-1), np.ones((STEPS, 3)))
