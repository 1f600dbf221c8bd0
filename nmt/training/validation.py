"""What a model is worth on held-out text: cross-entropy, sacreBLEU and chrF."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from nmt import metrics
from nmt.batching import TokenBatches
from nmt.corpus import Filters, encode_pairs, read_pairs
from nmt.decoding import DecodingOptions
from nmt.model_directory import Contents, write_text
from nmt.training.objectives import word_loss
from nmt.translation.translator import Translator
from tfkfac.ranks import Ranks


@dataclass(frozen=True)
class Measures:
    """What one validation found.

    Args:
        loss: cross-entropy of a word, END included, without label smoothing, in nats.
        bleu: sacreBLEU of the detokenised translations, 0 to 100.
        chrf: chrF, 0 to 100.
        bleu_signature, chrf_signature: how the two were computed.
        translations: what was compared.
    """

    loss: float
    bleu: float
    chrf: float
    bleu_signature: str
    chrf_signature: str
    translations: tuple[str, ...]

    def measure(self, name: str) -> float:
        """The measure called "bleu", "chrf" or "loss"; more is better, so the loss is negative."""
        return -self.loss if name == "loss" else getattr(self, name)

    def row(self) -> dict[str, float | str]:
        """For the log."""
        return {
            "validation_loss": self.loss,
            "perplexity": math.exp(min(self.loss, 700.0)),
            "bleu": self.bleu,
            "chrf": self.chrf,
            "bleu_signature": self.bleu_signature,
            "chrf_signature": self.chrf_signature,
        }

    def write(self, path: Path) -> None:
        """Writes the translations, a line each."""
        write_text(path, "".join(f"{text}\n" for text in self.translations))

    def __str__(self) -> str:
        return f"validation_loss {self.loss:.4g}  bleu {self.bleu:.4g}  chrf {self.chrf:.4g}"


class Validator:
    """Measures a model on the configured validation text, of which each rank takes its share.

    Args:
        contents: configuration and subwords.
        model: the model to measure.
        ranks: this process among others.

    Raises:
        InputError: if the text cannot be read.
    """

    def __init__(self, contents: Contents, model: Any, ranks: Ranks) -> None:
        config = contents.config
        assert config.data.validation_source is not None  # checked by the caller
        assert config.data.validation_target is not None
        files = Path(config.data.validation_source), Path(config.data.validation_target)
        # All of it counts, as long as the model can read it.
        readable = contents.longest or 10**9
        filters = Filters(readable)
        pairs, _ = encode_pairs(*files, contents.source, contents.target, filters)
        longest = 1 + int(max(pairs.source.lengths.max(), pairs.target.lengths.max()))
        tokens = max(config.training.batch_tokens, longest)
        self._batches = TokenBatches(
            pairs, tokens, shuffle=False, rank=ranks.rank, ranks=ranks.size
        )
        text = list(read_pairs(*files))
        self._sources = [source for source, _ in text]
        self._references = [target for _, target in text]
        options = DecodingOptions(
            beam=config.validation.beam, length_penalty=config.validation.length_penalty
        )
        self._translator = Translator(
            [model], contents.source, contents.target, options, max_source=readable
        )
        self._lowercase = config.validation.lowercase
        self._ranks = ranks
        self._model = model
        side = tf.TensorSpec([None, None], tf.int32)
        signature = [{"source": side, "target": side}]
        self._word_loss = tf.function(self._batch_loss, input_signature=signature)

    def __call__(self) -> Measures:
        """Measures the model as it is now; all ranks must call this, and get the same."""
        ranks = self._ranks
        own = self._translator(self._sources[ranks.rank :: ranks.size], first=0)
        translations = self._gathered([translation.text for translation in own])
        bleu, chrf = metrics.scores(
            translations, [self._references], ("bleu", "chrf"), self._lowercase
        )
        return Measures(
            self._loss(),
            bleu.value,
            chrf.value,
            bleu.signature,
            chrf.signature,
            tuple(translations),
        )

    def _batch_loss(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        term = word_loss(batch["target"], self._model(batch, training=False))
        return tf.stack([tf.cast(term.total, tf.float64), tf.cast(term.count, tf.float64)])

    def _loss(self) -> float:
        sums = tf.zeros([2], tf.float64)
        for batch in self._batches.batches():
            sums += self._word_loss(batch)
        if self._ranks.size > 1:
            import horovod.tensorflow as hvd

            sums = hvd.allreduce(sums, name="nmt_validation", op=hvd.Sum)
        total, count = sums.numpy()
        return float(total / count)

    def _gathered(self, own: Sequence[str]) -> list[str]:
        """The translations of all ranks in the order of the text."""
        if self._ranks.size == 1:
            return list(own)
        import horovod.tensorflow as hvd

        shares = hvd.allgather_object(list(own), name="nmt_translations")
        result = [""] * len(self._sources)
        for rank, share in enumerate(shares):
            result[rank :: self._ranks.size] = share
        return result
