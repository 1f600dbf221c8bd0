"""The registry, and each workload at its smallest: it learns more than chance or simple features."""

import keras
import pytest

from models import workloads
from models.data.examples import ExampleDataset, Subset
from tfkfac.errors import InputError


def train(name, epochs, examples=None, rate=None, tests=None, epoch_of=None):
    """Quality before and after, and each epoch's loss or losses, of a tiny training with AdamW."""
    workload = workloads.get(name)
    size = workload.size("tiny")
    keras.utils.set_random_seed(0)
    data = size.data(None, None) if epoch_of is None else epoch_of
    if examples:
        augment = data._augment
        train, test = Subset(data.train, range(examples)), Subset(data.test, range(tests))
        data = ExampleDataset(name, train, test, augment)
    settings = dict(size.settings["adamw"], **({"learning_rate": rate} if rate else {}))
    model = size.network()
    workload.compile(model, lambda: keras.optimizers.AdamW(**settings))
    before = workload.quality(model, data, size.batch_size)
    history = model.fit(
        data.training(size.batch_size, seed=1),
        steps_per_epoch=len(data.train) // size.batch_size,
        epochs=epochs,
        shuffle=False,
        verbose=0,
    ).history
    return before, workload.quality(model, data, size.batch_size), history


def test_names():
    assert len(workloads.names()) == 8
    for name in workloads.names():
        workload = workloads.get(name)
        assert workload.name == name
        assert tuple(workload.sizes) == workloads.SIZES
        for size in workload.sizes.values():
            assert tuple(size.settings) == workloads.OPTIMIZERS
    with pytest.raises(InputError, match="unknown workload cosmoflw .did you mean cosmoflow"):
        workloads.get("cosmoflw")
    with pytest.raises(InputError, match="workload hep: unknown size huge"):
        workloads.get("hep").size("huge")


def test_which_quality_is_better():
    assert workloads.get("hep").better(0.8, 0.7)
    assert workloads.get("cosmoflow").better(0.3, 0.4)


@pytest.mark.parametrize("name", ["hep", "cosmoflow", "extreme-weather", "deepcam"])
def test_reference_size_needs_its_files(name):
    with pytest.raises(InputError, match="give its path"):
        workloads.get(name).size("reference").data(None, None)
