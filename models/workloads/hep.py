"""High-energy physics: signal or background, from images of collisions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np

from models import hep_cnn
from models.benchmark import quality
from models.data import hep
from models.data.examples import ExampleDataset, InMemory, Subset
from models.data.hdf5 import Collisions
from models.workloads.workload import Size, Workload, averaging_settings, needs_path, settings

SEED = 1
TEST_FRACTION = 0.1  # of an original file, its last events


def _generated(
    train: int, test: int, size: int
) -> Callable[[Path | None, Path | None], ExampleDataset]:
    def data(path: Path | None, cache: Path | None) -> ExampleDataset:
        if path is not None:
            return _original(path, cache)
        parts = [
            hep.collisions(count, SEED, size, first, cache)
            for count, first in ((train, 0), (test, train))
        ]
        own, held_out = (InMemory(p["images"], p["labels"], hep.network_inputs) for p in parts)
        return ExampleDataset("hep", own, held_out, augment=hep.flipped)

    return data


def _original(path: Path | None, cache: Path | None) -> ExampleDataset:
    events = Collisions(needs_path("hep", path, "an HDF5 file with a group all_events"))
    last = len(events) - max(1, int(TEST_FRACTION * len(events)))
    train, test = (Subset(events, numbers) for numbers in (range(last), range(last, len(events))))
    return ExampleDataset(str(path), train, test)


def _measure(labels: np.ndarray, logits: np.ndarray) -> float:
    return quality.area_under_curve(labels, logits[:, 1] - logits[:, 0])


_workload = partial(
    Workload,
    metric="AUC",
    higher_is_better=True,
    chance=0.5,
    measure=_measure,
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)

WORKLOADS = {
    "hep": _workload(
        "hep",
        "high-energy physics, HEP-CNN",
        "Kurth et al., SC17; HPC AI500 V1",
        sizes={
            "tiny": Size(
                hep_cnn.hep_cnn_tiny,
                _generated(2500, 600, 64),
                32,
                5,
                settings(2e-3, 0.02, muon=0.005),
                0.88,
            ),
            "small": Size(
                hep_cnn.hep_cnn_small,
                _generated(5000, 1500, 64),
                32,
                10,
                settings(2e-3, 0.02, muon=0.005),
                0.92,
            ),
            "reference": Size(
                hep_cnn.hep_cnn_64, _original, 128, 20, settings(1e-5, 1e-3), generated=False
            ),
        },
    ),
    "hep-resnet50": _workload(
        "hep-resnet50",
        "high-energy physics, ResNet-50",
        "HPC AI500 V1",
        sizes={
            "tiny": Size(
                hep_cnn.hep_resnet_small,
                _generated(2500, 600, 64),
                32,
                5,
                averaging_settings(3e-3, 0.05),
                0.85,
            ),
            "small": Size(
                hep_cnn.hep_resnet_small,
                _generated(5000, 1500, 64),
                32,
                8,
                averaging_settings(2e-3, 0.05),
                0.92,
            ),
            "reference": Size(
                hep_cnn.hep_resnet50,
                _original,
                64,
                20,
                averaging_settings(1e-3, 0.1),
                generated=False,
            ),
        },
    ),
}
