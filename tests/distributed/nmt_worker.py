"""What each rank of `test_nmt_ranks` runs: a short training of a translation model.

The same training in a single process takes both ranks' batches as one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from nmt.batching import TokenBatches
from nmt.train import main
from tests.nmt.tasks import SMALL, write_task

RANKS = 2


def arguments(folder: Path) -> list[str]:
    """Those of nmt-train; the text is written to the folder."""
    options = [*SMALL, *write_task(folder, sorted, pairs=301), "--dropout", "0"]
    options += ["--optimizer", "sgd", "--optimizer-options", "momentum=0.9", "--clip-norm", "0.5"]
    options += ["--learning-rate", "0.3", "--schedule", "constant", "--warmup", "0"]
    options += ["--batch-tokens", "256", "--updates", "12", "--validate-every", "6"]
    return [*options, "--beam", "2"]


class UnionOfRanks(TokenBatches):
    """The batches of all ranks, each step's as one."""

    def __init__(self, pairs: Any, tokens: int, *others: Any, **options: Any) -> None:
        options |= {"ranks": RANKS}
        super().__init__(pairs, tokens, *others, **options | {"rank": 0})
        self._each = [
            TokenBatches(pairs, tokens, *others, **options | {"rank": rank})
            for rank in range(RANKS)
        ]

    def dataset(self, epoch: int = 0, step: int = 0, endless: bool = True) -> Any:
        def unions() -> Iterator[dict[str, tf.Tensor]]:
            for parts in zip(
                *(batches.endless(epoch, step) for batches in self._each), strict=True
            ):
                yield {
                    side: tf.constant(np.concatenate([part[side] for part in parts]))
                    for side in ("source", "target")
                }

        return unions()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
