"""Batches of sentence pairs of similar length, bounded by tokens, in an order that can resume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nmt.buckets import Buckets
from nmt.corpus import EncodedPairs, Sequences
from nmt.subwords import END, PAD
from tfkfac.errors import InputError

Batch = dict[str, np.ndarray]


class TokenBatches:
    """The batches of a corpus, epoch after epoch.

    A batch is {"source": batch x S, "target": batch x T}, int32; each row is a sentence, END and
    PADs. Neither array has more than `tokens` positions, padding included. The number of rows
    follows from (S, T), except in one smaller batch of an epoch.

    The order depends on (seed, epoch) alone, so that `batches(epoch, step)` continues exactly
    where an interrupted training stopped. With several ranks each step takes one batch for each
    rank, all with the same S and T; together the ranks see every pair once in an epoch.

    Args:
        pairs: the corpus.
        tokens: positions of a batch, on each side and rank.
        seed: of the order, from 0 to 2**64 - 1.
        shuffle: whether order and batches are drawn anew for each epoch; otherwise all epochs are
            alike.
        shapes: the most different (S, T). More of them pad less; fewer compile faster where every
            shape is compiled on its own, as by XLA.
        rank, ranks: this process among those of a distributed training.

    Raises:
        InputError: if a sentence with its END is longer than `tokens`, or there are fewer pairs
            than ranks.
    """

    def __init__(
        self,
        pairs: EncodedPairs,
        tokens: int,
        seed: int = 0,
        shuffle: bool = True,
        shapes: int = 64,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if not 0 <= rank < ranks:
            raise ValueError(f"rank {rank} is not one of {ranks} ranks")
        if len(pairs) < ranks:
            raise InputError(f"{len(pairs)} sentence pairs are too few for {ranks} ranks")
        lengths = np.stack([pairs.source.lengths, pairs.target.lengths], axis=1) + 1  # END
        longest = int(lengths.max())
        if longest > tokens:
            raise InputError(
                f"a batch of {tokens} tokens is too small for a sentence of {longest - 1} "
                f"subwords and its end; use at least {longest}, or leave long sentences out"
            )
        self._pairs = pairs
        self._seed = seed
        self._shuffle = shuffle
        self._rank = rank
        self._ranks = ranks
        self._buckets = Buckets(lengths, tokens, ranks, shapes)
        self._steps = self._buckets.steps
        self._tokens = int(lengths.sum())
        self._drawn: tuple[int, list[np.ndarray], np.ndarray] | None = None

    def __len__(self) -> int:
        """Steps in each epoch, on every rank."""
        return len(self._steps)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """The different (S, T) that occur, in order."""
        return sorted({(step.source, step.target) for step in self._steps})

    @property
    def padding(self) -> float:
        """Share of an epoch's positions, both sides together, that hold PAD."""
        positions = sum(step.pairs * (step.source + step.target) for step in self._steps)
        return 1 - self._tokens / positions

    def rows(self, epoch: int, step: int) -> np.ndarray:
        """The numbers of the pairs in a batch of this rank: int64, batch."""
        members, order = self._members(epoch)
        return members[order[step]][self._rank :: self._ranks]

    def batches(self, epoch: int = 0, step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from `step` on.

        Raises:
            ValueError: unless 0 <= step <= the epoch's steps.
        """
        if not 0 <= step <= len(self):
            raise ValueError(f"step {step} is not one of {len(self)}")
        for number in range(step, len(self)):
            _, order = self._members(epoch)
            shape = self._steps[order[number]]
            rows = self.rows(epoch, number)
            yield {
                "source": padded(self._pairs.source, rows, shape.source),
                "target": padded(self._pairs.target, rows, shape.target),
            }

    def endless(self, epoch: int = 0, step: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from `step` on, and of all epochs that follow."""
        while True:
            yield from self.batches(epoch, step)
            epoch, step = epoch + 1, 0

    def dataset(self, epoch: int = 0, step: int = 0, endless: bool = True) -> Any:
        """`endless` or `batches` as a tf.data.Dataset that prepares batches ahead."""
        import tensorflow as tf  # not before: the import takes seconds

        generate = self.endless if endless else self.batches
        side = tf.TensorSpec([None, None], tf.int32)
        dataset = tf.data.Dataset.from_generator(
            lambda: generate(epoch, step), output_signature={"source": side, "target": side}
        )
        return dataset.prefetch(tf.data.AUTOTUNE)

    def _members(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        """The pairs of all steps, as in `self._steps`, and the order of the steps."""
        if self._drawn is None or self._drawn[0] != epoch:
            pairs, order = np.arange(len(self._pairs)), np.arange(len(self))
            if self._shuffle:
                bits = np.random.Philox(key=self._seed + (epoch << 64))
                pairs, order = _permutation(bits, len(pairs)), _permutation(bits, len(order))
            self._drawn = epoch, self._buckets.fill(pairs), order
        return self._drawn[1:]


def _permutation(bits: np.random.Philox, size: int) -> np.ndarray:
    """0 ... size - 1 in random order. NumPy promises the bits' stream for ever, no shuffle's."""
    return np.argsort(bits.random_raw(size), kind="stable")


def padded(sequences: Sequences, rows: np.ndarray, width: int) -> np.ndarray:
    """Sequences as rows of one array, each followed by END and PADs.

    Args:
        sequences: shorter than `width`.
        rows: numbers of the sequences.
        width: columns.

    Returns:
        int32, rows x width.
    """
    starts = sequences.offsets[rows]
    lengths = sequences.offsets[rows + 1] - starts
    columns = np.arange(width)
    inside = columns < lengths[:, np.newaxis]
    result = np.full((len(rows), width), PAD, np.int32)
    result[inside] = sequences.ids[(starts[:, np.newaxis] + columns)[inside]]
    result[np.arange(len(rows)), lengths] = END
    return result
