"""The log of a training: log.csv, a line for each validation, and TensorBoard's events."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfkfac.errors import InputError
from tfkfac.files import replacing

BEFORE = ("update", "epoch", "tokens", "seconds", "total_seconds", "cpu_seconds", "learning_rate")
AFTER = (
    "validation_loss", "perplexity", "bleu", "chrf", "bleu_signature", "chrf_signature",
)  # fmt: skip


class Log:
    """A CSV file whose lines are numbered by update.

    Columns: update, epoch (finished ones), tokens (target words trained on), seconds (of updates),
    total_seconds (with validation and saving), cpu_seconds, learning_rate (of the last update),
    the means of the objective's terms and the target words trained on a second, both since the
    line before, and, measured on the validation text, the cross-entropy of a word without label
    smoothing (in nats), its exponential, sacreBLEU and chrF with their signatures.

    Args:
        path: the file; it need not exist.
        terms: names of the objective's terms.
        tensorboard: directory for TensorBoard's events, or None.
    """

    def __init__(self, path: Path, terms: Sequence[str], tensorboard: Path | None = None) -> None:
        self._path = path
        self.columns = (*BEFORE, *terms, "tokens_per_second", *AFTER)
        self._writer: Any = None
        if tensorboard is not None:
            import tensorflow as tf

            self._writer = tf.summary.create_file_writer(str(tensorboard))

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a line; columns without a value stay empty.

        Raises:
            InputError: if it cannot be written.
        """
        try:
            new = not self._path.exists()
            with self._path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns, lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise InputError(f"{self._path}: cannot be written ({reason})") from error
        if self._writer is not None:
            self._write_events(row)

    def _write_events(self, row: Mapping[str, Any]) -> None:
        import tensorflow as tf

        with self._writer.as_default(step=row["update"]):
            for name, value in row.items():
                if isinstance(value, (int, float)) and name != "update":
                    group = "validation" if name in AFTER else "training"
                    tf.summary.scalar(f"{group}/{name.removeprefix('validation_')}", value)
        self._writer.flush()

    def return_to(self, update: int) -> None:
        """Drops the lines after an update, and one that is not complete."""
        if not self._path.exists():
            return
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [
            line for line in lines[1:] if line.endswith("\n") and int(line.split(",")[0]) <= update
        ]
        with replacing(self._path) as temporary:
            temporary.write_text("".join([*lines[:1], *kept]), encoding="utf-8")
