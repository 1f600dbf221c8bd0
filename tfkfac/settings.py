"""The arguments of `KFAC`: which values they take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfkfac import factors, plan
from tfkfac.placement import PLACEMENTS


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments of `KFAC` that stay what they are, under the same names.

    Raises:
        ValueError: One of them is out of its range.
    """

    factor_decay: float
    kl_clip: float | None
    method: str
    debias: bool
    weight_sharing: str
    max_factor_size: int | None
    oversized: str
    elementwise: str
    factor_dtype: str | None
    kl_clip_learning_rate: float | None
    placement: str
    gradient_worker_fraction: float
    balance: str
    refresh_above: int | None
    gradient_compression: str | None
    factor_compression: str | None
    communication: str

    def __post_init__(self) -> None:
        for option, choices in {
            "method": ("eigen", "inverse"),
            "weight_sharing": (factors.EXPAND, factors.REDUCE),
            "oversized": (plan.DIAGONAL, plan.BLOCKS),
            "elementwise": ("diagonal", "plain"),
            "factor_dtype": (None, "float32", "float64"),
            "placement": PLACEMENTS,
            "balance": ("time", "memory"),
            "communication": ("auto", "horovod", "none"),
            "gradient_compression": (None, "float16"),
            "factor_compression": (None, "float16"),
        }.items():
            _check_choice(option, getattr(self, option), choices)
        check_range("factor_decay", self.factor_decay, 0 <= self.factor_decay < 1, "in [0, 1)")
        fraction = self.gradient_worker_fraction
        check_range("gradient_worker_fraction", fraction, 0 < fraction <= 1, "in (0, 1]")
        for option in ("kl_clip", "kl_clip_learning_rate"):
            value = getattr(self, option)
            check_range(option, value, value is None or value > 0, "positive, or None")
        for option in ("max_factor_size", "refresh_above"):
            value = getattr(self, option)
            check_range(option, value, value is None or value >= 1, "at least 1")
        if self.refresh_above is not None and self.method != "eigen":
            raise ValueError('KFAC: refresh_above works with method="eigen" only')


def check_scheduled(base_values: Mapping[str, Any]) -> None:
    """Checks damping and intervals, as far as they are numbers.

    Raises:
        ValueError: One of them is out of its range.
    """
    for option, value in base_values.items():
        if callable(value):
            continue
        if option == "damping":
            check_range(option, value, value > 0, "positive")
        else:
            whole = int(value) == value and value >= 1
            check_range(option, value, whole, "a whole number of at least 1")


def check_range(option: str, value: Any, valid: bool, expected: str) -> None:
    """Raises ValueError, unless `valid`."""
    if not valid:
        raise ValueError(f"KFAC: {option} must be {expected}; got {value!r}")


def _check_choice(option: str, value: Any, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"KFAC: {option} must be one of {', '.join(map(repr, choices))}; got {value!r}"
        )
