"""From sentences to translations: subwords, batches of similar length, decoding, text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nmt.decoding import Decoder, DecodingOptions, Hypotheses
from nmt.models import TranslationModel
from nmt.subwords import END, Subwords
from nmt.translation.batches import by_length, padded


@dataclass(frozen=True)
class Hypothesis:
    """One translation of a sentence.

    Args:
        ids: target subwords, END included.
        text: detokenised.
        score: by which hypotheses are ranked; see `DecodingOptions`.
        log_probabilities: of each subword, END included.
        attention: [subwords, source subwords], both with END; None unless asked for.
    """

    ids: tuple[int, ...]
    text: str
    score: float
    log_probabilities: tuple[float, ...]
    attention: np.ndarray | None = None

    @property
    def log_probability(self) -> float:
        """Of the whole translation."""
        return float(sum(self.log_probabilities))


@dataclass(frozen=True)
class Translation:
    """The translations of one sentence.

    Args:
        source_ids: its subwords, END included; nothing for a blank line.
        hypotheses: best first; none for a blank line.
        cut: subwords that the longest source left off, 0 as a rule.
    """

    source_ids: tuple[int, ...]
    hypotheses: tuple[Hypothesis, ...]
    cut: int = 0

    @property
    def text(self) -> str:
        """The best translation; empty for a blank line."""
        return self.hypotheses[0].text if self.hypotheses else ""


class Translator:
    """Translates sentences, each by itself: the result depends on no other, nor on the batch.

    Args:
        models: one model, or an ensemble, with the same subwords.
        source, target: their subwords.
        options: of decoding.
        batch_size: most sentences in a batch.
        max_source: source subwords beyond so many are left off.
        jit: compile decoding with XLA.

    Raises:
        InputError: if the models' vocabularies differ.
    """

    def __init__(
        self,
        models: Sequence[TranslationModel],
        source: Subwords,
        target: Subwords,
        options: DecodingOptions,
        batch_size: int = 64,
        max_source: int = 1000,
        jit: bool = False,
    ) -> None:
        self._decoder = Decoder(models, options, jit)
        self._source, self._target = source, target
        self._batch_size, self._max_source = batch_size, max_source

    def __call__(self, texts: Sequence[str], first: int = 0) -> list[Translation]:
        """Translates sentences.

        Args:
            texts: one line each; blank ones have no translation.
            first: number of the first of them, on which its samples depend.
        """
        encoded = self._encode(texts)
        rows = [row for row, _ in encoded]
        results = [Translation((), ())] * len(texts)
        for batch in by_length([len(row) for row in rows], self._batch_size):
            source = padded([rows[i] for i in batch])
            found = self._decoder(source, np.array([first + i for i in batch], np.int64))
            for place, i in enumerate(batch):
                hypotheses = self._hypotheses(found, place, rows[i])
                results[i] = Translation(rows[i], hypotheses, cut=encoded[i][1])
        return results

    def _encode(self, texts: Sequence[str]) -> list[tuple[tuple[int, ...], int]]:
        """The subwords of each sentence with END, and how many of them were left off."""
        most = self._max_source
        return [
            ((*ids[:most], END) if ids else (), max(0, len(ids) - most))
            for ids in self._source.encode_many(texts)
        ]

    def _hypotheses(
        self, found: Hypotheses, place: int, source: tuple[int, ...]
    ) -> tuple[Hypothesis, ...]:
        result = []
        for rank, length in enumerate(found.lengths[place]):
            if length == 0:
                continue
            ids = tuple(int(number) for number in found.ids[place, rank, :length])
            attention = None
            if found.attention is not None:
                attention = found.attention[place, rank, :length, : len(source)]
            result.append(
                Hypothesis(
                    ids,
                    self._target.decode(ids),
                    float(found.scores[place, rank]),
                    tuple(float(p) for p in found.log_probabilities[place, rank, :length]),
                    attention,
                )
            )
        return tuple(result)
