"""How far a training has come: what a checkpoint holds besides weights and optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nmt.schedules import Plateau


@dataclass(frozen=True)
class Progress:
    """The state of a training between two updates.

    Args:
        update: updates made.
        epoch: epochs finished.
        step: batches of the epoch that were used; with `epoch`, the position in the data.
        tokens: target words trained on, END included, over all ranks.
        seconds: wall-clock time of updates; validation and saving are left out.
        total_seconds: wall-clock time in all.
        cpu_seconds: processor time of updates, over all threads of the first rank.
        sums: sum and count of each of the objective's terms since the last validation.
        best_update: the update of the best validation.
        stopping: whether validation still improves, for early stopping.
        plateau: likewise, for the learning rate.
        kept: update and measure of the validations whose weights are kept for averaging.
    """

    update: int = 0
    epoch: int = 0
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    total_seconds: float = 0.0
    cpu_seconds: float = 0.0
    sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    best_update: int = 0
    stopping: Plateau = Plateau(1)
    plateau: Plateau = Plateau(1)
    kept: tuple[tuple[int, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """The inverse of `to_dict`, after JSON."""
        return cls(
            **{
                **values,
                "sums": {name: (total, count) for name, (total, count) in values["sums"].items()},
                "stopping": Plateau(**values["stopping"]),
                "plateau": Plateau(**values["plateau"]),
                "kept": tuple((update, measure) for update, measure in values["kept"]),
            }
        )
