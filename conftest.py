"""What holds for all tests: a quiet TensorFlow, and no Horovod, no tests of several processes."""

import importlib.util
import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, visibly, what Horovod is missing for."""
    if importlib.util.find_spec("horovod") is not None:
        return
    skip = pytest.mark.skip(reason="Horovod is not installed; `make horovod` builds it")
    for item in items:
        if item.get_closest_marker("distributed"):
            item.add_marker(skip)
