"""Decoding against exhaustive enumeration, plain Python searches and numpy, on tiny models."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from nmt.decoding import Decoder, DecodingOptions
from nmt.decoding.beam import beam_search
from nmt.decoding.blocking import block_repeated
from nmt.decoding.ensemble import Ensemble
from nmt.decoding.sampling import random_words
from nmt.decoding.scoring import score
from nmt.decoding.selection import best_words
from nmt.models import ModelConfig, build_model
from nmt.subwords import BEGIN, END, PAD, UNKNOWN
from tests.nmt.tiny_models import BATCH, MODELS, VOCABULARY

SOURCE = BATCH["source"].numpy()
WORDS = [word for word in range(VOCABULARY) if word not in (PAD, UNKNOWN, BEGIN, END)]


@pytest.fixture(autouse=True)
def double_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture(scope="module")
def models():
    """Untrained models by name, far from ties."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    made = {}
    for number, (name, sizes) in enumerate(MODELS.items()):
        keras.utils.set_random_seed(number)
        made[name] = build_model(ModelConfig(VOCABULARY, VOCABULARY, **sizes))
        generator = np.random.default_rng(number)
        for variable in made[name].trainable_variables:
            variable.assign(variable + 0.5 * generator.normal(size=variable.shape))
    keras.config.set_dtype_policy(before)
    return made


def next_words(model, source, prefixes):
    """log P of the word after each prefix [n, V], by teacher forcing on the whole prefix."""
    length = len(prefixes[0])
    target = np.array([[*prefix, END] for prefix in prefixes], np.int32).reshape(-1, length + 1)
    inputs = {"source": np.repeat(source[np.newaxis], len(prefixes), 0), "target": target}
    inputs = {name: tf.constant(ids) for name, ids in inputs.items()}
    return tf.nn.log_softmax(model(inputs)[:, length]).numpy()


def plain_beam_search(model, source, options, limit):
    """What `DecodingOptions` says, with lists: [(score, words)], best first."""
    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    finished: list[tuple[float, tuple[int, ...]]] = []
    for length in range(1, limit + 1):
        each = next_words(model, source, [prefix for prefix, _ in live])
        ends, grown = [], []
        for (prefix, total), log_probabilities in zip(live, each, strict=True):
            if length >= min(limit, options.min_length):
                ends.append(((*prefix, END), total + log_probabilities[END]))
            for word in WORDS if length < limit else []:
                new = (*prefix, word)
                size = options.no_repeat_ngram
                grams = [new[i : i + size] for i in range(len(new) - size + 1)]
                if not size or len(grams) == len(set(grams)):
                    grown.append((new, total + log_probabilities[word]))
        ranked = sorted(ends + grown, key=lambda item: -item[1])[: options.beam]
        finished += [
            (total / options.penalty(length), words) for words, total in ranked if words[-1] == END
        ]
        live = sorted(grown, key=lambda item: -item[1])[: options.beam]
        if len(finished) >= options.beam or not live:
            break
    return sorted(finished, reverse=True)[: options.n_best]


def words_of(hypotheses, sentence):
    """[(score, words)] of one sentence."""
    found = []
    for j, length in enumerate(hypotheses.lengths[sentence]):
        if length:
            words = tuple(int(word) for word in hypotheses.ids[sentence, j, :length])
            found.append((float(hypotheses.scores[sentence, j]), words))
    return found


