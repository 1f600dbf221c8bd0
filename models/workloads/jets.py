"""Real jet images: which heavy particles a fat jet comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras

from models import hep_cnn
from models.benchmark import quality
from models.data import jet_images
from models.data.examples import ExampleDataset, Subset
from models.workloads.workload import Size, Workload, needs_path, settings

CLASSES = 3


def _file(train: int | None = None) -> Callable[[Path | None, Path | None], ExampleDataset]:
    """The file's jets, or the first `train` of those for training; all test jets."""

    def data(path: Path | None, cache: Path | None) -> ExampleDataset:
        expected = f"an .npz file with {jet_images.EXPECTED}"
        jets = jet_images.load(needs_path("hep-jets", path, expected))
        if train is None or train >= len(jets.train):
            return jets
        return ExampleDataset(jets.name, Subset(jets.train, range(train)), jets.test)

    return data


WORKLOADS = {
    "hep-jets": Workload(
        "hep-jets",
        "high-energy physics, jet images",
        "images as of HPC AI500 V1's HEP workload, simulated in full",
        metric="accuracy",
        higher_is_better=True,
        chance=1 / CLASSES,
        measure=quality.accuracy,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        sizes={
            "tiny": Size(
                hep_cnn.jets_tiny, _file(2000), 32, 4, settings(2e-3, 0.02, muon=0.005), 0.55, False
            ),
            "small": Size(
                hep_cnn.jets_small, _file(), 32, 10, settings(1e-3, 0.02, muon=0.005), 0.635, False
            ),
            "reference": Size(
                hep_cnn.jets_small,
                _file(),
                128,
                50,
                settings(1e-3, 0.02, muon=0.005),
                generated=False,
            ),
        },
    )
}
