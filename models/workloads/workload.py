"""What a benchmark needs to know of a workload: network, data, loss, quality and settings.

A workload measures nothing and chooses nothing: whoever runs it takes a size, builds data and
network, has `compile` join them with an optimizer, calls `fit`, and asks `quality` how good it is.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models.data.dataset import Shard
from tfkfac.errors import InputError, unknown

SIZES = ("tiny", "small", "reference")
OPTIMIZERS = ("sgd", "adamw", "muon", "kfac")

Settings = Mapping[str, Mapping[str, Any]]

_RUNNERS: weakref.WeakKeyDictionary[Any, Callable[[Any], Any]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Size:
    """One size of a workload.

    Attributes:
        network: makes the network.
        data: makes the data, an `ExampleDataset` or a `models.data.dataset.Dataset`, from a path
            (None for generated examples) and a directory for generated examples (None for none).
        batch_size: examples of a step.
        epochs: that a training has by default.
        settings: of each optimizer, by name: arguments such as `learning_rate`. They are where to
            start from, no result of a search.
        target: quality at which a benchmark's clock stops by default; None where none is set. Of
            tiny and small sizes it is what AdamW with these settings reached after 60 to 80 % of
            the epochs (docs/hpcai500.md), of reference sizes what is published.
        generated: whether there are examples without a path to original files.
    """

    network: Callable[[], keras.Model]
    data: Callable[[Path | None, Path | None], Any]
    batch_size: int
    epochs: int
    settings: Settings
    target: float | None = None
    generated: bool = True


def _compiled(model: keras.Model, optimizer: Callable[[], Any], loss: Any, **options: Any) -> None:
    model.compile(optimizer=optimizer(), loss=loss, **options)


@dataclass(frozen=True)
class Workload:
    """A network, data and what counts as good.

    Attributes:
        name: on the command line and in results.
        title: for people.
        source: what is published of it, and where.
        metric: name of the quality.
        higher_is_better: whether a larger quality is better.
        chance: quality of a network that has learnt nothing; None where there is no such number.
        measure: the quality, from targets and outputs of all test examples.
        loss: function of targets and outputs; None for models with a loss of their own.
        sizes: by name.
        outputs: from the network and a batch of inputs to what `measure` takes.
        join: compiles the network with optimizers, each of which it has made for it.
    """

    name: str
    title: str
    source: str
    metric: str
    higher_is_better: bool
    chance: float | None
    measure: Callable[[Any, Any], float]
    loss: Any
    sizes: Mapping[str, Size]
    outputs: Callable[[Any, Any], Any] = field(
        default=lambda model, inputs: model(inputs, training=False)
    )
    join: Callable[..., None] = _compiled

    def size(self, name: str) -> Size:
        """The size of that name.

        Raises:
            InputError: if there is none.
        """
        if name not in self.sizes:
            raise unknown("size", name, self.sizes, f"workload {self.name}")
        return self.sizes[name]

    def compile(self, model: keras.Model, optimizer: Callable[[], Any], **options: Any) -> None:
        """Compiles the network.

        Args:
            model: made by the size's `network`.
            optimizer: makes an optimizer; called once for each that the workload needs.
            options: more for Keras's `compile`, such as `jit_compile`.
        """
        self.join(model, optimizer, self.loss, **options)
        # Or Keras does it while it traces the first step, which TensorFlow then traces again.
        model.optimizer.build(model.trainable_variables)

    def quality(
        self, model: keras.Model, data: Any, batch_size: int, shard: Shard | None = None
    ) -> float:
        """How good a network is on the test examples, or on this rank's share of them."""
        return self.measure(*self.predictions(model, data, batch_size, shard))

    def predictions(
        self, model: keras.Model, data: Any, batch_size: int, shard: Shard | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Targets and outputs of the test examples, or of this rank's share of them."""
        targets, outputs = [], []
        run = self._runner(model)
        for inputs, truth in data.evaluation(batch_size, shard):
            targets.append(np.asarray(truth))
            outputs.append(np.asarray(run(inputs)))
        return np.concatenate(targets), np.concatenate(outputs)

    def _runner(self, model: keras.Model) -> Callable[[Any], Any]:
        """The network's outputs as a graph, traced once for all evaluations."""
        if model not in _RUNNERS:
            graph = tf.function(self.outputs, reduce_retracing=True)
            held = weakref.ref(model)  # or the table would keep its own keys alive
            _RUNNERS[model] = lambda inputs: graph(held(), inputs)
        return _RUNNERS[model]

    def better(self, quality: float, other: float) -> bool:
        """Whether the first of two qualities is the better one."""
        return quality > other if self.higher_is_better else quality < other


def settings(
    adamw: float,
    sgd: float,
    muon: float = 0.02,
    kfac: float = 0.1,
    damping: float = 0.01,
    kl_clip: float | None = 0.001,
) -> Settings:
    """Settings for all optimizers from their learning rates, K-FAC's damping and its KL clip."""
    return _settings(adamw, sgd, muon, learning_rate=kfac, damping=damping, kl_clip=kl_clip)


def averaging_settings(adamw: float, sgd: float, muon: float = 0.02) -> Settings:
    """Settings for networks that average over positions before their loss.

    K-FAC's factors are then close to the Fisher matrix from the start, so that neither the identity
    nor a clip has to stand in for them.
    """
    exact = {"weight_sharing": "reduce", "debias": True}
    return _settings(adamw, sgd, muon, learning_rate=0.03, damping=0.1, kl_clip=None, **exact)


def _settings(adamw: float, sgd: float, muon: float, **kfac: Any) -> Settings:
    return {
        "sgd": {"learning_rate": sgd, "momentum": 0.9},
        "adamw": {"learning_rate": adamw, "weight_decay": 1e-4},
        "muon": {"learning_rate": muon},
        "kfac": {
            **kfac,
            "momentum": 0.9,
            "factor_interval": 10,
            "eigen_interval": 50,
        },
    }


def needs_path(workload: str, path: Path | None, expected: str) -> Path:
    """The path.

    Raises:
        InputError: without one.
    """
    if path is None:
        raise InputError(f"{workload}: this size reads {expected}; give its path")
    return path
