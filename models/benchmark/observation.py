"""What is watched while a network trains: steps, losses, qualities, and whether to stop."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from models.averaging import BatchNormAverage
from models.benchmark.mllog import Log
from models.benchmark.power import Energy
from models.benchmark.record import Evaluation
from models.benchmark.stopwatch import Stopwatch
from models.data.dataset import Shard
from models.workloads import Workload
from tfkfac.ranks import Ranks

WARM_UP_STEPS = 5  # the first ones trace, allocate and choose algorithms


@dataclass(frozen=True)
class Speed:
    """Of the steps after the warm-up.

    Attributes:
        warm_up_steps, timed_steps: how many were left out and how many count.
        samples_per_second: None where no step counts, as the others.
        median, longest: seconds of a step.
    """

    warm_up_steps: int
    timed_steps: int
    samples_per_second: float | None = None
    median: float | None = None
    longest: float | None = None


def speed(seconds: Sequence[float], batch_size: int) -> Speed:
    """The speed that the durations of all steps, in their order, amount to.

    Of a training of ten steps or fewer half are warm-up.

    >>> speed([9.0, 9.0, 1.0, 3.0], batch_size=6)
    Speed(warm_up_steps=2, timed_steps=2, samples_per_second=3.0, median=2.0, longest=3.0)
    """
    warm_up = min(WARM_UP_STEPS, (len(seconds) + 1) // 2)
    timed = seconds[warm_up:]
    if not timed:
        return Speed(warm_up, 0)
    rate = batch_size * len(timed) / math.fsum(timed)
    return Speed(warm_up, len(timed), rate, statistics.median(timed), max(timed))


@dataclass
class Observer(keras.callbacks.Callback):
    """Times steps, evaluates after each epoch, and ends the training at its target.

    Attributes:
        workload, data: what is trained on what.
        batch_size: of a rank.
        target: of the quality; None trains for all epochs.
        watch: the trial's clock.
        ranks: this process among others; all of them evaluate their share.
        log: of events.
        say: prints a line of progress.
        epochs: for those lines.
        history: one entry an epoch, so far.
        seconds: of each step, input included, evaluation not.
        energy: at the last evaluation.
        diverged: why the training was given up, or None.
    """

    workload: Workload
    data: Any
    batch_size: int
    target: float | None
    watch: Stopwatch
    ranks: Ranks
    log: Log
    say: Callable[[str], None]
    epochs: int
    history: list[Evaluation] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    energy: Energy | None = None
    diverged: str | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self._shard = Shard(self.ranks.rank, self.ranks.size)
        share = getattr(self.data, "training_share", None)  # a stream of files has none
        self._training_share = share() if share is not None else None
        self._last = 0.0

    def reached(self, quality: float | None) -> bool:
        """Whether a quality is as good as the target."""
        if self.target is None or quality is None:
            return False
        return quality == self.target or self.workload.better(quality, self.target)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.log.start("epoch_start", epoch_num=epoch + 1)
        self._last = self.watch.now()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # Numbers, not tensors: they are there when the step is done, on a GPU too.
        losses = [float(value) for value in (logs or {}).values()]
        now = self.watch.now()
        self.seconds.append(now - self._last)
        self._last = now
        if self.ranks.size == 1 and not all(map(math.isfinite, losses)):
            self.model.stop_training = True  # on_epoch_end says why

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.log.stop("epoch_stop", epoch_num=epoch + 1)
        loss = self._mean_over_ranks(_loss(logs or {}))
        if not math.isfinite(loss):
            self.give_up(f"the loss is {loss} after {len(self.seconds)} steps", epoch)
            return
        if self.ranks.size > 1:
            average = BatchNormAverage()
            average.set_model(self.model)
            average.on_test_begin()
        self.log.start("eval_start", epoch_num=epoch + 1)
        quality = self._quality(self.data)
        self.log.stop("eval_stop", epoch_num=epoch + 1)
        self.log.point("eval_accuracy", quality, epoch_num=epoch + 1)
        reading = self.watch.read()
        with self.watch.paused():
            training_quality = None
            if self._training_share is not None:
                training_quality = self._quality(self._training_share)
        self._note(epoch, reading.seconds, quality, loss, training_quality, reading.energy)
        # One rank decides: sums may differ between ranks.
        if self.ranks.from_first(int(self.reached(quality))):
            self.model.stop_training = True
        if self.model.stop_training or epoch + 1 == self.epochs:
            self._end(success=self.target is None or self.reached(quality))

    def give_up(self, why: str, epoch: int) -> None:
        """Ends a training that has diverged; there is nothing to evaluate."""
        self.diverged = f"diverged: {why}"
        reading = self.watch.read()
        self._note(epoch, reading.seconds, None, None, None, reading.energy)
        self.model.stop_training = True
        self._end(success=False)

    def _end(self, success: bool) -> None:
        self.log.stop("run_stop", status="success" if success else "aborted")

    def _note(
        self,
        epoch: int,
        seconds: float,
        quality: float | None,
        loss: float | None,
        training_quality: float | None,
        energy: Energy,
    ) -> None:
        self.energy = energy
        entry = Evaluation(
            epoch + 1, len(self.seconds), seconds, quality, loss, training_quality, energy.joules
        )
        self.history.append(entry)
        shown = "no number" if quality is None else f"{quality:.4f}"
        self.say(
            f"epoch {entry.epoch}/{self.epochs}  {self.workload.metric} {shown}  "
            f"loss {math.nan if loss is None else loss:.4f}  {seconds:.1f} s"
        )

    def _quality(self, data: Any) -> float | None:
        """Over all ranks' shares; None where it is no number."""
        targets, outputs = self.workload.predictions(self.model, data, self.batch_size, self._shard)
        if self.ranks.size > 1:
            import horovod.tensorflow as hvd

            shares = hvd.allgather_object((targets, outputs))
            targets, outputs = (np.concatenate(part) for part in zip(*shares, strict=True))
        quality = float(self.workload.measure(targets, outputs))
        return quality if math.isfinite(quality) else None

    def _mean_over_ranks(self, value: float) -> float:
        if self.ranks.size == 1:
            return value
        import horovod.tensorflow as hvd

        return float(np.mean(hvd.allgather_object(value)))


def _loss(logs: dict[str, Any]) -> float:
    """The mean loss of an epoch: Keras's, or the sum of those of networks that train together."""
    values = {name: float(value) for name, value in logs.items()}
    if "loss" in values and (values["loss"] != 0 or len(values) == 1):
        return values["loss"]
    return math.fsum(value for name, value in values.items() if name.endswith("loss"))
