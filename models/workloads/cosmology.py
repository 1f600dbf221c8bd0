"""Cosmology: parameters of universes, and images of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from models import cosmoflow, dcgan
from models.benchmark import quality
from models.data import cosmology
from models.data.cosmoflow_records import CosmoFlowRecords
from models.data.examples import ExampleDataset, InMemory
from models.workloads.workload import Settings, Size, Workload, needs_path, settings

SEED = 1


def _volumes(
    train: int, test: int, cells: int
) -> Callable[[Path | None, Path | None], ExampleDataset]:
    def data(path: Path | None, cache: Path | None) -> ExampleDataset:
        if path is not None:
            return _records(path, (cells, cells, cells, 4))
        parts = [
            cosmology.volumes(count, SEED, cells, first, cache)
            for count, first in ((train, 0), (test, train))
        ]
        own, held_out = (
            InMemory(p["counts"], p["targets"], cosmology.standardised_counts) for p in parts
        )
        return ExampleDataset("cosmoflow", own, held_out, augment=cosmology.symmetric_copies)

    return data


def _records(path: Path, shape: tuple[int, ...]) -> ExampleDataset:
    train, test = (CosmoFlowRecords(path / part, shape) for part in ("train", "validation"))
    return ExampleDataset(str(path), train, test)


def _reference(path: Path | None, cache: Path | None) -> ExampleDataset:
    expected = "a folder with train/*.tfrecord and validation/*.tfrecord"
    return _records(needs_path("cosmoflow", path, expected), (128, 128, 128, 4))


def _slices(
    train: int, test: int, cells: int
) -> Callable[[Path | None, Path | None], ExampleDataset]:
    def data(path: Path | None, cache: Path | None) -> ExampleDataset:
        slabs = cells // cosmology.SLAB
        parts = [
            cosmology.slices(count, SEED, cells, first, cache)["images"]
            for count, first in ((train, 0), (test, -(-train // slabs)))
        ]
        # The test examples' targets are themselves: what is generated is measured against them.
        return ExampleDataset(
            "cosmology-dcgan",
            InMemory(parts[0], np.zeros(len(parts[0]), np.float32)),
            InMemory(parts[1], parts[1]),
        )

    return data


def _generate(model: dcgan.DCGAN, images: Any) -> Any:
    return model.generator(model.sample_latent(tf.shape(images)[0]), training=False)


def _spectral_distance(real: np.ndarray, generated: np.ndarray) -> float:
    truth, made = (cosmology.slice_counts(images[..., 0]) for images in (real, generated))
    return quality.spectral_distance(truth, made, cell=cosmology.CELL)


def _compiled_twice(
    model: dcgan.DCGAN, optimizer: Callable[[], Any], loss: Any, **options: Any
) -> None:
    model.compile(optimizer(), optimizer(), **options)


def _adversarial(adamw: float) -> Settings:
    """With Radford et al.'s β₁ of 0.5 for AdamW: with more, one network soon leaves the other."""
    given = settings(adamw, 0.01, muon=5e-4, kfac=1e-3, damping=0.1, kl_clip=None)
    return {**given, "adamw": {**given["adamw"], "beta_1": 0.5}}


WORKLOADS = {
    "cosmoflow": Workload(
        "cosmoflow",
        "cosmology, parameters of a universe",
        "Mathuriya et al., SC18; MLPerf HPC (target MAE 0.124, with N-body data)",
        metric="MAE",
        higher_is_better=False,
        chance=0.5,  # of the mean of targets that are uniform in [-1, 1]
        measure=quality.mean_absolute_error,
        loss=keras.losses.MeanSquaredError(),
        sizes={
            "tiny": Size(
                cosmoflow.cosmoflow_tiny, _volumes(1200, 250, 16), 16, 8, settings(4e-3, 0.02), 0.45
            ),
            "small": Size(
                cosmoflow.cosmoflow_small,
                _volumes(2500, 500, 24),
                16,
                10,
                settings(4e-3, 0.02),
                0.42,
            ),
            "reference": Size(
                cosmoflow.cosmoflow_reference,
                _reference,
                64,
                128,
                settings(1e-3, 1e-3),
                0.124,
                False,
            ),
        },
    ),
    "cosmology-dcgan": Workload(
        "cosmology-dcgan",
        "cosmology, images of a universe",
        "Radford et al., ICLR 2016; HPC AI500 V1",
        metric="spectral distance",
        higher_is_better=False,
        chance=None,
        measure=_spectral_distance,
        loss=None,
        outputs=_generate,
        join=_compiled_twice,
        sizes={
            "tiny": Size(
                dcgan.dcgan_tiny,
                _slices(2048, 512, 16),
                64,
                6,
                _adversarial(1e-3),
                0.8,
            ),
            "small": Size(
                dcgan.dcgan_small,
                _slices(4096, 512, 32),
                64,
                16,
                _adversarial(4e-4),
                0.6,
            ),
            "reference": Size(
                dcgan.dcgan_reference,
                _slices(16_384, 2048, 64),
                128,
                50,
                _adversarial(2e-4),
            ),
        },
    ),
}
