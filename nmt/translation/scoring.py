"""What models think of translations that are there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmt.decoding.scoring import Scorer
from nmt.subwords import END, Subwords
from nmt.translation.batches import by_length, padded
from tfkfac.errors import InputError


@dataclass(frozen=True)
class PairScore:
    """One pair.

    Args:
        source_ids, target_ids: its subwords, END included; none if a side is blank.
        log_probabilities: of each target subword, END included.
        attention: [target subwords, source subwords].
    """

    source_ids: tuple[int, ...] = ()
    target_ids: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()
    attention: np.ndarray | None = None

    @property
    def log_probability(self) -> float:
        """Of the whole target sentence, natural logarithm."""
        return float(sum(self.log_probabilities))


class PairScorer:
    """Scores sentence pairs, each by itself.

    Args:
        models: one model, or an ensemble, with the same subwords.
        source, target: their subwords.
        batch_size: most pairs at once.
        longest: most subwords on either side.
    """

    def __init__(
        self,
        models: Sequence[Any],
        source: Subwords,
        target: Subwords,
        batch_size: int = 64,
        longest: int = 1000,
    ) -> None:
        self._scorer = Scorer(models)
        self._source, self._target = source, target
        self._batch_size, self._longest = batch_size, longest

    def __call__(
        self, sources: Sequence[str], targets: Sequence[str], first: int = 0
    ) -> list[PairScore]:
        """Scores as many pairs as there are; those with a blank side have no score.

        Args:
            sources, targets: a line each.
            first: number of the first pair, counted from 0, for messages.

        Raises:
            InputError: naming the line, if a sentence is too long.
        """
        rows = list(
            zip(
                self._source.encode_many(sources),
                self._target.encode_many(targets),
                strict=True,
            )
        )
        for place, row in enumerate(rows):
            for name, ids in zip(("source", "target"), row, strict=True):
                if len(ids) > self._longest:
                    raise InputError(
                        f"--{name}: line {first + place + 1} has {len(ids):,} subwords; at most "
                        f"{self._longest:,} can be scored (--max-source)"
                    )
        results = [PairScore()] * len(rows)
        # As long as the longer side. No model has learnt from pairs with a blank side: they have
        # no length, and are left out.
        lengths = [
            max(len(source), len(target)) if source and target else 0 for source, target in rows
        ]
        for batch in by_length(lengths, self._batch_size):
            pairs = [((*rows[i][0], END), (*rows[i][1], END)) for i in batch]
            source, target = (padded([pair[side] for pair in pairs]) for side in (0, 1))
            found = self._scorer(source, target)
            for place, i in enumerate(batch):
                source_ids, target_ids = pairs[place]
                results[i] = PairScore(
                    source_ids,
                    target_ids,
                    tuple(float(p) for p in found.log_probabilities[place, : len(target_ids)]),
                    found.attention[place, : len(target_ids), : len(source_ids)],
                )
        return results
