"""The models that a command works with: its options for them, and loading."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.model_directory import ModelDirectory, load_model
from nmt.subwords import Subwords
from tfkfac.command_line import Parser, add_option, quiet_tensorflow
from tfkfac.errors import InputError
from tfkfac.options import COUNT, TEXT, from_flags, option


@dataclass(frozen=True)
class ModelOptions:
    """Which models to work with, and how."""

    checkpoint: str | None = option(
        TEXT,
        None,
        "best, last, averaged, or a file of weights; without: the best one, or the last one after "
        "a training without validation",
    )
    batch_size: int = option(COUNT, 64, "most sentences at once; results do not depend on it")
    max_source: int = option(
        COUNT, 1000, "source subwords beyond so many are left off, with a warning"
    )
    threads: int | None = option(COUNT, None, "processor threads; without: all processors")


def add_options(parser: Parser, leave_out: Collection[str] = ()) -> None:
    """Adds `--model` and the options above, except those left out, to a command."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        nargs="+",
        metavar="DIR",
        help="model directory made by nmt-train; several are an ensemble, with the same subwords",
    )
    for known in dataclasses.fields(ModelOptions):
        if known.name not in leave_out:
            add_option(group, known)


@dataclass(frozen=True)
class Models:
    """Models that were chosen, and not yet loaded: that takes TensorFlow, which takes seconds.

    Args:
        directories: of the models, at least one.
        options: how to work with them.
        source, target: the subwords of all of them.
        max_source: source subwords that the models can read.
    """

    directories: tuple[Path, ...]
    options: ModelOptions
    source: Subwords
    target: Subwords
    max_source: int

    @classmethod
    def of(cls, flags: Mapping[str, Any]) -> Models:
        """Those of a command line.

        Raises:
            InputError: if one is no model directory, or they do not go together.
        """
        options = from_flags(ModelOptions, flags)
        directories = tuple(Path(path) for path in flags.get("model", ()))
        if not directories:
            raise InputError("--model: missing; give the directory of a trained model")
        contents = [ModelDirectory(path).read() for path in directories]
        for path in directories:
            ModelDirectory(path).weights(options.checkpoint)
        for path, other in zip(directories, contents, strict=True):
            for side in ("source", "target"):
                if getattr(other, side).model != getattr(contents[0], side).model:
                    raise InputError(
                        f"--model: {path} has other {side} subwords than {directories[0]}; an "
                        "ensemble needs the same (train with --init-from, or on the same text)"
                    )
        first = contents[0]
        readable = [other.longest for other in contents if other.longest is not None]
        longest = min([options.max_source, *readable])
        return cls(directories, options, first.source, first.target, longest)

    def load(self) -> tuple[Any, ...]:
        """The models, with their weights.

        Raises:
            InputError: if a file of weights is damaged.
        """
        with quiet_tensorflow():
            import tensorflow as tf
        if self.options.threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(self.options.threads)
            tf.config.threading.set_inter_op_parallelism_threads(self.options.threads)
        return tuple(load_model(path, self.options.checkpoint)[0] for path in self.directories)


def cut_warnings(first: int, cuts: Sequence[int], limit: int) -> list[str]:
    """A warning for each line of which something was left off; `first` counts from 0."""
    return [
        f"warning: line {first + place + 1}: {limit + cut:,} subwords, cut to {limit:,} "
        "(--max-source)"
        for place, cut in enumerate(cuts)
        if cut
    ]
