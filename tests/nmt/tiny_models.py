"""Models small enough for finite differences, and a batch for them."""

from typing import Any

import tensorflow as tf

VOCABULARY = 9
SIZES: dict[str, Any] = {"embedding_size": 6, "encoder_layers": 1, "dropout": 0.0}
RNN: dict[str, Any] = {**SIZES, "architecture": "rnn", "encoder_units": 3, "decoder_units": 5}
TRANSFORMER: dict[str, Any] = {
    **SIZES, "architecture": "transformer", "heads": 2, "feed_forward_size": 7,
    "attention_dropout": 0.0, "feed_forward_dropout": 0.0,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "rnn": {**RNN, "tied_embeddings": "all", "decoder_layers": 1},
    "deep rnn": {
        **RNN, "tied_embeddings": "none", "decoder_layers": 2, "layer_normalization": True,
    },
    "transformer": {**TRANSFORMER, "tied_embeddings": "none", "decoder_layers": 2},
    "tied transformer": {**TRANSFORMER, "tied_embeddings": "all", "decoder_layers": 1},
}  # fmt: skip
BATCH = {
    "source": tf.constant([[5, 6, 7, 8, 3], [8, 4, 3, 0, 0], [4, 4, 6, 3, 0]]),
    "target": tf.constant([[4, 5, 6, 3], [7, 3, 0, 0], [8, 8, 3, 0]]),
}
