"""The original HDF5 files: years of weather with boxes, weather with masks, and collisions.

All are `Examples` (see `models.data.examples`) that read from disk what is asked for. Files stay
open. Names and shapes are checked when they are opened; what is damaged further inside is noticed,
and said, when it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from models.data.extreme_weather import CHANNELS, MASKS, MAXIMUM_BOXES
from tfkfac.errors import InputError

STATISTICS_MAPS = 16  # of a year, from which the channels' means and deviations are estimated


def _opened(path: Path) -> Any:
    """The file, an `h5py.File`."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: damaged or not an HDF5 file ({error})") from error


def _part(path: Path, group: Any, name: str, shape: Sequence[int | None]) -> Any:
    """A data set of a file, of the expected shape; None stands for any length."""
    if name not in group or not isinstance(group[name], h5py.Dataset):
        raise InputError(f"{path}: has no {name}, only {', '.join(sorted(group)) or 'nothing'}")
    found = group[name].shape
    if len(found) != len(shape) or any(
        wanted not in (None, length) for wanted, length in zip(shape, found, strict=True)
    ):
        expected = ", ".join("N" if length is None else str(length) for length in shape)
        raise InputError(f"{path}: {name} has shape {found}; expected ({expected})")
    return group[name]


def _rows(path: Path, part: Any, numbers: np.ndarray) -> np.ndarray:
    """Some rows of a data set, in the order asked for, which HDF5 does not take."""
    distinct, back = np.unique(numbers, return_inverse=True)
    try:
        return part[distinct][back]
    except OSError as error:
        raise InputError(f"{path}: {part.name} cannot be read ({error})") from error


def _same_length(path: Path, *parts: Any) -> int:
    lengths = {part.name.rsplit("/", 1)[-1]: len(part) for part in parts}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"{path}: lengths differ or are 0: {listed}")
    return next(iter(lengths.values()))


class WeatherYears:
    """The ExtremeWeather data: a file a year with `images` and `boxes`.

    `images` is maps x 16 x rows x columns (1460 x 16 x 768 x 1152), `boxes` maps x 15 x 5: top,
    left, bottom, right in pixels and the class, -1 for none. Inputs are normalised by channel and
    have their channels last.

    Args:
        paths: files, whose maps are numbered one file after the other.
        normalisation: means and deviations of the channels; default: those of some maps of the
            first file.

    Raises:
        InputError: if a file is missing, damaged or of another form.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        normalisation: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        if not paths:
            raise InputError("extreme weather: no HDF5 files; expected one for each year")
        self._parts: list[tuple[Path, Any, Any]] = []
        lengths = []
        shape: tuple[int | None, ...] = (None, None)
        for path in paths:
            file = _opened(path)
            images = _part(path, file, "images", (None, len(CHANNELS), *shape))
            boxes = _part(path, file, "boxes", (None, MAXIMUM_BOXES, 5))
            shape = images.shape[2:]
            lengths.append(_same_length(path, images, boxes))
            self._parts.append((path, images, boxes))
        self._ends = np.cumsum(lengths)
        self.normalisation = normalisation or self._estimated()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normalised maps, N x rows x columns x 16, and boxes, N x 15 x 5."""
        shape = self._parts[0][1].shape
        maps = np.empty((len(indices), *shape[2:], shape[1]), np.float32)
        boxes = np.empty((len(indices), MAXIMUM_BOXES, 5), np.float32)
        means, deviations = self.normalisation
        for places, file, numbers in self._by_file(np.asarray(indices)):
            path, images, truth = self._parts[file]
            stored = _rows(path, images, numbers)
            maps[places] = (np.moveaxis(stored, 1, -1) - means) / deviations
            boxes[places] = _rows(path, truth, numbers)
        return maps, boxes

    def _by_file(self, indices: np.ndarray) -> list[tuple[np.ndarray, int, np.ndarray]]:
        """For each file that is needed: places in the batch, its number, and numbers in it."""
        files = np.searchsorted(self._ends, indices, side="right")
        starts = np.concatenate([[0], self._ends[:-1]])
        return [
            (np.nonzero(files == file)[0], int(file), indices[files == file] - starts[file])
            for file in np.unique(files)
        ]

    def _estimated(self) -> tuple[np.ndarray, np.ndarray]:
        path, images, _ = self._parts[0]
        count = min(STATISTICS_MAPS, len(images))
        numbers = np.linspace(0, len(images) - 1, count).astype(int)
        some = _rows(path, images, numbers).astype(np.float64)
        deviations = some.std((0, 2, 3))
        return some.mean((0, 2, 3)), np.where(deviations > 0, deviations, 1)


