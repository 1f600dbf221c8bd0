"""Small tasks that a translation model learns in seconds, and the options for it."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path

WORDS = ["ba", "ko", "ti", "mu", "sel", "dor", "pan", "gri", "lo", "xe", "fa", "wim"]
SMALL = [
    *("--config", "tiny-transformer", "--vocabulary-size", "36", "--no-byte-fallback"),
    *("--embedding-size", "64", "--feed-forward-size", "128", "--heads", "2"),
    *("--encoder-layers", "1", "--decoder-layers", "1", "--patience", "null"),
]
SMALL_RNN = [
    *("--config", "tiny-rnn", "--vocabulary-size", "36", "--no-byte-fallback"),
    *("--embedding-size", "48", "--encoder-units", "48", "--decoder-units", "64"),
    *("--patience", "null"),
]


def write_task(
    folder: Path, function: Callable[[list[str]], list[str]], pairs: int = 4000
) -> list[str]:
    """Writes training and validation text of a task; the options of nmt-train for them."""
    generator = random.Random(7)
    options = []
    for name, number in (("", pairs), ("validation_", 40)):
        sides: tuple[list[str], list[str]] = ([], [])
        for _ in range(number):
            words = [generator.choice(WORDS) for _ in range(generator.randint(2, 8))]
            sides[0].append(" ".join(words))
            sides[1].append(" ".join(function(words)))
        for side, lines in zip(("source", "target"), sides, strict=True):
            path = folder / f"{name}{side}.txt"
            path.write_text("".join(f"{line}\n" for line in lines))
            options += [f"--{name}{side}".replace("_", "-"), str(path)]
    return options


def log(model: Path) -> list[dict[str, str]]:
    """The lines of a training's log."""
    with (model / "log.csv").open() as file:
        return list(csv.DictReader(file))
