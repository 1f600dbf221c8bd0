"""The command `models-train`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from models import config as configuration
from models.config import OPTIONS, TrainingConfig
from models.run_directory import RunDirectory
from tfkfac import training_command
from tfkfac.command_line import Parser, add_option, exit_code, quiet_tensorflow
from tfkfac.ranks import launched_as_first

DESCRIPTION = """\
Train a reference network. Options come from a configuration file and from the
command line, which takes precedence. The run directory receives config.yaml (all
options in effect), log.csv (a line an epoch; times in seconds since the beginning)
and the checkpoints last.keras and best.keras."""
EXAMPLES = """\
examples:
  models-train                             a few seconds on scikit-learn's digits
  models-train --config cifar10-resnet20-kfac --data cifar10.npz --out runs/kfac
  models-train --out runs/kfac --resume    continue with the last checkpoint
  horovodrun -np 4 models-train --config imagenet-resnet50-paper-kfac --data DIR

configurations that come with it:
  {}"""
GROUPS = {
    "data": "data and network",
    "optimizer": "optimizer",
    "schedule": "learning rate",
    "kfac": "K-FAC (ignored by the other optimizers)",
    "training": "training",
    "execution": "execution",
    "output": "output",
}
# What may differ between a training and its continuation.
FREE_ON_RESUME = {"out", "data", "tensorboard", "time_limit", "progress"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: those of the command line; default: the process's.

    Returns:
        The exit code: 0, 1 (the loss is no number), 2 (wrong input), or 130 (interrupted).
    """
    return exit_code(lambda: _run(arguments))


def parser() -> Parser:
    """The command's options: those of `TrainingConfig`, and what to do with a run directory."""
    presets = configuration.preset_names()
    result = training_command.parser("models-train", DESCRIPTION, EXAMPLES, presets)
    groups = {name: result.add_argument_group(title) for name, title in GROUPS.items()}
    for option in OPTIONS.values():
        add_option(groups[option.metadata["group"]], option)
    training_command.add_switches(groups["output"], groups["execution"], "run directory")
    return result


def effective_config(
    options: Mapping[str, Any], config_name: str | None, resume: bool
) -> TrainingConfig:
    """The configuration from a file and the command line's options, all defaults filled in.

    Args:
        options: values by name, not yet converted; they take precedence.
        config_name: a file or the name of one that comes with the package.
        resume: take what neither sets from the training in the run directory.

    Raises:
        InputError: if an option is wrong, or would make a resumed training another one.
    """
    flags = {
        name: configuration.convert(name, value, f"--{name.replace('_', '-')}")
        for name, value in options.items()
    }
    file = configuration.read(configuration.find(config_name)) if config_name else {}
    config = TrainingConfig(**{**file, **flags}).resolved()
    if not resume:
        return config
    out = config.out
    assert out is not None  # resolved() fills it in
    saved = RunDirectory(out).saved_config()
    if config_name is None:
        values = {name: getattr(saved, name) for name in OPTIONS}
        config = TrainingConfig(**{**values, **flags, "out": out})
    free = FREE_ON_RESUME | ({"epochs"} if config.schedule in ("step", "constant") else set())
    training_command.check_continuation(
        OPTIONS,
        lambda name: getattr(saved, name),
        lambda name: getattr(config, name),
        free,
        out,
    )
    return config


def _run(arguments: Sequence[str] | None) -> None:
    options = vars(parser().parse(arguments))
    config_name = options.pop("config")
    resume, overwrite, horovod = (options.pop(name) for name in ("resume", "overwrite", "horovod"))
    training_command.check_switches(resume, overwrite)
    first = launched_as_first(horovod)
    config = effective_config(options, config_name, resume)
    assert config.out is not None  # resolved() fills it in
    run = RunDirectory(config.out)
    if first and not resume:
        run.check_new(overwrite)
    training_command.check_tensorboard(config.tensorboard)
    with training_command.interruptible(first, lambda: _what_is_safe(run)):
        with quiet_tensorflow():  # not before: the import takes seconds
            from models.training import train
        train(config, resume, horovod)


def _what_is_safe(run: RunDirectory) -> str:
    progress = run.progress()
    if progress is None:
        return "no epoch was finished, so there is no checkpoint"
    return (
        f"the checkpoint of epoch {progress.epoch} is safe in {run.last}; "
        f"continue with: models-train --out {run.path} --resume"
    )


if __name__ == "__main__":
    sys.exit(main())