class WeatherMasks:
    """DeepCAM's data: a file a map, with `climate/data` and `climate/labels_0`.

    `data` is rows x columns x 16 (768 x 1152), `labels_0` rows x columns with numbers of `MASKS`.
    Inputs are scaled to 0 ... 1 with `climate/minval` and `maxval` of a file `stats.h5`.

    Args:
        directory: holds `data-*.h5`, all that is read.
        statistics: the file; default: `stats.h5` in the directory or the one above.

    Raises:
        InputError: if a file is missing, damaged or of another form.
    """

    def __init__(self, directory: Path, statistics: Path | None = None) -> None:
        self._paths = sorted(directory.glob("data-*.h5"))
        if not self._paths:
            raise InputError(f"{directory}: no files data-*.h5")
        if statistics is None:
            beside = directory / "stats.h5"
            statistics = beside if beside.exists() else directory.parent / "stats.h5"
        with _opened(statistics) as file:
            lowest, highest = (
                _part(statistics, file, f"climate/{name}", (len(CHANNELS),))[:]
                for name in ("minval", "maxval")
            )
        self._lowest = lowest.astype(np.float32)
        self._range = np.maximum(highest - lowest, 1e-30).astype(np.float32)
        with _opened(self._paths[0]) as file:
            data = _part(self._paths[0], file, "climate/data", (None, None, len(CHANNELS)))
            self._shape = data.shape[:2]

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Maps, N x rows x columns x 16, and masks, N x rows x columns uint8."""
        maps = np.empty((len(indices), *self._shape, len(CHANNELS)), np.float32)
        masks = np.empty((len(indices), *self._shape), np.uint8)
        for place, number in enumerate(indices):
            path = self._paths[number]
            with _opened(path) as file:
                data = _part(path, file, "climate/data", (*self._shape, len(CHANNELS)))
                labels = _part(path, file, "climate/labels_0", self._shape)
                try:
                    maps[place] = (data[:] - self._lowest) / self._range
                    found = labels[:]
                except OSError as error:
                    raise InputError(f"{path}: cannot be read ({error})") from error
            if found.min() < 0 or found.max() >= len(MASKS):
                raise InputError(
                    f"{path}: climate/labels_0 has labels from {found.min():g} to "
                    f"{found.max():g}; expected 0 to {len(MASKS) - 1}"
                )
            masks[place] = found
        return maps, masks


class Collisions:
    """HEP-CNN's data: a file with a group `all_events`.

    Either `hist`, `histEM` and `histtrack`, events x 64 x 64 each (calorimeter energy, its
    electromagnetic part, tracks), and `y`; or `images`, events x 3 x size x size or events x size x
    size x 3, and `labels`.

    Args:
        path: the file.

    Raises:
        InputError: if it is missing, damaged or of another form.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        file = _opened(path)
        if "all_events" not in file:
            raise InputError(f"{path}: has no group all_events, only {', '.join(sorted(file))}")
        group = file["all_events"]
        self._channels_first = False
        if "images" in group:
            self._images = [_part(path, group, "images", (None,) * 4)]
            self._labels = group.get("labels")
            shape = self._images[0].shape
            self._channels_first = shape[1] == 3 and shape[3] != 3
            if not self._channels_first and shape[3] != 3:
                raise InputError(
                    f"{path}: images has shape {shape}; expected (N, 3, H, W) or (N, H, W, 3)"
                )
        else:
            first = _part(path, group, "hist", (None,) * 3)
            others = [
                _part(path, group, name, (None, *first.shape[1:]))
                for name in ("histEM", "histtrack")
            ]
            self._images = [first, *others]
            self._labels = group.get("y")
        if self._labels is None:
            raise InputError(f"{path}: all_events has no labels, only {', '.join(sorted(group))}")
        self._length = _same_length(path, *self._images, self._labels)

    def __len__(self) -> int:
        return self._length

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images, N x size x size x 3, and labels, N int32, 1 for signal."""
        parts = [_rows(self._path, part, indices) for part in self._images]
        if len(parts) > 1:
            images = np.stack(parts, axis=-1)
        else:
            images = np.moveaxis(parts[0], 1, -1) if self._channels_first else parts[0]
        labels = _rows(self._path, self._labels, indices).reshape(len(indices))
        if not np.isin(labels, (0, 1)).all():
            odd = labels[~np.isin(labels, (0, 1))][0]
            raise InputError(f"{self._path}: label {odd:g}; expected 0 or 1")
        return images.astype(np.float32), labels.astype(np.int32)
