"""CosmoFlow's original files: TFRecords of particle counts and parameters, compressed or not."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from models.data.cosmology import log_counts
from models.data.tfrecord import only_record, read_record, record_extents
from tfkfac.errors import InputError

GZIP = b"\x1f\x8b"


class CosmoFlowRecords:
    """Universes in TFRecord files, as `Examples`.

    An example has `x`, the bytes of side x side x side x redshifts int16 counts, and `y`, the
    parameters scaled to [-1, 1]. Inputs are log(1 + counts). Compressed files are taken to hold one
    example each, as MLPerf HPC's do.

    Args:
        directory: its `*.tfrecord` files are read.
        shape: of the counts.
        parameters: how many there are.

    Raises:
        InputError: if there are no files, or one is damaged; reading raises it, too, for examples
            of another form.
    """

    def __init__(
        self,
        directory: Path,
        shape: Sequence[int] = (128, 128, 128, 4),
        parameters: int = 4,
    ) -> None:
        self._shape = tuple(shape)
        self._parameters = parameters
        paths = sorted(directory.glob("*.tfrecord"))
        if not paths:
            raise InputError(f"{directory}: no files *.tfrecord")
        # path, offset and length; offset and length are those of the whole compressed file
        self._records: list[tuple[str, int, int]] = []
        for path in paths:
            with open(path, "rb") as file:
                compressed = file.read(2) == GZIP
            if compressed:
                self._records.append((str(path), -1, 0))
            else:
                self._records += [(str(path), *extent) for extent in record_extents(str(path))]
        if not self._records:
            raise InputError(f"{directory}: its TFRecord files hold no records")

    def __len__(self) -> int:
        return len(self._records)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log(1 + counts), N x side x side x side x redshifts, and parameters, N x 4."""
        counts = np.empty((len(indices), *self._shape), np.int16)
        parameters = np.empty((len(indices), self._parameters), np.float32)
        for place, number in enumerate(indices):
            counts[place], parameters[place] = self._example(*self._records[number])
        return log_counts(counts), parameters

    def _example(self, path: str, offset: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        try:
            if offset < 0:
                with gzip.open(path) as unpacked:
                    record = only_record(unpacked.read(), path)
            else:
                record = read_record(path, offset, length)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: damaged ({error})") from error
        try:
            features = tf.train.Example.FromString(record).features.feature
        except Exception as error:  # protobuf's DecodeError, which has no public name
            raise InputError(f"{path}: records are no tf.train.Example ({error})") from error
        if missing := [name for name in ("x", "y") if name not in features]:
            raise InputError(
                f"{path}: examples have no {', '.join(missing)}, only {', '.join(sorted(features))}"
            )
        stored = features["x"].bytes_list.value
        size = 2 * int(np.prod(self._shape))
        if len(stored) != 1 or len(stored[0]) != size:
            found = len(stored[0]) if stored else 0
            raise InputError(
                f"{path}: x has {found} bytes; expected {size}, int16 of shape {self._shape}"
            )
        parameters = np.array(features["y"].float_list.value, np.float32)
        if parameters.shape != (self._parameters,):
            raise InputError(
                f"{path}: y has {len(parameters)} numbers; expected {self._parameters}"
            )
        return np.frombuffer(stored[0], "<i2").reshape(self._shape), parameters
