"""A training from its configuration to its model directory."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nmt import weights
from nmt.batching import TokenBatches
from nmt.config import Config
from nmt.corpus import EncodedPairs
from nmt.model_directory import Contents, ModelDirectory, write_text
from nmt.models import build_model
from nmt.schedules import Plateau
from nmt.subwords import Subwords
from nmt.training import objectives, optimizers, preparation, sharing
from nmt.training.log import Log
from nmt.training.pictures import AlignmentPictures
from nmt.training.progress import Progress
from nmt.training.progress_bar import ProgressBar
from nmt.training.trainer import Trainer
from nmt.training.validation import Validator
from tfkfac import ranks as processes
from tfkfac.errors import InputError
from tfkfac.ranks import Ranks

# What a checkpoint's data must have in common with a training that continues it.
_SAME = ("ranks", "batches", "text")


def train(config: Config, resume: bool = False, horovod: bool = False) -> None:
    """Trains as configured and leaves a model directory.

    Args:
        config: what to do; complete.
        resume: continue with the last checkpoint in the directory, if there is one; otherwise an
            earlier training's files there are removed.
        horovod: join other processes even where horovodrun has not started this one.

    Raises:
        InputError: if text or options do not fit, or a file cannot be written.
        TrainingError: if the loss is no longer a number.
    """
    ranks = processes.start(horovod)
    if ranks.size > 1 and config.execution.jit:
        raise InputError(f"jit: XLA cannot compile Horovod's operations; {ranks.size} ranks")
    if config.execution.threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(config.execution.threads)
        tf.config.threading.set_inter_op_parallelism_threads(config.execution.threads)
    if config.execution.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.training.seed)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.execution.precision)
    try:
        with ProgressBar(ranks.is_first) as bar:
            _train(config, resume, ranks, bar)
    finally:
        keras.config.set_dtype_policy(policy)


def _train(config: Config, resume: bool, ranks: Ranks, bar: ProgressBar) -> None:
    assert config.output.out is not None  # Config.complete sees to it
    directory = ModelDirectory(config.output.out)
    say: Callable[[str], None] = _print if ranks.is_first else _keep_silent

    bar.begin("learning subwords")
    contents = _contents(config, directory, resume, ranks)
    config = contents.config
    bar.begin("reading pairs")
    pairs, report = preparation.training_pairs(contents, bar.at)
    say(f"training text: {report}")
    batches = TokenBatches(
        pairs,
        config.training.batch_tokens,
        config.training.seed,
        rank=ranks.rank,
        ranks=ranks.size,
    )
    model = build_model(contents.model_config)
    if config.training.init_from is not None and not resume:
        weights.load(model, ModelDirectory(config.training.init_from).weights())
    optimizer = optimizers.build(config.optimization, config.execution.precision)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer=optimizer)
    objective = objectives.build(model, config.loss)
    validator = None
    if config.data.validation_source is not None:
        bar.begin("reading validation text")
        validator = Validator(contents, model, ranks)
    pictures = None
    if config.validation.alignment_lines is not None and ranks.is_first:
        pictures = AlignmentPictures(contents, model, directory.alignments)

    signs = {"ranks": ranks.size, "batches": len(batches), "text": preparation.fingerprint(pairs)}
    progress = _fresh(config)
    if ranks.is_first:
        if not resume:
            weights.check_room(model, directory.path)
            directory.create(contents, _versions())
        else:
            directory.remove_leftovers()
            directory.write_config(contents, _versions())
            progress = _resumed(directory, model, objective.generators, progress, signs)
        Log(directory.log, objective.terms).return_to(progress.update)
    if ranks.size > 1:
        sharing.begin_alike(model, objective.generators, ranks)
        progress = Progress.from_dict(sharing.from_first(progress.to_dict()))
    say(_summary(config, model, batches, pairs, ranks))
    if progress.update:
        say(f"resuming after update {progress.update} of {config.training.updates}")
    events = config.output.tensorboard and ranks.is_first
    trainer = Trainer(
        config,
        directory,
        ranks,
        model,
        objective,
        batches,
        validator,
        Log(directory.log, objective.terms, directory.tensorboard if events else None),
        bar,
        say,
        progress,
        signs,
        pictures,
    )
    trainer.run()
    if ranks.is_first:
        _write_kfac_report(directory, optimizer)


def _contents(config: Config, directory: ModelDirectory, resume: bool, ranks: Ranks) -> Contents:
    """The first rank's subwords on every rank."""
    made = None
    if ranks.is_first:
        if resume:
            saved = directory.read()
            made = Contents(config, saved.source, saved.target)
        else:
            made = preparation.new_contents(config)
    if ranks.size == 1:
        assert made is not None
        return made
    sent = None
    if made is not None:
        joint = made.source is made.target
        sent = made.config, made.source.model, None if joint else made.target.model
    config, source, target = sharing.from_first(sent)
    first = Subwords(source)
    return Contents(config, first, first if target is None else Subwords(target))


def _fresh(config: Config) -> Progress:
    patience = config.validation.patience or sys.maxsize
    return Progress(
        stopping=Plateau(patience), plateau=Plateau(config.optimization.plateau_patience)
    )


def _resumed(
    directory: ModelDirectory,
    model: Any,
    generators: Any,
    fresh: Progress,
    signs: dict[str, int],
) -> Progress:
    """Restores the last checkpoint, if there is one, and returns how far it is."""
    if not directory.last.exists():
        return fresh
    saved = weights.restore(model, directory.last, generators)
    for name in _SAME:
        if saved.get(name) != signs[name]:
            raise InputError(
                f"--resume: {directory.last} belongs to a training with {name} "
                f"{saved.get(name)}, but this one has {signs[name]}"
                + ("; was the training text changed?" if name != "ranks" else "")
            )
    progress = Progress.from_dict({name: saved[name] for name in fresh.to_dict()})
    if progress.stopping.patience != fresh.stopping.patience:
        # More patience than before, or less: it begins anew.
        stopping = dataclasses.replace(fresh.stopping, best=progress.stopping.best)
        progress = dataclasses.replace(progress, stopping=stopping)
    return progress


def _summary(
    config: Config, model: Any, batches: TokenBatches, pairs: EncodedPairs, ranks: Ranks
) -> str:
    parameters = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    several = f" on each of {ranks.size} ranks" if ranks.size > 1 else ""
    return (
        f"{config.model.architecture}: {parameters:,} parameters, {config.optimization.optimizer}; "
        f"{len(pairs):,} pairs in {len(batches):,} batches of at most "
        f"{config.training.batch_tokens:,} tokens{several}, {batches.padding:.1%} padding; "
        f"in {config.output.out}"
    )


def _versions() -> dict[str, str]:
    names = ("tensorflow", "keras", "numpy", "sentencepiece", "sacrebleu")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **versions}


def _write_kfac_report(directory: ModelDirectory, optimizer: Any) -> None:
    """Which layers were preconditioned, and why the others were not."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    if hasattr(optimizer, "report"):
        write_text(directory.kfac_report, f"{optimizer.report()}\n")


def _print(line: str) -> None:
    print(line, flush=True)


def _keep_silent(line: str) -> None:
    pass
