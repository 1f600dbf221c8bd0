"""SAML against hand-worked numbers and against its definition in probabilities, in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt.losses import SoftAlignedMaximumLikelihood
from nmt.soft_alignment import counted_steps, soft_alignment

A, B, EOS = 0, 1, 2
TWO_STEPS = np.log([[[2.0, 1.0, 1.0], [1.0, 3.0, 4.0]]])  # argmax: a, then the end
PAD, UNK = -1, -2


def example(**options):
    return SoftAlignedMaximumLikelihood(pad_id=PAD, unk_id=UNK, eos_id=EOS, **options)


def softmax(x, axis):
    x = np.exp(x - x.max(axis=axis, keepdims=True))
    return x / x.sum(axis=axis, keepdims=True)


def by_definition(reference, logits, samples, pad, unk, eos, hard=False) -> float:
    """The loss as it is defined, sentence by sentence, with masked logits of -1e9."""
    losses = []
    for words, o, sampled in zip(reference, np.float64(logits), samples, strict=True):  # type: ignore[call-overload]
        o = o.copy()
        for t in range(len(o)):
            ended = any(word in (eos, pad) for word in sampled[:t])
            if ended and (t >= len(words) or words[t] == pad):
                o[t] = -1e9
        p, a = softmax(o, axis=1), softmax(o, axis=0)
        for j, word in enumerate(words):
            if word not in (pad, unk, eos):
                covered = p[j, word] if hard else (a * p)[:, word].sum()
                losses.append(-np.log(max(covered, 1e-10)))
    return np.mean(losses)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_worked_example(dtype):
    logits = tf.cast(TWO_STEPS, dtype)
    tolerance = 3e-3 if dtype == "bfloat16" else 1e-6
    for reference in ([[A, B]], [[B, A]], [[A, B, EOS, PAD]]):
        value = example()(reference, logits)
        assert value.dtype == ("float64" if dtype == "float64" else "float32")
        np.testing.assert_allclose(value, 1.024334942, rtol=tolerance)
    for reference, expected in (([[A, B]], 0.836988), ([[B, A]], 1.732868)):
        value = example(hard_alignment=True)(reference, logits)
        np.testing.assert_allclose(value, expected, rtol=max(tolerance, 1e-6))


def test_coverage_in_the_worked_example():
    samples = [[A, EOS]]
    counted = counted_steps(tf.constant([[A, B, EOS]]), tf.constant(samples), PAD, EOS)
    found = soft_alignment(tf.constant([[A, B, EOS]]), tf.constant(TWO_STEPS), counted)
    np.testing.assert_allclose(tf.exp(found.log_coverage), [[3 / 8, 11 / 32, 9 / 20]])
    np.testing.assert_allclose(found.weights[0, :, 0], [2 / 3, 1 / 3])
    expected = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
    np.testing.assert_allclose(found.entropy()[0, 0], expected)


def test_a_masked_step_changes_nothing():
    logits = np.concatenate([TWO_STEPS, [[[5.0, -2, 7]]]], axis=1)
    for reference in ([[A, B]], [[B, A, PAD]]):
        np.testing.assert_allclose(example()(reference, logits), 1.024334942, rtol=1e-9)
    # Within the reference, and after a sample that has not ended, it counts.
    goes_on = np.concatenate([TWO_STEPS[:, :1], TWO_STEPS[:, :1], [[[5.0, -2, 7]]]], axis=1)
    for reference, values in (([[A, B, A]], logits), ([[A, B]], goes_on)):
        samples = values.argmax(axis=-1)
        expected = by_definition(reference, values, samples, PAD, UNK, EOS)
        assert abs(expected - 1.024334942) > 0.1
        np.testing.assert_allclose(example()(reference, values), expected, rtol=1e-9)


def test_steps_that_count():
    reference = tf.constant([[5, 3, 0, 0]])  # a word, the end, padding
    for samples, expected in (
        ([[3, 5, 5, 5]], [True, True, False, False]),
        ([[5, 5, 3, 5]], [True, True, True, False]),  # the end itself counts
        ([[5, 5, 0, 5]], [True, True, True, False]),  # sampled padding is an end
        ([[5, 5, 5, 5]], [True, True, True, True]),
    ):
        found = counted_steps(reference, tf.constant(samples), pad_id=0, eos_id=3)
        assert found.numpy().tolist() == [expected]
        limited = counted_steps(reference, tf.constant(samples), 0, 3, overrun=False)
        assert limited.numpy().tolist() == [[True, True, False, False]]


def test_the_gradient_of_the_worked_example():
    logits = tf.constant(TWO_STEPS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = example()([[A, B]], logits)
    expected = [[-0.287879, 0.077020, 0.133838], [0.113636, -0.268939, 0.232323]]
    np.testing.assert_allclose(tape.gradient(value, logits)[0], expected, atol=5e-7)


@pytest.mark.parametrize("hard", [False, True])
def test_values_and_gradients_of_a_batch(hard):
    """Against the definition and finite differences of it; words occur twice, one is left out."""
    generator = np.random.default_rng(0)
    reference = np.array([[4, 5, 4, 3, 0], [6, 1, 3, 0, 0], [4, 5, 6, 6, 3]])
    logits = generator.normal(size=(3, 6, 7)) * 2
    samples = logits.argmax(axis=-1)
    samples[1, 1] = 3
    loss = SoftAlignedMaximumLikelihood(hard_alignment=hard)

    def defined(values):
        return by_definition(reference, values, samples, 0, 1, 3, hard)

    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        value = loss(reference, variable, samples=samples)
    np.testing.assert_allclose(value, defined(logits), rtol=1e-12)
    gradient = tf.convert_to_tensor(tape.gradient(value, variable)).numpy()
    differences = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        step = np.zeros_like(logits)
        step[place] = 1e-6
        differences[place] = (defined(logits + step) - defined(logits - step)) / 2e-6
    np.testing.assert_allclose(gradient, differences, atol=1e-9)
    assert hard or not gradient[1, 3:].any()  # masked


def test_order_and_padding_change_nothing():
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(2, 4, 9))
    logits[:, 3, 3] += 50  # both samples end in time
    loss = SoftAlignedMaximumLikelihood()
    value = loss([[5, 6, 7, 3], [8, 8, 4, 3]], logits)
    permuted = loss([[7, 5, 6, 3], [8, 4, 8, 3]], logits)
    np.testing.assert_allclose(permuted, value, rtol=1e-12)
    longer = np.concatenate([logits, generator.normal(size=(2, 3, 9)) * 9], axis=1)
    padded = [[5, 6, 7, 3, 0, 0], [8, 8, 4, 3, 0, 0]]
    for values in (logits, longer):
        np.testing.assert_allclose(loss(padded, values), value, rtol=1e-12)
    weights = [[1.0, 1, 1, 1], [0, 0, 0, 0]]
    np.testing.assert_allclose(
        loss([[5, 6, 7, 3], [8, 8, 4, 3]], logits, weights), loss([[5, 6, 7, 3]], logits[:1])
    )
    assert loss([[3, 0]], logits[:1]) == 0  # no word


def test_long_sentences_and_large_vocabularies():
    """Probabilities here are far below the least float32; the floor alone bounds the loss."""
    generator = np.random.default_rng(2)
    logits = generator.normal(size=(1, 300, 20_000)).astype(np.float32) * 30
    reference = generator.integers(4, 20_000, (1, 300))
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        value = SoftAlignedMaximumLikelihood()(reference, variable)
    gradient = tf.convert_to_tensor(tape.gradient(value, variable)).numpy()
    assert np.isfinite(gradient).all() and gradient.any()
    samples = logits.argmax(axis=-1)
    expected = by_definition(reference, logits, samples, 0, 1, 3)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    # Logits of -1e9, as for words that may not occur, are no other case.
    logits[:, :, :4] = -1e9
    assert np.isfinite(SoftAlignedMaximumLikelihood()(reference, logits))


def test_the_floor():
    logits = np.array([[[0.0, 200, 0], [0, 200, 0]]])
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        value = example()([[A]], variable)
    np.testing.assert_allclose(value, -np.log(1e-10))
    assert not tf.convert_to_tensor(tape.gradient(value, variable)).numpy().any()


def test_a_keras_model_compiles_with_it():
    """Which of two words a step says is free: both must occur."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(16), keras.layers.Reshape((2, 8))])
    loss = SoftAlignedMaximumLikelihood()
    model.compile(keras.optimizers.Adam(0.05), loss=loss)
    history = model.fit(
        np.ones((8, 3), np.float32), np.array([[5, 6]] * 8, np.int32), epochs=150, verbose=0
    )
    assert history.history["loss"][-1] < 0.05
    assert loss.get_config() == {
        "pad_id": 0,
        "unk_id": 1,
        "eos_id": 3,
        "hard_alignment": False,
        "name": "soft_aligned_maximum_likelihood",
    }
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(restored, SoftAlignedMaximumLikelihood)
