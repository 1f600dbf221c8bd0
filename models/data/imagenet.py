"""ImageNet (Russakovsky et al. 2015), or any photographs laid out like it.

Two layouts are read:

- JPEG files in a folder for each class: `train/CLASS/*.jpg` and `val/CLASS/*.jpg`; classes are
  numbered in the alphabetical order of their folders' names.
- TFRecord files `train-*` and `validation-*` of examples with the keys image/encoded and
  image/class/label, whose labels count from 1 as in the usual conversion scripts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from models.data.dataset import Dataset, Shard, derived_key, epochs_from, shuffled
from models.data.jpeg import as_jpeg, evaluation_input, training_input
from models.data.tfrecord import record_extents
from tfkfac.errors import InputError

SIZE = 224
CLASSES = 1000
EXTENSIONS = {".jpeg", ".jpg", ".png"}
RECORD_KEYS = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
}
# Encoded photographs of about 110 kB each: half a gigabyte a rank.
SHUFFLE_BUFFER = 4096

EXPECTED = (
    "train/CLASS/*.jpg and val/CLASS/*.jpg, or TFRecord files train-* and validation-* "
    f"with the keys {' and '.join(RECORD_KEYS)}"
)


def load(directory: str | Path | None, size: int = SIZE) -> Dataset:
    """The data set in `directory`, whichever of the two layouts it has.

    Args:
        directory: holds the folders or the TFRecord files.
        size: height and width in pixels of the network's input.

    Raises:
        InputError: if there is no such directory or nothing of either layout in it.
    """
    if directory is None:
        raise InputError(f"dataset imagenet needs --data DIRECTORY holding {EXPECTED}")
    root = Path(directory)
    if not root.is_dir():
        raise InputError(f"{root}: no such directory; expected one holding {EXPECTED}")
    if (root / "train").is_dir() and (root / "val").is_dir():
        return ImageFolders(root, size)
    if any(root.glob("train-*")) and any(root.glob("validation-*")):
        return ImageRecords(root, size)
    raise InputError(f"{root}: expected {EXPECTED}")


class ImageFolders:
    """A `Dataset` over JPEG files in a folder for each class.

    Args:
        root: holds `train` and `val`.
        size: height and width in pixels of the network's input.

    Raises:
        InputError: if a part has no classes, a class no images, or the parts differ in classes.
    """

    def __init__(self, root: Path, size: int = SIZE) -> None:
        self.name = str(root)
        self.input_shape = (size, size, 3)
        names = _class_names(root / "train")
        if (others := _class_names(root / "val")) != names:
            odd = sorted(set(names) ^ set(others))[0]
            raise InputError(f"{root}: class folder {odd} is in only one of train and val")
        self.classes = len(names)
        self._train = _image_files(root / "train", names)
        self._test = _image_files(root / "val", names)
        self.test_examples = len(self._test[1])
        self._size = size

    def steps_per_epoch(self, batch_size: int, shard: Shard) -> int:
        return shard.steps(len(self._train[1]), batch_size, self.name)

    def training(
        self, batch_size: int, seed: int, first_epoch: int = 0, shard: Shard | None = None
    ) -> tf.data.Dataset:
        shard = shard or Shard()
        steps = self.steps_per_epoch(batch_size, shard)
        with tf.device("cpu:0"):
            paths, labels = tf.constant(self._train[0]), tf.constant(self._train[1], tf.int32)

        def example(position: Any, index: Any, key: Any) -> Any:
            encoded = as_jpeg(tf.io.read_file(paths[index]), paths[index])
            example_key = derived_key(key, position * shard.size + shard.rank)
            return training_input(encoded, example_key, self._size), labels[index]

        def epoch(key: Any) -> tf.data.Dataset:
            order = shuffled(tf.range(len(self._train[1])), key)
            mine = order[shard.rank :: shard.size][: steps * batch_size]
            examples = tf.data.Dataset.from_tensor_slices((tf.range(steps * batch_size), mine))
            return examples.map(
                lambda position, index: example(position, index, key),
                num_parallel_calls=tf.data.AUTOTUNE,
            ).batch(batch_size, drop_remainder=True)

        return epochs_from(first_epoch, seed, epoch)

    def evaluation(self, batch_size: int, shard: Shard | None = None) -> tf.data.Dataset:
        shard = shard or Shard()
        paths, labels = (part[shard.rank :: shard.size] for part in self._test)

        def example(path: Any, label: Any) -> Any:
            encoded = as_jpeg(tf.io.read_file(path), path)
            return evaluation_input(encoded, self._size), label

        examples = tf.data.Dataset.from_tensor_slices((paths, labels.astype(np.int32)))
        decoded = examples.map(example, num_parallel_calls=tf.data.AUTOTUNE)
        return decoded.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def _class_names(part: Path) -> list[str]:
    names = sorted(entry.name for entry in os.scandir(part) if entry.is_dir())
    if not names:
        raise InputError(f"{part}: no class folders; expected {EXPECTED}")
    return names


def _image_files(part: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Paths (N, bytes) and labels (N) of all images below `part`."""
    paths: list[bytes] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        files = sorted(
            entry.path
            for entry in os.scandir(part / name)
            if Path(entry.name).suffix.lower() in EXTENSIONS
        )
        if not files:
            raise InputError(f"{part / name}: no images (*.jpg, *.jpeg or *.png)")
        paths += [os.fsencode(file) for file in files]
        labels += [label] * len(files)
    return np.array(paths, dtype=object), np.array(labels)


