"""Image classification: the digits, CIFAR-10 and ImageNet."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import keras

from models import resnet
from models.benchmark import quality
from models.workloads.workload import Size, Workload, averaging_settings, needs_path


def _digits(path: Path | None, cache: Path | None) -> Any:
    from models.data import digits

    return digits.load()


def _cifar10(path: Path | None, cache: Path | None) -> Any:
    """A fifth of CIFAR-10's images."""
    from models.data import cifar10

    expected = f"CIFAR-10, an .npz file with {cifar10.EXPECTED}"
    return cifar10.load(needs_path("image-classification", path, expected), 10_000, 2000)


def _imagenet(path: Path | None, cache: Path | None) -> Any:
    from models.data import imagenet

    return imagenet.load(needs_path("image-classification", path, "ImageNet"))


WORKLOADS = {
    "image-classification": Workload(
        "image-classification",
        "image classification, ResNet",
        "He et al., CVPR 2016; HPC AI500 V2 (ImageNet, target top-1 0.763)",
        metric="accuracy",
        higher_is_better=True,
        chance=0.1,
        measure=quality.accuracy,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        sizes={
            "tiny": Size(resnet.resnet8, _digits, 32, 5, averaging_settings(3e-3, 0.05), 0.97),
            "small": Size(
                partial(resnet.cifar_resnet, 8, width=8),
                _cifar10,
                64,
                8,
                averaging_settings(3e-3, 0.05),
                0.52,
                generated=False,
            ),
            "reference": Size(
                resnet.resnet50, _imagenet, 256, 90, averaging_settings(1e-3, 0.1), 0.763, False
            ),
        },
    )
}
