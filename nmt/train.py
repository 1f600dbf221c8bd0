"""The command `nmt-train`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from nmt import config_files
from nmt.config import OPTIONS, SECTIONS, Config
from nmt.model_directory import ModelDirectory
from tfkfac import training_command
from tfkfac.command_line import Parser, add_option, exit_code, quiet_tensorflow
from tfkfac.errors import InputError
from tfkfac.options import flag
from tfkfac.ranks import launched_as_first

DESCRIPTION = """\
Train a translation model from two text files, a sentence a line. Options come from a
configuration file and from the command line, which takes precedence. The model directory
receives all that nmt-translate needs: weights, subwords, vocabulary, config.yaml (all options in
effect), and log.csv (a line for each validation)."""
EXAMPLES = """\
examples:
  nmt-train --config tiny-transformer --source train.de --target train.en \\
      --validation-source valid.de --validation-target valid.en --out model
  nmt-train --out model --resume                      continue with the last checkpoint
  nmt-train --config small-rnn --show-config          print a configuration to start from
  horovodrun -np 4 nmt-train --config mine.yaml --out model

configurations that come with it:
  {}"""
# What may differ between a training and its continuation. The text is recognised by its content.
FREE_ON_RESUME = {
    "out", "tensorboard", "source", "target", "validation_source", "validation_target",
    "epochs", "minutes", "patience", "threads", "checkpoint_every", "alignment_lines",
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: those of the command line; default: the process's.

    Returns:
        The exit code: 0, 1 (the loss is no number), 2 (wrong input), or 130 (interrupted).
    """
    return exit_code(lambda: _run(arguments))


def parser() -> Parser:
    """The command's options: those of `Config`, and what to do with a model directory."""
    presets = config_files.preset_names()
    result = training_command.parser("nmt-train", DESCRIPTION, EXAMPLES, presets)
    groups = {}
    for name, section in SECTIONS.items():
        groups[name] = result.add_argument_group(name)
        for option in fields(section):
            add_option(groups[name], OPTIONS[option.name])
    training_command.add_switches(groups["output"], groups["execution"], "model directory")
    groups["output"].add_argument(
        "--show-config",
        action="store_true",
        default=False,
        help="print all options in effect, explained, and stop",
    )
    return result


def effective_config(
    flags: Mapping[str, Any], config_name: str | None, resume: bool = False
) -> Config:
    """The configuration from a file and the command line's options, all defaults filled in.

    Args:
        flags: values by name, not yet converted; they take precedence.
        config_name: a file or the name of one that comes with the package.
        resume: take what neither sets from the training in the model directory.

    Raises:
        InputError: if an option is wrong or missing, or would make a resumed training another one.
    """
    file = config_files.read(config_files.find(config_name)) if config_name else None
    values = config_files.from_flags(flags, file)
    values.drop_what_needs_validation()
    if not resume:
        return values.config(complete=True)
    out = values.values.get("out")
    if out is None:
        raise InputError("--resume: needs --out DIRECTORY, the model directory to continue in")
    saved = ModelDirectory(out).read().config
    if config_name is None:
        saved_values = config_files.read(ModelDirectory(out).config)
        values = config_files.from_flags(flags, saved_values)
    config = values.config(complete=True)
    free = set(FREE_ON_RESUME)
    if config.optimization.schedule not in ("linear", "cosine"):
        free.add("updates")
    training_command.check_continuation(OPTIONS, saved.value, config.value, free, out)
    return config


def _run(arguments: Sequence[str] | None) -> None:
    flags = vars(parser().parse(arguments))
    config_name = flags.pop("config")
    resume, overwrite, show, horovod = (
        flags.pop(name) for name in ("resume", "overwrite", "show_config", "horovod")
    )
    if show:
        file = config_files.read(config_files.find(config_name)) if config_name else None
        print(config_files.text(config_files.from_flags(flags, file).config()), end="")
        return
    training_command.check_switches(resume, overwrite)
    first = launched_as_first(horovod)
    config = effective_config(flags, config_name, resume)
    assert config.output.out is not None  # complete
    directory = ModelDirectory(config.output.out)
    if first and config.data.validation_source is None:
        print("no validation text: no best checkpoint, no early stopping, no plateau", flush=True)
    if first and not resume:
        directory.check_new(overwrite)
    for name in ("source", "target", "validation_source", "validation_target"):
        path = config.value(name)
        if path is not None and (problem := _no_file(Path(path))):
            raise InputError(f"{flag(name)} {path}: {problem}")
    training_command.check_tensorboard(config.output.tensorboard)
    with training_command.interruptible(first, lambda: _what_is_safe(directory)):
        with quiet_tensorflow():  # not before: the import takes seconds
            from nmt.training.run import train
        train(config, resume, horovod)


def _no_file(path: Path) -> str:
    """Why text cannot be read from a path again and again, or nothing."""
    if path.is_file():
        return ""
    if path.is_dir():
        return "a directory, not a file"
    return "a pipe, not a file; it is read several times" if path.exists() else "no such file"


def _what_is_safe(directory: ModelDirectory) -> str:
    if not directory.last.exists():
        return "there is no checkpoint yet"
    from nmt.weights import read_progress

    return (
        f"the checkpoint of update {read_progress(directory.last)['update']} is safe in "
        f"{directory.last}; continue with: nmt-train --out {directory.path} --resume"
    )


if __name__ == "__main__":
    sys.exit(main())