class ImageRecords:
    """A `Dataset` over TFRecord files.

    Files are dealt out to ranks anew each epoch. A rank whose files hold fewer examples than its
    steps need repeats some of them, so that all ranks take the same number of steps. The order
    depends on TensorFlow's global seed too, which the training command sets.

    Args:
        root: holds `train-*` and `validation-*`.
        size: height and width in pixels of the network's input.
        classes: number of classes.
        first_label: the label of the first class: 1 in the usual conversion scripts.

    Raises:
        InputError: if a file is damaged or its first example lacks a key.
    """

    def __init__(
        self, root: Path, size: int = SIZE, classes: int = CLASSES, first_label: int = 1
    ) -> None:
        self.name = str(root)
        self.input_shape = (size, size, 3)
        self.classes = classes
        self._size = size
        self._first_label = first_label
        self._train = [str(file) for file in sorted(root.glob("train-*"))]
        self._test = [str(file) for file in sorted(root.glob("validation-*"))]
        _check_first_example(self._train[0])
        _check_first_example(self._test[0])
        with ThreadPoolExecutor(16) as readers:  # waiting for storage, not computing
            self._training_examples = sum(readers.map(count_records, self._train))
            self.test_examples = sum(readers.map(count_records, self._test))

    def steps_per_epoch(self, batch_size: int, shard: Shard) -> int:
        if len(self._train) < shard.size:
            raise InputError(
                f"{self.name}: {len(self._train)} TFRecord files train-* are too few for "
                f"{shard.size} ranks, which need one each"
            )
        return shard.steps(self._training_examples, batch_size, self.name)

    def training(
        self, batch_size: int, seed: int, first_epoch: int = 0, shard: Shard | None = None
    ) -> tf.data.Dataset:
        shard = shard or Shard()
        steps = self.steps_per_epoch(batch_size, shard)

        def example(position: Any, record: Any, key: Any) -> Any:
            encoded, label = self._parsed(record)
            example_key = derived_key(key, position * shard.size + shard.rank)
            return training_input(encoded, example_key, self._size), label

        def epoch(key: Any) -> tf.data.Dataset:
            files = shuffled(tf.constant(self._train), key)[shard.rank :: shard.size]
            records = tf.data.Dataset.from_tensor_slices(files).interleave(
                tf.data.TFRecordDataset,
                cycle_length=16,
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            # The seed of the function that is being traced, not of the process: `shuffle` mixes it
            # in, and fails on a seed of 0.
            tf.random.set_seed(1)
            buffer_seed = tf.cast(derived_key(key, shard.rank)[0], tf.int64)
            records = records.shuffle(SHUFFLE_BUFFER, seed=buffer_seed).repeat()
            examples = records.take(steps * batch_size).enumerate()
            return examples.map(
                lambda position, record: example(position, record, key),
                num_parallel_calls=tf.data.AUTOTUNE,
            ).batch(batch_size, drop_remainder=True)

        return epochs_from(first_epoch, seed, epoch)

    def evaluation(self, batch_size: int, shard: Shard | None = None) -> tf.data.Dataset:
        shard = shard or Shard()

        def example(record: Any) -> Any:
            encoded, label = self._parsed(record)
            return evaluation_input(encoded, self._size), label

        records = tf.data.TFRecordDataset(self._test).shard(shard.size, shard.rank)
        decoded = records.map(example, num_parallel_calls=tf.data.AUTOTUNE)
        return decoded.batch(batch_size).prefetch(tf.data.AUTOTUNE)

    def _parsed(self, record: Any) -> tuple[Any, Any]:
        parsed = tf.io.parse_single_example(record, RECORD_KEYS)
        label = tf.cast(parsed["image/class/label"], tf.int32) - self._first_label
        known = tf.debugging.Assert(
            (label >= 0) & (label < self.classes),
            [
                f"{self.name}: image/class/label outside {self._first_label} to "
                f"{self._first_label + self.classes - 1}:",
                parsed["image/class/label"],
            ],
        )
        with tf.control_dependencies([known]):
            return as_jpeg(parsed["image/encoded"], self.name), tf.identity(label)


def count_records(path: str) -> int:
    """Number of records in a TFRecord file, found from their lengths without reading them.

    Raises:
        InputError: if the file does not end where a record ends.
    """
    return sum(1 for _ in record_extents(path))


def _check_first_example(path: str) -> None:
    """Raises InputError unless the first record is an example with both keys."""
    first = next(iter(record_extents(path)), None)
    if first is None:
        raise InputError(f"{path}: holds no records")
    with open(path, "rb") as file:
        file.seek(first[0])
        record = file.read(first[1])
    try:
        features = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # protobuf's DecodeError, which has no public name
        raise InputError(f"{path}: records are no tf.train.Example ({error})") from error
    kinds: dict[str, Callable[[Any], Any]] = {
        "image/encoded": lambda feature: feature.bytes_list.value,
        "image/class/label": lambda feature: feature.int64_list.value,
    }
    for key, values in kinds.items():
        if key not in features or len(values(features[key])) != 1:
            raise InputError(
                f"{path}: examples have no {key}, only {', '.join(sorted(features))}; "
                f"expected the keys {' and '.join(kinds)}"
            )
