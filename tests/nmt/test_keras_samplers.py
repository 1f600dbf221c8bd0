"""keras-nlp's samplers beside our own searches, which know nothing of each other."""

import keras
import keras_nlp
import numpy as np
import pytest

from nmt.decoding import DecodingOptions, decode
from nmt.decoding.keras_samplers import write_with
from nmt.models import ModelConfig, build_model
from nmt.subwords import BEGIN, END, PAD, UNKNOWN
from tests.nmt.tiny_models import BATCH, MODELS, VOCABULARY

SOURCE = BATCH["source"].numpy()
LIMIT = 6
OPTIONS = DecodingOptions(beam=1, max_length=LIMIT)


@pytest.fixture(scope="module", params=["rnn", "transformer"])
def model(request):
    keras.utils.set_random_seed(3)
    made = build_model(ModelConfig(VOCABULARY, VOCABULARY, **MODELS[request.param]))
    generator = np.random.default_rng(3)
    for variable in made.trainable_variables:
        variable.assign(variable + 0.5 * generator.normal(size=variable.shape))
    return made


def until_end(rows):
    """Words of each row before END, or all."""
    rows = [row.tolist() for row in rows]
    return [row[: row.index(END)] if END in row else row for row in rows]


def test_greedy_sampler_writes_what_greedy_search_writes(model):
    found = write_with(keras_nlp.samplers.GreedySampler(), model, SOURCE, OPTIONS)
    expected = decode([model], SOURCE, OPTIONS).ids[:, 0]
    for own, other in zip(until_end(found), until_end(expected), strict=True):
        assert own[: LIMIT - 1] == other  # the last word of ours is END, always


def test_top_k_of_one_is_greedy(model):
    greedy = write_with(keras_nlp.samplers.GreedySampler(), model, SOURCE, OPTIONS)
    first = write_with(keras_nlp.samplers.TopKSampler(k=1, seed=1), model, SOURCE, OPTIONS)
    np.testing.assert_array_equal(first, greedy)


def test_beams_read_the_caches_of_their_own_parents(model):
    """A wide beam finds what is at least as probable as the greedy translation."""
    options = DecodingOptions(beam=1, max_length=4)
    beam = write_with(keras_nlp.samplers.BeamSampler(num_beams=6), model, SOURCE, options)
    greedy = write_with(keras_nlp.samplers.GreedySampler(), model, SOURCE, options)

    def log_probability(rows):
        width = max(len(row) for row in rows)
        target = np.full((len(rows), width), PAD, np.int32)
        for place, row in enumerate(rows):
            target[place, : len(row)] = row
        logits = model({"source": SOURCE, "target": target}).numpy().astype(np.float64)
        logits[..., [PAD, BEGIN, UNKNOWN]] = -np.inf
        log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        each = np.take_along_axis(log_p, target[..., np.newaxis], axis=-1)[..., 0]
        return np.where(target == PAD, 0, each).sum(axis=1)

    # Both in full length: the sampler compares sums over all of its words.
    unended = [place for place in range(len(SOURCE)) if END not in (*beam[place], *greedy[place])]
    ours, theirs = log_probability(beam), log_probability(greedy)
    assert (ours[unended] >= theirs[unended] - 1e-5).all()
    assert (beam != greedy).any()


def test_special_words_are_never_chosen_and_seeds_repeat(model):
    def drawn(seed):
        sampler = keras_nlp.samplers.RandomSampler(seed=seed, temperature=3.0)
        return write_with(sampler, model, np.repeat(SOURCE, 20, axis=0), OPTIONS)

    found = drawn(5)
    words = found[np.cumsum(found == END, axis=1) - (found == END) == 0]
    assert not {PAD, BEGIN, UNKNOWN} & set(words.tolist())
    np.testing.assert_array_equal(found, drawn(5))
    assert (found != drawn(6)).any()
