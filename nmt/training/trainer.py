"""The training loop: updates, validations, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from nmt import weights
from nmt.batching import TokenBatches
from nmt.config import Config
from nmt.model_directory import ModelDirectory
from nmt.schedules import Schedule
from nmt.training import sharing
from nmt.training.log import Log
from nmt.training.objectives import Objective
from nmt.training.progress import Progress
from nmt.training.progress_bar import ProgressBar
from nmt.training.step import TrainingStep
from nmt.training.validation import Measures, Validator
from tfkfac.errors import TrainingError
from tfkfac.ranks import Ranks

# Updates between two looks at the clock that all ranks take together.
_CLOCK_INTERVAL = 20


@dataclass
class Trainer:
    """Trains until a limit is reached; every rank runs one, the first writes the files.

    After each validation and every `checkpoint_every` updates the whole state is saved, in one
    file, last; whatever happens between two such moments counts as not having happened.

    Args:
        config: what to do.
        directory: where to write.
        ranks: this process among others.
        model: compiled with its optimizer, which is built.
        objective: what to minimise.
        batches: this rank's data.
        validator: measures the model; None without validation text.
        log: where to note what is measured.
        bar: shows what goes on.
        say: prints a line.
        progress: how far the training has come.
        signs: what tells this training's data from another's, saved with the progress.
        pictures: draws something after a validation, told its update.
    """

    config: Config
    directory: ModelDirectory
    ranks: Ranks
    model: Any
    objective: Objective
    batches: TokenBatches
    validator: Validator | None
    log: Log
    bar: ProgressBar
    say: Callable[[str], None]
    progress: Progress
    signs: dict[str, int]
    pictures: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        config = self.config
        self._schedule = Schedule.of(config.optimization, config.training.updates)
        self._step = TrainingStep(
            self.model,
            self.model.optimizer,
            self.objective,
            self.ranks,
            optimizer_averages=config.optimization.optimizer == "kfac",
            jit=config.execution.jit,
        )
        self._sums: tf.Tensor = None  # of each term since the last validation: float64 [terms, 2]
        self._trained = False  # since then
        self._tokens_before = 0  # trained on before then
        self._begin_sums(self.progress)
        self._began = time.perf_counter() - self.progress.total_seconds
        self._clock: tuple[float, float] | None = None
        self._speed_since = self.progress.tokens, self.progress.seconds

    def run(self) -> None:
        """Trains to the end, if it has not come already.

        Raises:
            TrainingError: if the loss is no longer a number.
            InputError: if a file cannot be written.
        """
        if (reason := self._limit()) and not self.progress.sums and self._is_averaged():
            self.say(f"already finished: {reason}")
            return
        if self.ranks.is_first:
            self.directory.averaged.unlink(missing_ok=True)
        self.bar.begin(
            "training", self.config.training.updates, self.progress.update, detail="compiling"
        )
        batches = iter(self.batches.dataset(self.progress.epoch, self.progress.step))
        self._start_clock()
        while not (reason := self._limit()):
            self._update(next(batches))
            if self.progress.update % self.config.validation.validate_every == 0:
                self._validate()
            elif self.progress.update % self.config.checkpoints.checkpoint_every == 0:
                self._save()
        if self._trained:
            self._validate()
        self.say(f"finished: {reason}")
        self._average()

    # --- updates ---

    def _update(self, batch: dict[str, tf.Tensor]) -> None:
        before = self.progress
        update = before.update + 1
        rate = self._schedule.rate(update, before.plateau.reductions)
        sums = self._step(batch, update, rate)
        # On the device: nothing waits for a number that nobody looks at.
        self._sums = self._sums + tf.cast(sums, tf.float64)
        self._trained = True
        end = before.step + 1 == len(self.batches)
        self.progress = replace(
            before,
            update=update,
            epoch=before.epoch + end,
            step=0 if end else before.step + 1,
        )
        self.bar.at(update)
        if self.bar.due():
            self.progress = self._measured()
            self.bar.detail(self._state(self.progress))

    def _limit(self) -> str:
        """Why the training is over, or nothing."""
        limits, progress = self.config.training, self.progress
        if progress.update >= limits.updates:
            return f"{limits.updates} updates"
        if limits.epochs is not None and progress.epoch >= limits.epochs:
            return f"{limits.epochs} epochs"
        if progress.stopping.reductions:
            return f"no better validation in {progress.stopping.patience}"
        if limits.minutes is not None and progress.update % _CLOCK_INTERVAL == 0:
            late = self._seconds()[0] >= 60 * limits.minutes
            if self.ranks.from_first(int(late)):
                return f"{limits.minutes:g} minutes"
        return ""

    def _begin_sums(self, progress: Progress) -> None:
        """Goes on with a checkpoint's sums, or from nothing after a validation."""
        sums = [progress.sums.get(name, (0.0, 0.0)) for name in self.objective.terms]
        self._sums = tf.constant(sums, tf.float64)
        self._trained = bool(progress.sums)
        self._tokens_before = progress.tokens - int(sums[0][1])

    def _measured(self) -> Progress:
        """The progress with what the device and the clock say."""
        sums = {
            name: (float(total), float(count))
            for name, (total, count) in zip(self.objective.terms, self._sums.numpy(), strict=True)
        }
        headline = sums[self.objective.terms[0]]
        if not math.isfinite(headline[0]):
            raise TrainingError(
                f"the loss is {headline[0]} at update {self.progress.update}; the checkpoints "
                "before it are kept; try a lower learning_rate, a longer warmup, or clip_norm"
            )
        wall, cpu = self._seconds()
        return replace(
            self.progress,
            sums=sums,
            tokens=self._tokens_before + int(headline[1]),
            seconds=wall,
            cpu_seconds=cpu,
            total_seconds=time.perf_counter() - self._began,
        )

    # --- the clock, which stands still while validating and saving ---

    def _start_clock(self) -> None:
        now = time.perf_counter(), time.process_time()
        done = self.progress
        self._clock = now[0] - done.seconds, now[1] - done.cpu_seconds
        if not self._trained:
            self._speed_since = done.tokens, done.seconds

    def _seconds(self) -> tuple[float, float]:
        """Wall-clock and processor time of all updates."""
        if self._clock is None:
            return self.progress.seconds, self.progress.cpu_seconds
        return time.perf_counter() - self._clock[0], time.process_time() - self._clock[1]

    def _stop_clock(self) -> None:
        self.progress = self._measured()  # waits for the device
        self._clock = None

    # --- validations and checkpoints ---

    def _save(self) -> None:
        self._stop_clock()
        self._write_state([])
        self._start_clock()

    def _write_state(self, copies: list[Any]) -> None:
        if self.ranks.is_first:
            weights.save(
                self.model,
                self.directory.last,
                self.progress.to_dict() | self.signs,
                self.objective.generators,
                copies,
            )

    def _validate(self) -> None:
        """Measures, notes, and saves."""
        self._stop_clock()
        measures = self._measures()
        if self.pictures is not None:
            self.pictures(self.progress.update)
        row = self._row(self.progress, measures)
        if self.ranks.is_first:
            self.log.append(row)
        before = self.progress
        self.progress = self._judged(before, measures)
        best = self.validator is not None and self.progress.best_update == before.update
        self.say(_line(row, best))

        copies = []
        if before.update in dict(self.progress.kept):
            copies.append(self.directory.kept(before.update))
        if best:
            copies.append(self.directory.best)
            if self.ranks.is_first and measures is not None:
                measures.write(self.directory.validation)
        self.progress = replace(self.progress, sums={})
        self._begin_sums(self.progress)
        self._write_state(copies)
        if self.ranks.is_first:
            # Not before the state that no longer needs them is safe.
            kept = {self.directory.kept(update) for update, _ in self.progress.kept}
            for file in set(self.directory.checkpoints.glob("*.weights.h5")) - kept:
                file.unlink()
        self._start_clock()

    def _measures(self) -> Measures | None:
        if self.validator is None:
            return None
        self.bar.detail("validating")
        return self.validator()

    def _judged(self, progress: Progress, measures: Measures | None) -> Progress:
        """The progress after a validation's verdict."""
        number = self.config.checkpoints.average
        if measures is None:
            kept = [*progress.kept, (progress.update, 0.0)]
            return replace(progress, kept=tuple(kept[max(0, len(kept) - number) :]))
        measure = measures.measure(self.config.validation.best_by)
        kept = [*progress.kept, (progress.update, measure)]
        if self.config.checkpoints.average_of == "best":
            kept = sorted(sorted(kept, key=lambda item: -item[1])[:number])
        improved = progress.stopping.best is None or measure > progress.stopping.best
        return replace(
            progress,
            best_update=progress.update if improved else progress.best_update,
            stopping=progress.stopping.after(measure),
            plateau=progress.plateau.after(measure),
            kept=tuple(kept[max(0, len(kept) - number) :]),
        )

    def _average(self) -> None:
        """Writes the mean of the kept weights and measures it."""
        if self._is_averaged():
            return
        files = [self.directory.kept(update) for update, _ in self.progress.kept]
        if self.ranks.is_first:
            weights.average(files, self.directory.averaged)
            weights.load(self.model, self.directory.averaged)
        if self.ranks.size > 1:
            sharing.broadcast(self.model.trainable_variables)
        if self.validator is not None:
            measures = self._measures()
            assert measures is not None
            self.say(f"averaged {len(files)} checkpoints: {measures}")

    def _is_averaged(self) -> bool:
        few = len(self.progress.kept) < 2
        return few or bool(self.ranks.from_first(int(self.directory.averaged.exists())))

    def _row(self, progress: Progress, measures: Measures | None) -> dict[str, Any]:
        rate = self._schedule.rate(progress.update, progress.plateau.reductions)
        row: dict[str, Any] = {
            "update": progress.update,
            "epoch": progress.epoch,
            "tokens": progress.tokens,
            "seconds": round(progress.seconds, 3),
            "total_seconds": round(progress.total_seconds, 3),
            "cpu_seconds": round(progress.cpu_seconds, 3),
            "learning_rate": rate,
        }
        row |= {name: total / count for name, (total, count) in progress.sums.items() if count}
        row |= {"tokens_per_second": round(self._speed(progress))}
        return row | (measures.row() if measures is not None else {})

    def _state(self, progress: Progress) -> str:
        total, count = progress.sums[self.objective.terms[0]]
        return (
            f"loss {total / max(count, 1.0):.3f}  {self._speed(progress):,.0f} tokens/s  "
            f"epoch {progress.epoch + 1}"
        )

    def _speed(self, progress: Progress) -> float:
        """Target words a second since the last validation, or since this process began."""
        tokens, seconds = self._speed_since
        return (progress.tokens - tokens) / max(progress.seconds - seconds, 1e-9)


def _line(row: dict[str, Any], best: bool) -> str:
    """A line of output for a row of the log."""
    hidden = ("tokens", "seconds", "cpu_seconds", "bleu_signature", "chrf_signature")
    shown = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
        if name not in hidden
    ]
    return "  ".join([*shown, *(["best"] if best else [])])
