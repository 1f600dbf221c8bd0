"""A decoder, search and all, as a SavedModel of TensorFlow's own operations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from nmt.decoding.decoder import Decoder
from nmt.decoding.options import DecodingOptions
from nmt.models.interface import TranslationModel

NOTHING_DRAWN = (1, 0, 0)  # the shape of the random numbers of a search that draws none


def save(models: Sequence[TranslationModel], options: DecodingOptions, path: Path) -> None:
    """Writes a SavedModel that decodes batches of any size and length.

    Its signature `serving_default` maps `source`, int32 [batch, S], rows ending with END, then PAD,
    to the tensors below, with T the longest length that the options allow:

        ids                 int32 [batch, n_best, T], each hypothesis with its END, then PAD
        lengths             int32 [batch, n_best], END included; 0 where there is no hypothesis
        scores              float32 [batch, n_best], best first, as `DecodingOptions` defines them
        log_probabilities   float32 [batch, n_best, T], of each subword
        attention           float32 [batch, n_best, T, S], if the options ask for it

    Args:
        models: one model, or an ensemble.
        options: of a search; it draws nothing at random.
        path: the directory to be made.

    Raises:
        ValueError: if the options ask for samples.
    """
    if options.sample:
        raise ValueError("a search is exported, not a sampler")
    decoder = Decoder(models, options)

    def decode(source: tf.Tensor) -> dict[str, tf.Tensor]:
        found = decoder.search(source, tf.zeros(NOTHING_DRAWN))
        found["ids"] = found.pop("words")
        return found

    source = tf.TensorSpec([None, None], tf.int32, name="source")
    module = tf.Module()
    # TensorFlow's own variables: of Keras's it would save each twice.
    module.weights = [variable.value for model in models for variable in model.variables]
    module.decode = tf.function(decode, input_signature=[source], autograph=False)
    tf.saved_model.save(module, str(path), signatures=module.decode)
