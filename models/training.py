"""A training from its configuration to its checkpoints."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models import addons, checkpoint, optimizers, resnet
from models import config as configuration
from models.config import CIFAR_MODELS, TrainingConfig
from models.data.dataset import Dataset, Shard
from models.recording import Recorder
from models.run_directory import Progress, RunDirectory
from tfkfac import ranks as processes
from tfkfac.errors import InputError
from tfkfac.files import replacing
from tfkfac.ranks import Ranks

# What the readers' checks and TensorFlow's decoders say of damaged data.
_DAMAGED_IMAGE = ("neither JPEG nor PNG", "image/class/label outside", "JPEG", "PNG")


def train(config: TrainingConfig, resume: bool = False, horovod: bool = False) -> None:
    """Trains as configured and leaves log, checkpoints and configuration in the run directory.

    Args:
        config: what to do.
        resume: continue with the last checkpoint in the run directory, if there is one; otherwise
            an earlier training's files there are removed.
        horovod: join other processes even where horovodrun has not started this one.

    Raises:
        InputError: if data or options do not fit.
        TrainingError: if the loss is no longer a number.
    """
    config = config.resolved()
    ranks = processes.start(horovod)
    if ranks.size > 1:
        _check_for_several_ranks(config, ranks)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(config.precision)
    try:
        _train(config, resume, ranks)
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        if (damaged := _damaged_data(error, config)) is not None:
            raise damaged from error
        raise
    finally:
        keras.mixed_precision.set_global_policy(policy)


def _train(config: TrainingConfig, resume: bool, ranks: Ranks) -> None:
    assert config.out is not None  # resolved() fills it in
    run = RunDirectory(config.out)
    say: Callable[[str], None] = _print if ranks.is_first else _keep_silent
    data = load_data(config)
    shard = Shard(ranks.rank, ranks.size)
    steps = data.steps_per_epoch(config.batch_size, shard)
    if config.steps_per_epoch is not None:
        steps = min(steps, config.steps_per_epoch)
    if steps % config.steps_per_execution:
        raise InputError(
            f"steps_per_execution {config.steps_per_execution} does not divide the {steps} steps "
            "of an epoch"
        )

    rate = optimizers.learning_rate(config, steps, ranks.size)
    model = build_model(config, data)
    model.compile(
        optimizer=optimizers.build(config, rate, steps),
        loss=_loss(config),
        metrics=["accuracy"],
        jit_compile=config.jit,
        steps_per_execution=config.steps_per_execution,
    )
    # On every rank, or they would broadcast different lists of variables when one resumes.
    model.optimizer.build(model.trainable_variables)

    progress = Progress(epoch=0, steps_per_epoch=steps, ranks=ranks.size)
    if ranks.is_first:
        if resume:
            progress = _resumed(run, model, progress)
            run.return_to(progress.epoch)
        else:
            run.clear()
        _write_config(run, config)
    first_epoch = ranks.from_first(progress.epoch)
    say(
        f"{model.name} on {config.dataset}: {_trainable(model):,} trainable parameters, "
        f"{steps} steps of {config.batch_size * ranks.size} an epoch, {config.optimizer}, "
        f"in {run.path}"
    )
    if first_epoch >= config.epochs:
        say(f"already finished: epoch {first_epoch} of {config.epochs}")
        return
    if resume:
        say(f"resuming with epoch {first_epoch + 1} of {config.epochs}")

    progress_bar = ranks.is_first and sys.stdout.isatty() and config.progress == "keras"
    callbacks: list[Any] = []
    if ranks.size > 1:
        from models.averaging import BatchNormAverage
        from tfkfac.rank_callbacks import BroadcastVariables, MetricAverage, StallWatchdog

        callbacks += [
            BroadcastVariables(),
            BatchNormAverage(),
            MetricAverage(),
            StallWatchdog(),
        ]
    callbacks += addons.callbacks(config, ranks)
    lines = None if progress_bar or config.progress == "tqdm" else say
    recorder = Recorder(run, progress, rate, config.epochs, lines)
    if ranks.is_first:
        callbacks.append(recorder)
        if config.tensorboard:
            callbacks.append(keras.callbacks.TensorBoard(run.tensorboard))

    model.fit(
        _targets(data.training(config.batch_size, config.seed, first_epoch, shard), config, data),
        validation_data=_targets(data.evaluation(config.batch_size, shard), config, data),
        steps_per_epoch=steps,
        initial_epoch=first_epoch,
        epochs=config.epochs,
        callbacks=callbacks,
        shuffle=False,
        verbose=1 if progress_bar else 0,
    )
    if ranks.is_first:
        _write_kfac_report(run, model)
        best = recorder.progress
        say(
            f"best val_accuracy {best.best_accuracy:.4f} in epoch {best.best_epoch}; "
            f"{run.best} and {run.last} written"
        )


def load_data(config: TrainingConfig) -> Dataset:
    """The configured data set.

    Raises:
        InputError: if its files are missing or wrong.
    """
    # Each reader is imported for its own data set alone: their libraries differ.
    if config.dataset == "digits":
        from models.data import digits

        return digits.load()
    if config.dataset == "cifar10":
        from models.data import cifar10

        return cifar10.load(config.data)
    from models.data import imagenet

    return imagenet.load(config.data)


def build_model(config: TrainingConfig, data: Dataset) -> Any:
    """The configured network, a `keras.Model`, for the data's images and classes."""
    name = config.model_name
    options: dict[str, Any] = {
        "input_shape": data.input_shape,
        "classes": data.classes,
        "zero_gamma": config.zero_gamma,
    }
    if name not in CIFAR_MODELS:
        options["stride_in_3x3"] = config.stride_in_3x3
    return getattr(resnet, name)(**options)


