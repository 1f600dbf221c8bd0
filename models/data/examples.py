"""Examples that are read by number, and the epochs made of them.

Whatever can say how many examples it has and read some of them by number is a data set: arrays,
HDF5 files, TFRecords. Inputs and targets may be of any shape, and dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from models.data.dataset import Shard, derived_key, epochs_from, shuffled
from models.data.generated import digest

Arrays = np.ndarray | Mapping[str, np.ndarray]
Augmentation = Callable[[Any, Any, np.random.Generator], tuple[Any, Any]]


class Examples(Protocol):
    """Inputs and targets by number."""

    def __len__(self) -> int: ...

    def read(self, indices: np.ndarray) -> tuple[Arrays, Arrays]:
        """Examples `indices`, in that order: network inputs, and targets, N first in each."""


@dataclass(frozen=True)
class InMemory:
    """Examples in arrays.

    Attributes:
        inputs: N x anything, of any type.
        targets: N x anything, or several of them by name.
        prepare: from inputs as stored to float32 network inputs.
    """

    inputs: np.ndarray
    targets: Arrays
    prepare: Callable[[np.ndarray], np.ndarray] = lambda inputs: inputs.astype(np.float32)

    def __len__(self) -> int:
        return len(self.inputs)

    def read(self, indices: np.ndarray) -> tuple[Arrays, Arrays]:
        """See `Examples.read`."""
        if isinstance(self.targets, Mapping):
            chosen: Arrays = {name: values[indices] for name, values in self.targets.items()}
        else:
            chosen = self.targets[indices]
        return self.prepare(self.inputs[indices]), chosen


@dataclass(frozen=True)
class Subset:
    """The examples of another collection whose numbers are listed."""

    examples: Examples
    numbers: Sequence[int] | np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, indices: np.ndarray) -> tuple[Arrays, Arrays]:
        """See `Examples.read`."""
        return self.examples.read(np.asarray(self.numbers)[indices])


class ExampleDataset:
    """Training and test examples as batches; epochs depend on (seed, epoch, rank) alone.

    Args:
        name: what error messages call it.
        train, test: the examples.
        augment: changes a training batch of inputs and targets with a generator of its own.

    Attributes:
        input_shape: shape of one input, or of each by name.
        train, test: as given.
    """

    def __init__(
        self, name: str, train: Examples, test: Examples, augment: Augmentation | None = None
    ) -> None:
        self.name = name
        self.train = train
        self.test = test
        self._augment = augment
        # Types and shapes of what is read, which TensorFlow must know beforehand.
        self._train_form = train.read(np.array([0]))
        self._test_form = test.read(np.array([0]))
        inputs = self._train_form[0]
        self.input_shape: Any = (
            {name: array.shape[1:] for name, array in inputs.items()}
            if isinstance(inputs, Mapping)
            else inputs.shape[1:]
        )

    @property
    def test_examples(self) -> int:
        """Number of test examples."""
        return len(self.test)

    def steps_per_epoch(self, batch_size: int, shard: Shard | None = None) -> int:
        """Batches of an epoch, the same number on every rank; a smaller last batch is dropped.

        Raises:
            InputError: if there is not one full batch for each rank.
        """
        return (shard or Shard()).steps(len(self.train), batch_size, self.name)

    def training(
        self, batch_size: int, seed: int, first_epoch: int = 0, shard: Shard | None = None
    ) -> tf.data.Dataset:
        """Endless batches (inputs, targets), `steps_per_epoch` for each epoch from `first_epoch`.

        Args:
            batch_size: examples of a batch, of this rank.
            seed: of orders and augmentations.
            first_epoch: 0-based number of the first epoch.
            shard: this rank's share; default: all.
        """
        shard = shard or Shard()
        steps = self.steps_per_epoch(batch_size, shard)

        def read(indices: np.ndarray, key: np.ndarray) -> Any:
            inputs, targets = self.train.read(indices)
            if self._augment is not None:
                random = np.random.default_rng(key.astype(np.uint64))
                inputs, targets = self._augment(inputs, targets, random)
            return _flat(inputs, targets)

        def epoch(key: Any) -> tf.data.Dataset:
            order = shuffled(tf.range(len(self.train)), key)
            mine = order[shard.rank :: shard.size][: steps * batch_size]
            batches = tf.data.Dataset.from_tensor_slices(
                (tf.range(steps), tf.reshape(mine, [steps, batch_size]))
            )

            def batch(step: Any, indices: Any) -> Any:
                batch_key = derived_key(key, step * shard.size + shard.rank)
                return _tensors(self._train_form, read, batch_size, indices, batch_key)

            return batches.map(batch)

        return epochs_from(first_epoch, seed, epoch)

    def evaluation(self, batch_size: int, shard: Shard | None = None) -> tf.data.Dataset:
        """This rank's share of the test examples, once, in order; the last batch may be smaller."""
        shard = shard or Shard()
        mine = tf.range(len(self.test))[shard.rank :: shard.size]

        def read(indices: np.ndarray) -> Any:
            return _flat(*self.test.read(indices))

        batches = tf.data.Dataset.from_tensor_slices(mine).batch(batch_size)
        return batches.map(lambda indices: _tensors(self._test_form, read, None, indices)).prefetch(
            1
        )

    def training_share(self) -> ExampleDataset | None:
        """The same with as many training examples in the test examples' place, the first ones.

        None if training examples' targets differ in kind from what is tested.
        """
        forms = (self._train_form[1], self._test_form[1])
        if any(isinstance(form, Mapping) for form in forms):
            return None
        if forms[0].shape != forms[1].shape:  # type: ignore[union-attr]
            return None
        numbers = range(min(len(self.test), len(self.train)))
        return ExampleDataset(self.name, self.train, Subset(self.train, numbers))

    def digest(self) -> str | None:
        """Of all examples; None where they are not in memory."""
        named: dict[str, np.ndarray] = {}
        for part, examples in (("train", self.train), ("test", self.test)):
            if not isinstance(examples, InMemory):
                return None
            named[f"{part} inputs"] = examples.inputs
            targets = examples.targets
            several = targets if isinstance(targets, Mapping) else {"targets": targets}
            named |= {f"{part} {name}": array for name, array in several.items()}
        return digest(named).tobytes().hex()


def _tensors(
    form: tuple[Arrays, Arrays],
    read: Callable[..., Any],
    batch_size: int | None,
    *arguments: Any,
) -> Any:
    """What `read` returns, as tensors of the types, shapes and structure of `form`."""
    parts = _flat(*form)
    flat = tf.numpy_function(read, arguments, [array.dtype for array in parts])
    for tensor, array in zip(flat, parts, strict=True):
        tensor.set_shape([batch_size, *array.shape[1:]])
    remaining = iter(flat)
    return tuple(
        {name: next(remaining) for name in sorted(part)}
        if isinstance(part, Mapping)
        else next(remaining)
        for part in form
    )


def _flat(inputs: Arrays, targets: Arrays) -> list[np.ndarray]:
    arrays: list[np.ndarray] = []
    for part in (inputs, targets):
        if isinstance(part, Mapping):
            arrays += [part[name] for name in sorted(part)]
        else:
            arrays.append(part)
    return arrays
