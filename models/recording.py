"""What happens at the end of an epoch: a line in the log, a line of output, a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule

from models import checkpoint
from models.run_directory import LogRow, Progress, RunDirectory
from tfkfac.errors import TrainingError


@dataclass
class _Clock:
    """Wall-clock and processor time."""

    wall: float
    cpu: float

    @staticmethod
    def now() -> _Clock:
        return _Clock(time.perf_counter(), time.process_time())


class Recorder(keras.callbacks.Callback):
    """Writes log and checkpoints into the run directory; the first rank's callback.

    The checkpoint comes last. If the process dies before it is complete, the epoch counts as not
    run, and a resumed training cuts its line from the log.

    Args:
        run: where to write.
        progress: how far the training has come before.
        rate: learning rate by step.
        epochs: epochs in all, for the line of output.
        say: prints a line for each epoch; None where a progress bar does.
    """

    def __init__(
        self,
        run: RunDirectory,
        progress: Progress,
        rate: LearningRateSchedule,
        epochs: int,
        say: Callable[[str], None] | None,
    ) -> None:
        super().__init__()
        self.progress = progress
        self._run = run
        self._rate = rate
        self._epochs = epochs
        self._say = say
        self._started = time.perf_counter() - progress.total_seconds
        self._epoch_began = self._steps_ended = _Clock.now()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch_began = _Clock.now()

    def on_test_begin(self, logs: Any = None) -> None:  # within fit: an epoch's steps are done
        self._steps_ended = _Clock.now()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        measured = {name: float(value) for name, value in (logs or {}).items()}
        before = self.progress
        now = replace(
            before,
            epoch=epoch + 1,
            seconds=before.seconds + self._steps_ended.wall - self._epoch_began.wall,
            cpu_seconds=before.cpu_seconds + self._steps_ended.cpu - self._epoch_began.cpu,
            total_seconds=time.perf_counter() - self._started,
        )
        step = now.epoch * now.steps_per_epoch
        row = LogRow(
            epoch=now.epoch,
            step=step,
            seconds=round(now.seconds, 3),
            total_seconds=round(now.total_seconds, 3),
            cpu_seconds=round(now.cpu_seconds, 3),
            loss=measured["loss"],
            accuracy=measured["accuracy"],
            val_loss=measured["val_loss"],
            val_accuracy=measured["val_accuracy"],
            learning_rate=float(self._rate(step - 1)),
        )
        self._run.append(row)
        if self._say:
            self._say(
                f"epoch {row.epoch}/{self._epochs}  loss {row.loss:.4f}  "
                f"accuracy {row.accuracy:.4f}  val_loss {row.val_loss:.4f}  "
                f"val_accuracy {row.val_accuracy:.4f}  learning_rate {row.learning_rate:.3g}  "
                f"{now.seconds - before.seconds:.1f} s"
            )
        if not math.isfinite(row.loss):
            raise TrainingError(
                f"the loss is {row.loss} in epoch {row.epoch}; the checkpoints before it are "
                "kept; try a lower learning_rate, or a longer warm-up (warmup_epochs)"
            )
        if row.val_accuracy > now.best_accuracy:
            now = replace(now, best_epoch=now.epoch, best_accuracy=row.val_accuracy)
        checkpoint.save(self.model, self._run.last, now)
        if now.best_epoch == now.epoch:
            checkpoint.copy(self._run.last, self._run.best)
        self.progress = now
