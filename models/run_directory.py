"""The files of one training: configuration, log and checkpoints; readable without TensorFlow."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

from models import config as configuration
from models.config import TrainingConfig
from tfkfac.errors import InputError
from tfkfac.files import check_new_directory, remove_leftovers, replacing

# The member of a checkpoint (a zip archive) that holds its `Progress`.
PROGRESS = "training.json"


@dataclass(frozen=True)
class Progress:
    """How far a training has come: what a checkpoint holds besides model and optimizer.

    Args:
        epoch: epochs finished.
        steps_per_epoch: steps of each of them.
        ranks: processes it runs on.
        seconds: wall-clock time of training steps; evaluation and saving are left out.
        total_seconds: wall-clock time in all.
        cpu_seconds: processor time of the training steps, over all threads of rank 0.
        best_epoch: the epoch of `best_accuracy`.
        best_accuracy: highest accuracy on the test examples.
    """

    epoch: int
    steps_per_epoch: int
    ranks: int
    seconds: float = 0.0
    total_seconds: float = 0.0
    cpu_seconds: float = 0.0
    best_epoch: int = 0
    best_accuracy: float = -1.0


@dataclass(frozen=True)
class LogRow:
    """One epoch in the log; times as in `Progress`, since the training's beginning.

    `learning_rate` is that of the epoch's last step.
    """

    epoch: int
    step: int
    seconds: float
    total_seconds: float
    cpu_seconds: float
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float


COLUMNS = tuple(LogRow.__dataclass_fields__)


class RunDirectory:
    """The paths of a training's files.

    Args:
        path: the directory; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.log = self.path / "log.csv"
        self.last = self.path / "last.keras"
        self.best = self.path / "best.keras"
        self.kfac_report = self.path / "kfac-report.txt"
        self.tensorboard = self.path / "tensorboard"

    @property
    def _files(self) -> tuple[Path, ...]:
        return self.config, self.log, self.last, self.best, self.kfac_report

    def check_new(self, overwrite: bool) -> None:
        """Raises InputError if a new training here would lose an old one's files."""
        check_new_directory(self.path, overwrite)

    def clear(self) -> None:
        """Creates the directory, or removes what an earlier training left, and nothing else."""
        self.path.mkdir(parents=True, exist_ok=True)
        for file in self._files:
            file.unlink(missing_ok=True)
            remove_leftovers(file)
        shutil.rmtree(self.tensorboard, ignore_errors=True)

    def saved_config(self) -> TrainingConfig:
        """The configuration of the training here.

        Raises:
            InputError: if there is none.
        """
        if not self.config.is_file():
            raise InputError(f"--resume: no training in {self.path} (no {self.config.name})")
        return TrainingConfig(**configuration.read(self.config))

    def progress(self) -> Progress | None:
        """How far the last checkpoint is; None if there is no checkpoint.

        Raises:
            InputError: if the checkpoint is damaged.
        """
        if not self.last.exists():
            return None
        try:
            with zipfile.ZipFile(self.last) as archive:
                return Progress(**json.loads(archive.read(PROGRESS)))
        except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(f"{self.last}: damaged or not a training's ({error})") from error

    def append(self, row: LogRow) -> None:
        """Adds a line to the log, and the header to a new one."""
        new = not self.log.exists()
        with self.log.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(asdict(row))

    def return_to(self, epochs: int) -> None:
        """Drops what came after the first `epochs` epochs: log lines, half-written files."""
        for file in self._files:
            remove_leftovers(file)
        if not self.log.exists():
            return
        lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
        with replacing(self.log) as temporary:
            temporary.write_text("".join(lines[: epochs + 1]), encoding="utf-8")