def assert_same(found, expected):
    assert [words for _, words in found] == [words for _, words in expected]
    np.testing.assert_allclose([s for s, _ in found], [s for s, _ in expected], rtol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_steps_give_what_teacher_forcing_gives(models, name):
    """Decoding with cached keys and values, or recurrent states, equals decoding without."""
    model, target = models[name], BATCH["target"]
    logits = model(BATCH)
    state = model.start(model.encode(BATCH["source"]), target.shape[1])
    words = tf.fill([target.shape[0]], BEGIN)
    for t in range(target.shape[1]):
        found, state, _ = model.step(state, words)
        np.testing.assert_allclose(found, logits[:, t], rtol=0, atol=1e-12)
        words = target[:, t]


@pytest.mark.parametrize("name", MODELS)
def test_padding_and_neighbours_change_nothing(models, name):
    model = models[name]
    logits = model(BATCH).numpy()
    padded = {
        side: tf.pad(ids, [(0, 0), (0, 3)], constant_values=PAD) for side, ids in BATCH.items()
    }
    np.testing.assert_allclose(model(padded)[:, :4], logits, rtol=0, atol=1e-12)
    # The second sentence alone, without any padding.
    alone = {"source": BATCH["source"][1:2, :3], "target": BATCH["target"][1:2, :2]}
    np.testing.assert_allclose(model(alone)[0], logits[1, :2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["rnn", "transformer"])
def test_a_wide_beam_finds_what_enumeration_finds(models, name):
    limit, options = 4, DecodingOptions(beam=130, n_best=7, max_length=4, length_penalty=0.7)
    found = Decoder([models[name]], options)(SOURCE)
    for sentence, source in enumerate(SOURCE):
        everything = []
        for length in range(1, limit + 1):
            texts = list(itertools.product(WORDS, repeat=length - 1))
            target = np.array([[*text, END] for text in texts], np.int32)
            sources = np.repeat(source[np.newaxis], len(texts), 0)
            totals = score([models[name]], sources, target).log_probabilities.sum(1)
            everything += [
                (total / options.penalty(length), (*text, END))
                for total, text in zip(totals, texts, strict=True)
            ]
        assert len(everything) == 1 + 5 + 25 + 125
        assert_same(words_of(found, sentence), sorted(everything, reverse=True)[:7])


@pytest.mark.parametrize(
    "options",
    [
        {"beam": 2, "n_best": 2},
        {"beam": 3, "n_best": 1, "length_penalty": 0.0},
        {"beam": 3, "n_best": 3, "length_penalty": 2.0, "min_length": 4},
        {"beam": 3, "n_best": 2, "no_repeat_ngram": 2, "min_length": 5},
        {"beam": 2, "n_best": 1, "max_length": 3},
    ],
)
@pytest.mark.parametrize("name", ["rnn", "transformer"])
def test_beam_search_is_the_documented_one(models, name, options):
    options = DecodingOptions(**{"max_length_factor": 1.0, "max_length_constant": 3, **options})
    model = models[name]
    found = Decoder([model], options)(SOURCE)
    for sentence, source in enumerate(SOURCE):
        limit = int(options.longest(int(np.sum(source != PAD))))
        assert_same(words_of(found, sentence), plain_beam_search(model, source, options, limit))
        for total, words in words_of(found, sentence):
            again = score([model], source[np.newaxis], np.array([words]))
            expected = again.log_probabilities.sum() / options.penalty(len(words))
            np.testing.assert_allclose(total, expected, rtol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_greedy_decoding_is_a_beam_of_one(models, name):
    options = DecodingOptions(beam=1, max_length=7)
    greedy = Decoder([models[name]], options)(SOURCE)
    limits = tf.fill([len(SOURCE)], 7)
    beam = beam_search(Ensemble([models[name]]), tf.constant(SOURCE), limits, options, 7)
    length = greedy.ids.shape[2]
    np.testing.assert_array_equal(beam["words"][:, :, :length], greedy.ids)
    np.testing.assert_array_equal(beam["lengths"], greedy.lengths)
    np.testing.assert_allclose(beam["scores"], greedy.scores, rtol=1e-12)


def test_an_ensemble_searches_the_mean_of_probabilities(models):
    pair = [models["rnn"], models["transformer"]]
    found = Decoder(pair, DecodingOptions(beam=1, max_length=1 + 1))(SOURCE)
    for sentence, source in enumerate(SOURCE):
        each = [np.exp(next_words(model, source, [()])[0]) for model in pair]
        mean = np.mean(each, axis=0)
        first = max([*WORDS, END], key=lambda word: mean[word])
        assert found.ids[sentence, 0, 0] == first
        np.testing.assert_allclose(
            found.log_probabilities[sentence, 0, 0], math.log(mean[first]), rtol=1e-10
        )


def test_draws_follow_temperature_top_k_and_top_p():
    scores = np.log([0.4, 0.05, 0.3, 0.05, 0.2])
    uniform = (np.arange(1000) + 0.5) / 1000  # every part of [0, 1) alike
    rows = np.repeat(scores[np.newaxis], 1000, 0)

    def shares(**options):
        drawn = random_words(rows, uniform, DecodingOptions(sample=True, **options)).numpy()
        return np.bincount(drawn, minlength=5) / 1000

    np.testing.assert_allclose(shares(), [0.4, 0.05, 0.3, 0.05, 0.2], atol=2e-3)
    np.testing.assert_allclose(shares(top_k=2), [4 / 7, 0, 3 / 7, 0, 0], atol=2e-3)
    # 0.4 + 0.3 do not reach 0.75, with 0.2 they do.
    np.testing.assert_allclose(shares(top_p=0.75), [4 / 9, 0, 3 / 9, 0, 2 / 9], atol=2e-3)
    # Of what top_k leaves, 4/7 alone reach 0.5.
    np.testing.assert_allclose(shares(top_k=2, top_p=0.5), [1, 0, 0, 0, 0], atol=2e-3)
    sharp = np.array([0.4, 0.05, 0.3, 0.05, 0.2]) ** 2
    np.testing.assert_allclose(shares(temperature=0.5), sharp / sharp.sum(), atol=2e-3)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_blocked_words_are_those_that_repeat(size):
    generator = np.random.default_rng(size)
    words = generator.integers(0, 4, (40, 9)).astype(np.int32)
    for count in range(8):
        blocked = block_repeated(tf.zeros([40, 4]), tf.constant(words), tf.constant(count), size)
        for row, found in zip(words.tolist(), np.isinf(blocked), strict=True):
            before = row[:count]
            grams = {tuple(before[i : i + size]) for i in range(count - size + 1)}
            tail = before[count - size + 1 :] if count >= size - 1 else None
            expected = [tail is not None and (*tail, word) in grams for word in range(4)]
            assert found.tolist() == expected, (before, size)


@pytest.mark.parametrize("vocabulary", [7, 97, 1000, 1024])
def test_best_words_are_those_of_a_sort(vocabulary):
    generator = np.random.default_rng(vocabulary)
    scores = generator.integers(0, 50, (20, vocabulary)).astype(np.float32)  # with many ties
    values, words = best_words(tf.constant(scores), 6)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :6]
    np.testing.assert_array_equal(words, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, expected, 1))
