"""Sentences in batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nmt.subwords import PAD

# A batch of long sentences has fewer of them: at most so many positions, padding included.
POSITIONS = 8192


def by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """The numbers of the sentences that are not empty, longest first, at most `size` at once."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if lengths[i] == 0:
            break
        full = len(batch) == size
        if batch and (full or (len(batch) + 1) * lengths[batch[0]] > POSITIONS):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Rows of ids as one array, int32 [rows, longest], PAD behind the shorter ones."""
    result = np.full((len(rows), max(len(row) for row in rows)), PAD, np.int32)
    for place, row in enumerate(rows):
        result[place, : len(row)] = row
    return result
