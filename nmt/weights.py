"""Weight files: Keras's own (`.weights.h5`), with what a resumption needs as further groups.

A weight file for translation is what `keras.Model.save_weights` writes without an optimizer. A
training's file also holds the optimizer's state, the states of random numbers, which Keras leaves
out, and the training's progress, all in one file, so that no interruption can separate them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tfkfac.errors import InputError
from tfkfac.files import replacing

_OPTIMIZER = "optimizer"  # where Keras puts a compiled model's
_TRAINING = "training"


def save(
    model: Any,
    path: Path,
    progress: Mapping[str, Any] | None = None,
    generators: Sequence[Any] = (),
    copies: Sequence[Path] = (),
) -> None:
    """Writes a training's file; `path` is always a whole one.

    Args:
        model: a `keras.Model`, compiled with its optimizer.
        path: ends in `.weights.h5`.
        progress: whatever the training needs to go on, for JSON.
        generators: seed generators that are not the model's.
        copies: files that receive the weights alone, before `path` changes.

    Raises:
        InputError: if a file cannot be written, as on a full disk.
    """
    with _writing(path, _size(model)) as temporary:
        model.save_weights(temporary)
        with h5py.File(temporary, "a") as file:
            group = file.create_group(_TRAINING)
            for number, state in enumerate(random_states(model, generators)):
                group[f"random/{number}"] = np.asarray(state)
            group.attrs["progress"] = json.dumps(dict(progress or {}))
        for target in copies:
            copy(temporary, target)


def restore(model: Any, path: Path, generators: Sequence[Any] = ()) -> dict[str, Any]:
    """Loads a training's file into a compiled model whose optimizer is built.

    Args:
        model, path, generators: as for `save`.

    Returns:
        The progress given to `save`.

    Raises:
        InputError: if the file is damaged or of another model or optimizer.
    """
    _load(model, path, skipped=[])
    states = random_states(model, generators)
    with _opened(path) as file:
        if _TRAINING not in file:
            raise InputError(f"{path}: holds weights alone, not the state of a training")
        stored = file[_TRAINING].get("random", {})
        if len(stored) != len(states):
            raise InputError(
                f"{path}: holds {len(stored)} states of random numbers, but the model has "
                f"{len(states)}"
            )
        for number, state in enumerate(states):
            state.assign(np.asarray(stored[str(number)]))
    return read_progress(path)


def load(model: Any, path: Path) -> None:
    """Loads weights alone, compiled or not.

    Raises:
        InputError: if the file is missing, damaged or of another model.
    """
    optimizer = getattr(model, "optimizer", None)
    _load(model, path, skipped=[optimizer] if optimizer else [])


def _load(model: Any, path: Path, skipped: Sequence[Any]) -> None:
    _opened(path).close()
    try:
        with warnings.catch_warnings():
            # Keras would warn, leave what does not fit as it is, and go on.
            warnings.filterwarnings("error", message="Skipping")
            model.load_weights(path, objects_to_skip=skipped)
    except (OSError, KeyError, ValueError, UserWarning) as error:
        reason = str(error).strip().splitlines()[0]
        if missing := re.search(r"total of (\d+) objects could not be loaded", reason):
            reason = f"{missing[1]} of its layers are other ones"
        raise InputError(f"{path}: does not fit the model, or is damaged ({reason})") from error


def read_progress(path: Path) -> dict[str, Any]:
    """The progress in a training's file.

    Raises:
        InputError: if the file is damaged or no training's.
    """
    with _opened(path) as file:
        try:
            return json.loads(file[_TRAINING].attrs["progress"])
        except (KeyError, ValueError) as error:
            raise InputError(f"{path}: holds no training's state ({error})") from error


def copy(source: Path, target: Path) -> None:
    """Writes the weights alone of a training's file.

    Raises:
        InputError: if one cannot be read or the other not written.
    """
    with _weights_of(source, target):
        pass


def average(sources: Sequence[Path], target: Path) -> None:
    """Writes the mean of weight files, number by number; what is not a float is the last file's.

    Raises:
        InputError: if one cannot be read, or they are of different models.
    """
    weights = _floats(sources[0])
    sums = {name: value.astype(np.float64) for name, value in weights.items()}
    for path in sources[1:]:
        others = _floats(path)
        if {name: value.shape for name, value in others.items()} != {
            name: value.shape for name, value in sums.items()
        }:
            raise InputError(f"{path}: not of the same model as {sources[0]}")
        for name, value in others.items():
            sums[name] += value
    with _weights_of(sources[-1], target) as result:
        for name, value in sums.items():
            result[name][...] = (value / len(sources)).astype(result[name].dtype)


@contextlib.contextmanager
def _weights_of(source: Path, target: Path) -> Iterator[h5py.File]:
    """A new file with the weights of `source`, to be changed in the block."""
    size = sum(value.nbytes for value in _floats(source).values())
    with (
        _opened(source) as file,
        _writing(target, size) as temporary,
        h5py.File(temporary, "w") as result,
    ):
        for name in file:
            if name not in (_OPTIMIZER, _TRAINING):
                file.copy(name, result)
        yield result


def _floats(path: Path) -> dict[str, np.ndarray]:
    """The weights of a file by name."""
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: Any) -> None:
        own = not name.startswith((f"{_OPTIMIZER}/", f"{_TRAINING}/"))
        if own and isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
            found[name] = item[()]

    with _opened(path) as file:
        file.visititems(visit)
    return found


def random_states(model: Any, generators: Sequence[Any] = ()) -> list[Any]:
    """The states of random numbers: those of the model, which Keras does not save, and others."""
    saved = {id(variable) for variable in model.weights}
    own = [variable for variable in model.variables if id(variable) not in saved]
    return [*own, *(generator.state for generator in generators)]


def _opened(path: Path) -> h5py.File:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: no weight file, or a damaged one ({error})") from error


@contextlib.contextmanager
def _writing(path: Path, size: int) -> Iterator[Path]:
    """As `replacing`, for a file of about `size` bytes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            # HDF5 complains at length when the disk is full: see beforehand.
            with temporary.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
            yield temporary
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"{path}: cannot be written ({reason})") from error


def check_room(model: Any, directory: Path) -> None:
    """Raises InputError if the disk has no room for what a training saves at the very least.

    Args:
        model: compiled, its optimizer built.
        directory: that will hold the files; it need not exist.
    """
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    needed, free = _size(model), shutil.disk_usage(there).free
    if free < needed:
        raise InputError(
            f"{directory}: a checkpoint takes {needed / 1e6:,.1f} MB, but the disk has "
            f"{free / 1e6:,.1f} MB left"
        )


def _size(model: Any) -> int:
    """Bytes of a training's file, at least."""
    variables = [*model.variables, *(model.optimizer.variables if model.optimizer else ())]
    return sum(math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in variables)
