"""Generated examples on disk: made once, checked whenever they are read, remade when damaged.

A file is named after what it holds and a hash of everything that it was made from. It is written
aside and renamed, and carries a digest of its arrays.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tfkfac.files import remove_leftovers, replacing

DIGEST = "digest"

Arrays = dict[str, np.ndarray]


def default_directory() -> Path:
    """Where generated examples are kept: `tfkfac` in the user's folder for caches."""
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "tfkfac"


def cached(
    directory: Path | None, name: str, made_from: Mapping[str, object], make: Callable[[], Arrays]
) -> Arrays:
    """The arrays that `make` returns, from disk if they are there and intact.

    A full or read-only disk costs the next run its time, and this one nothing.

    Args:
        directory: where files are; made if missing. None: no file is read or written.
        name: what the file's name begins with.
        made_from: all that the arrays depend on, as JSON knows it: sizes, seed, the generator's
            version. Another value anywhere is another file.
        make: makes the arrays, by name; `digest` is no name.

    Example:

    >>> cached(None, "noise", {"seed": 0}, lambda: {"x": np.zeros(2)})["x"]
    array([0., 0.])
    """
    if directory is None:
        return make()
    path = directory / f"{name}-{_hash(made_from)}.npz"
    if path.exists():
        try:
            return _read(path)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            print(f"{path}: damaged ({error}); making it anew", file=sys.stderr)
    arrays = make()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        with replacing(path) as temporary:
            np.savez(temporary, **{DIGEST: digest(arrays)}, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        print(f"{path}: cannot be written ({error}); going on without it", file=sys.stderr)
    return arrays


def _hash(made_from: Mapping[str, object]) -> str:
    text = json.dumps(made_from, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """32 bytes that depend on names, types, shapes and values."""
    hashed = hashlib.blake2b(digest_size=32)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        hashed.update(f"{name} {array.dtype.str} {array.shape}".encode())
        hashed.update(array.reshape(-1).view(np.uint8).data)
    return np.frombuffer(hashed.digest(), np.uint8)


def _read(path: Path) -> Arrays:
    """Raises ValueError, or what NumPy does, unless the file is as it was written."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    stored = arrays.pop(DIGEST)
    if not np.array_equal(stored, digest(arrays)):
        raise ValueError("its digest is another")
    return arrays