def _check_for_several_ranks(config: TrainingConfig, ranks: Ranks) -> None:
    if config.optimizer != "kfac":
        raise InputError(
            f"optimizer {config.optimizer} does not average gradients over ranks, and there are "
            f"{ranks.size}; use optimizer kfac, or one rank"
        )
    if config.jit:
        raise InputError(f"jit: XLA cannot compile Horovod's operations; {ranks.size} ranks")
    if config.dataset == "cifar10" and config.data is None:
        raise InputError("cifar10 on several ranks needs --data FILE.npz: all would download it")


def _resumed(run: RunDirectory, model: Any, fresh: Progress) -> Progress:
    """Restores the last checkpoint, if there is one, and returns how far it is."""
    progress = run.progress()
    if progress is None:
        return fresh
    for what in ("steps_per_epoch", "ranks"):
        if getattr(progress, what) != getattr(fresh, what):
            raise InputError(
                f"--resume: {run.last} has {what} {getattr(progress, what)}, but this training "
                f"has {getattr(fresh, what)}"
            )
    checkpoint.restore(model, run.last)
    return progress


def _loss(config: TrainingConfig) -> Any:
    if config.label_smoothing:
        return keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config.label_smoothing
        )
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _targets(batches: tf.data.Dataset, config: TrainingConfig, data: Dataset) -> tf.data.Dataset:
    """Labels as the loss takes them: Keras smooths one-hot targets only."""
    if not config.label_smoothing:
        return batches
    return batches.map(lambda images, labels: (images, tf.one_hot(labels, data.classes)))


def _write_config(run: RunDirectory, config: TrainingConfig) -> None:
    versions = {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }
    with replacing(run.config) as temporary:
        temporary.write_text(configuration.text(config, versions), encoding="utf-8")


def _write_kfac_report(run: RunDirectory, model: Any) -> None:
    """Which layers were preconditioned, and why the others were not."""
    optimizer = model.optimizer
    if isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer):  # mixed_float16
        optimizer = optimizer.inner_optimizer
    if hasattr(optimizer, "report"):
        with replacing(run.kfac_report) as temporary:
            temporary.write_text(f"{optimizer.report()}\n", encoding="utf-8")


def _trainable(model: Any) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def _damaged_data(error: Any, config: TrainingConfig) -> InputError | None:
    """TensorFlow's complaint about damaged data as one line; None if it is about something else."""
    lines = [line.strip() for line in str(error.message).splitlines() if line.strip()]
    damaged = isinstance(error, tf.errors.DataLossError)
    reason = " ".join(lines) if damaged else ""
    for line in lines:
        if any(sign in line for sign in _DAMAGED_IMAGE):
            reason = line
            break
    return InputError(f"{config.data}: {reason}") if reason else None


def _print(line: str) -> None:
    print(line, flush=True)


def _keep_silent(line: str) -> None:
    pass
