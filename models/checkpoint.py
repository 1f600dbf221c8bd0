"""Checkpoints: ordinary Keras model files, with the training's progress as one more member."""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.run_directory import PROGRESS, Progress
from tfkfac.errors import InputError
from tfkfac.files import replacing


def save(model: Any, path: Path, progress: Progress) -> None:
    """Writes model, optimizer state and progress; `path` is always a whole checkpoint.

    The file opens with `keras.models.load_model` too. Progress is part of it, rather than a file
    beside it, so that no interruption can separate the two.
    """
    with replacing(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(PROGRESS, json.dumps(asdict(progress)))


def copy(source: Path, target: Path) -> None:
    """Copies a checkpoint; `target` is always a whole one."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def restore(model: Any, path: Path) -> None:
    """Loads weights and optimizer state into a compiled model whose optimizer is built.

    Raises:
        InputError: if the checkpoint is damaged or of another model or optimizer.
    """
    try:
        with warnings.catch_warnings():
            # Keras would warn, leave what does not fit as it is, and go on.
            warnings.filterwarnings("error", message="Skipping")
            model.load_weights(path)
    except (OSError, KeyError, ValueError, UserWarning, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: does not fit this model and optimizer ({reason})") from error
