"""Extreme weather: finding storms in one stage and in two, and marking their pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models import deepcam, faster_rcnn, racah_detector
from models.benchmark import quality
from models.data import extreme_weather as weather
from models.data.examples import ExampleDataset, InMemory, Subset
from models.data.hdf5 import WeatherMasks, WeatherYears
from models.data.storms import CLASSES
from models.workloads.workload import Size, Workload, needs_path, settings

SEED = 1
TEST_FRACTION = 0.1  # of all years, their last maps

DataBuilder = Callable[[Path | None, Path | None], ExampleDataset]


def _generated(train: int, test: int, shape: tuple[int, int], targets: str) -> DataBuilder:
    original = _years if targets == "boxes" else _masks

    def data(path: Path | None, cache: Path | None) -> ExampleDataset:
        if path is not None:
            return original(path, cache)
        parts = [
            weather.weather_maps(count, SEED, shape, first, cache)
            for count, first in ((train, 0), (test, train))
        ]
        own, held_out = (InMemory(part["images"], part[targets]) for part in parts)
        return ExampleDataset("extreme weather", own, held_out)

    return data


def _years(path: Path | None, cache: Path | None) -> ExampleDataset:
    folder = needs_path("extreme weather", path, "a folder with an HDF5 file *.h5 for each year")
    maps = WeatherYears(sorted(folder.glob("*.h5")))
    last = len(maps) - max(1, int(TEST_FRACTION * len(maps)))
    train, test = (Subset(maps, numbers) for numbers in (range(last), range(last, len(maps))))
    return ExampleDataset(str(path), train, test)


def _masks(path: Path | None, cache: Path | None) -> ExampleDataset:
    folder = needs_path("deepcam", path, "a folder with train, validation and stats.h5")
    train, test = (
        WeatherMasks(folder / part, folder / "stats.h5") for part in ("train", "validation")
    )
    return ExampleDataset(str(path), train, test)


def _mean_average_precision(boxes: np.ndarray, detections: np.ndarray) -> float:
    return quality.mean_average_precision(boxes, detections, len(CLASSES))


def _racah_loss(boxes: Any, outputs: Any, stride: int = 0) -> Any:
    targets = racah_detector.cell_targets(boxes, tuple(outputs.shape[1:3]), stride)
    return racah_detector.detection_loss(targets, outputs)


def _racah_stride(model: Any) -> int:
    return model.input_shape[1] // model.output_shape[1]


def _racah_compiled(model: Any, optimizer: Callable[[], Any], loss: Any, **options: Any) -> None:
    def with_stride(boxes: Any, outputs: Any) -> Any:
        return loss(boxes, outputs, _racah_stride(model))

    model.compile(optimizer=optimizer(), loss=with_stride, **options)


def _racah_detections(model: Any, maps: Any) -> Any:
    return racah_detector.detections(model(maps, training=False), _racah_stride(model))


def _mean_overlap(masks: np.ndarray, logits: np.ndarray) -> float:
    predicted = logits.argmax(-1)
    return quality.mean_intersection_over_union(masks, predicted, len(weather.MASKS))


_detection = partial(
    Workload,
    metric="mAP@0.5",
    higher_is_better=True,
    chance=0.0,
    measure=_mean_average_precision,
)

WORKLOADS = {
    "extreme-weather": _detection(
        "extreme-weather",
        "extreme weather, Faster R-CNN",
        "HPC AI500 V1 and V2 (target mAP@0.5 0.35); Ren et al., NIPS 2015",
        loss=None,
        outputs=lambda model, maps: model.detect(maps),
        sizes={
            "tiny": Size(
                faster_rcnn.faster_rcnn_tiny,
                _generated(256, 64, (48, 72), "boxes"),
                16,
                4,
                settings(2e-3, 0.02),
                0.08,
            ),
            "small": Size(
                faster_rcnn.faster_rcnn_tiny,
                _generated(1200, 200, (48, 72), "boxes"),
                16,
                6,
                settings(2e-3, 0.02),
                0.50,
            ),
            "reference": Size(
                faster_rcnn.faster_rcnn_reference, _years, 2, 50, settings(1e-4, 1e-3), 0.35, False
            ),
        },
    ),
    "extreme-weather-racah": _detection(
        "extreme-weather-racah",
        "extreme weather, single-stage detector",
        "Racah et al., NIPS 2017",
        loss=_racah_loss,
        outputs=_racah_detections,
        join=_racah_compiled,
        sizes={
            "tiny": Size(
                racah_detector.racah_tiny,
                _generated(384, 64, (48, 72), "boxes"),
                16,
                8,
                settings(2e-3, 1e-3),
                0.24,
            ),
            "small": Size(
                racah_detector.racah_small,
                _generated(1200, 200, (48, 72), "boxes"),
                16,
                10,
                settings(2e-3, 1e-3),
                0.52,
            ),
            "reference": Size(
                racah_detector.racah_reference, _years, 8, 50, settings(1e-4, 1e-4), generated=False
            ),
        },
    ),
    "deepcam": Workload(
        "deepcam",
        "extreme weather, segmentation",
        "Kurth et al., SC18; MLPerf HPC (target IoU 0.82)",
        metric="IoU",
        higher_is_better=True,
        chance=0.324,  # everything is background: 0.972 of it is right
        measure=_mean_overlap,
        loss=deepcam.segmentation_loss,
        sizes={
            "tiny": Size(
                deepcam.deepcam_tiny,
                _generated(256, 64, (48, 80), "masks"),
                16,
                5,
                settings(3e-3, 0.05),
                0.333,
            ),
            "small": Size(
                deepcam.deepcam_tiny,
                _generated(1200, 200, (48, 80), "masks"),
                16,
                10,
                settings(3e-3, 0.05),
                0.72,
            ),
            "reference": Size(
                deepcam.deepcam_reference, _masks, 2, 50, settings(1e-3, 0.01), 0.82, False
            ),
        },
    ),
}
