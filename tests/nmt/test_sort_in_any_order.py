"""Sorting where the order is ambiguous: soft alignment learns it, alignment in place does not.

The target holds the source's words sorted, but begun at a word drawn anew for each sentence, from
where it goes around: of "c a d b" any of "a b c d", "b c d a", "c d a b", "d a b c". Once a sample
has begun, its other words follow; compared in place with a reference that began elsewhere, it is
all wrong, and the decoder learns not to heed its own words.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nmt.config import Loss
from nmt.decoding import Decoder, DecodingOptions
from nmt.models import ModelConfig, build_model
from nmt.subwords import END
from nmt.training import objectives
from nmt.training.step import TrainingStep
from tfkfac.ranks import Ranks

VOCABULARY, LENGTH = 12, 4


def pairs(generator, number):
    """Source and target ids, END included."""
    source = generator.integers(4, VOCABULARY, (number, LENGTH))
    begin = generator.integers(0, LENGTH, (number, 1))
    around = (np.arange(LENGTH) + begin) % LENGTH
    target = np.take_along_axis(np.sort(source, axis=1), around, axis=1)
    ends = np.full((number, 1), END)
    return {
        "source": tf.constant(np.hstack([source, ends]), tf.int32),
        "target": tf.constant(np.hstack([target, ends]), tf.int32),
    }


def is_right(source, ids):
    words = np.sort(source).tolist()
    return any(words[k:] + words[:k] == ids for k in range(LENGTH))


def share_of_right_samples(objective):
    """After a short training, drawn word by word from the model's distribution."""
    keras.utils.set_random_seed(1)
    sizes: dict[str, Any] = {
        "embedding_size": 24,
        "encoder_units": 24,
        "decoder_units": 40,
        "dropout": 0.0,
    }
    model = build_model(
        ModelConfig(VOCABULARY, VOCABULARY, "rnn", encoder_layers=1, decoder_layers=1, **sizes)
    )
    optimizer = keras.optimizers.Adam(0.01, global_clipnorm=1.0)
    optimizer.build(model.trainable_variables)
    step = TrainingStep(
        model, optimizer, objectives.build(model, Loss(objective, label_smoothing=0.0)), Ranks()
    )
    generator = np.random.default_rng(1)
    for update in range(1, 201):
        step(pairs(generator, 64), update, 0.01)
    test = pairs(generator, 200)["source"].numpy()
    options = DecodingOptions(beam=1, sample=True, max_length=LENGTH + 2)
    ids = Decoder([model], options)(test).ids[:, 0]
    return np.mean(
        [
            is_right(source[:-1], [int(word) for word in row if word not in (0, END)])
            for source, row in zip(test, ids, strict=True)
        ]
    )


def test_saml_beats_hard_aligned_sampling():
    soft, hard = share_of_right_samples("saml"), share_of_right_samples("saml-hard")
    assert soft > 0.7 and hard < 0.4, (soft, hard)
