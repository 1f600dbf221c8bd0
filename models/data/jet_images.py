"""Simulated fat jets as images of 24x24 pixels in three classes, from an .npz file.

The file has `classes`, their names, and for one or more jet definitions NAME `x_NAME`, images of
energy, and `y_NAME`, labels.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from models.data.examples import ExampleDataset, InMemory
from tfkfac.errors import InputError

TEST_FRACTION = 0.2
FLOOR = 1e-5  # energies below it are as good as none
EXPECTED = "classes, and x_NAME (N x H x W) with y_NAME (N labels) for a jet definition NAME"


def network_inputs(images: np.ndarray) -> np.ndarray:  # N x H x W -> N x H x W x 1
    """Logarithms of the energies, about 0 to 3: they spread over three decades."""
    return np.log10(1 + images[..., np.newaxis] / FLOOR).astype(np.float32)


def load(path: str | Path, definition: str = "fixedr") -> ExampleDataset:
    """The jets, the last fifth of the file for testing.

    Args:
        path: the .npz file.
        definition: which jets: the NAME of `x_NAME`.

    Raises:
        InputError: if the file is missing, damaged or of another form.
    """
    path = Path(path)
    images, labels = _read(path, definition)
    last = len(labels) - int(TEST_FRACTION * len(labels))
    parts = slice(None, last), slice(last, None)
    train, test = (InMemory(images[p], labels[p], network_inputs) for p in parts)
    return ExampleDataset(str(path), train, test)


def _read(path: Path, definition: str) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an .npz file with {EXPECTED}")
    names = f"x_{definition}", f"y_{definition}", "classes"
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("no zip archive")
        with np.load(path, allow_pickle=False) as archive:
            held = archive.files
            parts = {name: archive[name] for name in names if name in held}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path}: damaged or not an .npz file ({error}); expected {EXPECTED}"
        ) from error
    if missing := [name for name in names if name not in parts]:
        raise InputError(
            f"{path}: has no {', '.join(missing)}, only {', '.join(held)}; expected {EXPECTED}"
        )
    images, labels, classes = (parts[name] for name in names)
    if images.ndim != 3 or not np.issubdtype(images.dtype, np.floating) or len(images) < 2:
        raise InputError(
            f"{path}: {names[0]} is {images.dtype} of shape {images.shape}; "
            "expected floats of shape (N, H, W)"
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{path}: {names[1]} is {labels.dtype} of shape {labels.shape}; "
            f"expected integers of shape ({len(images)},)"
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise InputError(
            f"{path}: {names[1]} has labels from {labels.min()} to {labels.max()}; "
            f"expected 0 to {len(classes) - 1}"
        )
    return images, labels.astype(np.int32)
