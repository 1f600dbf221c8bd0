"""Translation: German to English, by the Transformer of `nmt`, decoded by its own search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.data import parallel_text
from models.data.dataset import Shard
from models.workloads.workload import Size, Workload, needs_path, settings
from nmt import metrics
from nmt.decoding import DecodingOptions
from nmt.decoding.decoder import SIGNATURE, Decoder
from nmt.losses import SmoothedCrossEntropy
from nmt.models import ModelConfig, build_model
from nmt.subwords import PAD

SEED = 1
SMOOTHING = 0.1


def _grammar(
    train: int, test: int, vocabulary: int, length: int
) -> Callable[[Path | None, Path | None], parallel_text.ParallelText]:
    def data(path: Path | None, cache: Path | None) -> parallel_text.ParallelText:
        if path is not None:
            return parallel_text.from_files(path, vocabulary, length, cache)
        return parallel_text.from_grammar(train, test, SEED, vocabulary, length, cache)

    return data


def _files(
    vocabulary: int, length: int
) -> Callable[[Path | None, Path | None], parallel_text.ParallelText]:
    def data(path: Path | None, cache: Path | None) -> parallel_text.ParallelText:
        folder = needs_path("translation", path, parallel_text.EXPECTED)
        return parallel_text.from_files(folder, vocabulary, length, cache)

    return data


def _transformer(vocabulary: int, **options: Any) -> Callable[[], keras.Model]:
    config = ModelConfig(
        source_vocabulary=vocabulary,
        target_vocabulary=vocabulary,
        tied_embeddings="all",
        **options,
    )
    return lambda: build_model(config)


def _translations(model: Any, inputs: Any) -> Any:  # -> N x length
    """The most probable word each time, at most as many as a row holds."""
    length = inputs["source"].shape[1]
    decoder = Decoder([model], DecodingOptions(beam=1, max_length=length))
    # Its loops drop sentences that are done: the batch must not have a fixed size.
    search = tf.function(decoder.search, input_signature=SIGNATURE, autograph=False)
    words = search(inputs["source"], tf.zeros([0, 0, 0]))["words"][:, 0]  # N x at most length
    rest = [[0, 0], [0, length - tf.shape(words)[1]]]
    return tf.ensure_shape(tf.pad(words, rest, constant_values=PAD), [None, length])


def _bleu(references: np.ndarray, translations: np.ndarray) -> float:
    return metrics.scores(list(translations), [list(references)], ("bleu",))[0].value


@dataclass(frozen=True)
class TranslationWorkload(Workload):
    """A workload whose `measure` compares text, since subwords are no words."""

    def predictions(
        self, model: keras.Model, data: Any, batch_size: int, shard: Shard | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """References and translations as text, detokenised; see `Workload.predictions`.

        Args:
            data: a `ParallelText`.
        """
        both = super().predictions(model, data, batch_size, shard)
        text = data.target_subwords.decode
        references, translations = (np.array([text(row) for row in ids]) for ids in both)
        return references, translations


WORKLOADS = {
    "translation": TranslationWorkload(
        "translation",
        "translation, Transformer",
        "Vaswani et al., NIPS 2017",
        metric="BLEU",
        higher_is_better=True,
        chance=0.0,
        measure=_bleu,
        loss=SmoothedCrossEntropy(SMOOTHING),
        outputs=_translations,
        sizes={
            "tiny": Size(
                _transformer(
                    600,
                    embedding_size=64,
                    encoder_layers=1,
                    decoder_layers=1,
                    heads=4,
                    feed_forward_size=128,
                    dropout=0.0,
                ),
                _grammar(4000, 100, 600, 32),
                32,
                8,
                settings(3e-3, 0.5, kl_clip=0.01),
                7.0,
            ),
            "small": Size(
                _transformer(
                    1000,
                    embedding_size=64,
                    encoder_layers=2,
                    decoder_layers=2,
                    heads=4,
                    feed_forward_size=256,
                    dropout=0.0,
                ),
                _grammar(8000, 200, 1000, 28),
                32,
                5,
                settings(3e-3, 0.5, kl_clip=0.01),
                60.0,
            ),
            "reference": Size(
                _transformer(
                    32_000,
                    embedding_size=512,
                    encoder_layers=6,
                    decoder_layers=6,
                    heads=8,
                    feed_forward_size=2048,
                    dropout=0.1,
                ),
                _files(32_000, 100),
                256,
                20,
                settings(5e-4, 0.1, kl_clip=0.01),
                generated=False,
            ),
        },
    )
}
