"""The registry of workloads: `names()` and `get(name)`.

>>> get("hep").size("tiny").network().output_shape
(None, 2)
"""

from __future__ import annotations

import importlib

from models.workloads.workload import OPTIMIZERS, SIZES, Size, Workload
from tfkfac.errors import InputError, unknown

__all__ = ["OPTIMIZERS", "SIZES", "Size", "Workload", "get", "names"]

# Where each one is defined, as WORKLOAD or in WORKLOADS by name: a list of names needs no network.
_MODULES = {
    "hep": "hep",
    "hep-resnet50": "hep",
    "hep-jets": "jets",
    "cosmoflow": "cosmology",
    "cosmology-dcgan": "cosmology",
    "extreme-weather": "extreme_weather",
    "extreme-weather-racah": "extreme_weather",
    "deepcam": "extreme_weather",
    "image-classification": "image_classification",
    "translation": "translation",
}


def names() -> tuple[str, ...]:
    """Names of all workloads, in the order of reports."""
    return tuple(_MODULES)


def get(name: str) -> Workload:
    """The workload of that name.

    Raises:
        InputError: if there is none, or it needs a package that is not installed.
    """
    if name not in _MODULES:
        raise unknown("workload", name, _MODULES, "workload")
    try:
        module = importlib.import_module(f"models.workloads.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        raise InputError(
            f"workload {name} needs {error.name}, which is not installed: pip install 'tfkfac[nmt]'"
        ) from error
    return module.WORKLOADS[name]
