"""The four samplers against their formulas in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from nmt.config import SAMPLERS
from nmt.sampling import DifferentiableSampler, gumbel

LOGITS = np.array([[1.0, 3.0, 2.0, -1.0], [0.5, 0.0, -0.5, 0.2]])
NOISE = np.array([[0.1, -1.5, 0.7, 2.0], [0.0, 1.0, 0.3, -0.2]])


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_values_and_gradients(kind):
    """The gradient of Σ c ỹ is y (c - Σ y c) / τ of the relaxed sample y, whatever the value."""
    sampler = DifferentiableSampler(kind, temperature=0.5)
    noise = NOISE if sampler.is_noisy else None
    logits, coefficients = tf.constant(LOGITS), np.array([[1.0, -2, 0.5, 3], [2, 1, 0, -1]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        weights = sampler(logits, noise)
        value = tf.reduce_sum(weights * coefficients)
    relaxed = softmax((LOGITS + (0 if noise is None else noise)) / 0.5)
    words = relaxed.argmax(axis=-1)
    expected = np.eye(4)[words] if sampler.is_straight_through else relaxed
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    mean = (relaxed * coefficients).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(
        tape.gradient(value, logits), relaxed * (coefficients - mean) / 0.5, rtol=1e-12
    )
    np.testing.assert_array_equal(sampler.words(logits, noise), words)
    assert ("gumbel" in kind) == sampler.is_noisy


def test_samples_may_be_constants():
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = tf.reduce_sum(DifferentiableSampler("softmax", differentiable=False)(logits) ** 2)
    assert tape.gradient(value, logits) is None


def test_noise_samples_the_distribution():
    logits = tf.constant([[1.0, 2.0, 0.0]])
    noise = gumbel([40_000, 3], tf.constant([1, 2]))
    assert np.isfinite(noise).all()
    words = DifferentiableSampler().words(logits, noise)
    shares = np.bincount(words, minlength=3) / 40_000
    np.testing.assert_allclose(shares, softmax(logits.numpy())[0], atol=0.01)
    np.testing.assert_array_equal(gumbel([40_000, 3], tf.constant([1, 2])), noise)
    sampler = DifferentiableSampler(noise_scale=0.5)
    np.testing.assert_array_equal(sampler.noise([40_000, 3], tf.constant([1, 2])), 0.5 * noise)
    for quiet in (DifferentiableSampler("st-softmax"), DifferentiableSampler(noise_scale=0.0)):
        assert quiet.noise([4, 3], tf.constant([1, 2])) is None


def test_half_precision_is_computed_in_single():
    weights = DifferentiableSampler("softmax")(tf.cast(LOGITS, tf.bfloat16))
    assert weights.dtype == tf.float32
    np.testing.assert_allclose(tf.reduce_sum(weights, axis=-1), [1, 1], rtol=1e-6)


@pytest.mark.parametrize(
    "options", [{"kind": "argmax"}, {"temperature": 0.0}, {"noise_scale": -1.0}]
)
def test_what_there_is_not(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        DifferentiableSampler(**options)
