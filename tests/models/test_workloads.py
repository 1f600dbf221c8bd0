"""The registry; and each workload, at its smallest, learns more than chance or simple features."""

import keras
import pytest
from sklearn.linear_model import LogisticRegression

from models import workloads
from models.benchmark import quality
from models.data import hep
from models.data.examples import ExampleDataset, Subset
from tfkfac.errors import InputError


class Training:
    """A tiny training with AdamW.

    Attributes:
        before, after: the quality.
        history: each epoch's losses, by name.
        data: what it was trained and tested on.
    """

    def __init__(self, name, epochs, examples=None, tests=None, **options):
        workload = workloads.get(name)
        size = workload.size("tiny")
        keras.utils.set_random_seed(0)
        self.data = size.data(None, None)
        if examples:
            parts = Subset(self.data.train, range(examples)), Subset(self.data.test, range(tests))
            self.data = ExampleDataset(name, *parts)
        model = size.network()
        settings = size.settings["adamw"]
        workload.compile(model, lambda: keras.optimizers.AdamW(**settings), **options)
        self.before = workload.quality(model, self.data, size.batch_size)
        self.history = model.fit(
            self.data.training(size.batch_size, seed=1),
            steps_per_epoch=self.data.steps_per_epoch(size.batch_size),
            epochs=epochs,
            shuffle=False,
            verbose=0,
        ).history
        self.after = workload.quality(model, self.data, size.batch_size)


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


def test_hep_beats_simple_features():
    training = Training("hep", epochs=3)
    train, test = training.data.train, training.data.test
    simple = LogisticRegression().fit(hep.simple_features(train.inputs), train.targets)
    baseline = quality.area_under_curve(
        test.targets, simple.decision_function(hep.simple_features(test.inputs))
    )
    assert baseline > 0.7
    assert training.after > baseline + 0.04


def test_cosmoflow_fits_what_it_is_shown():
    """That it learns more than examples takes longer than a test may; docs/hpcai500.md has it."""
    losses = Training("cosmoflow", epochs=40, examples=32, tests=16).history["loss"]
    assert losses[0] > 0.25  # the targets' variance is 1/3
    assert losses[-1] < 0.1


def test_dcgan_comes_nearer_to_real_spectra():
    training = Training("cosmology-dcgan", epochs=2)
    assert training.after < 0.6 * training.before


def test_racah_detector_finds_storms():
    training = Training("extreme-weather-racah", epochs=3)
    assert training.before < 0.02
    assert training.after > 0.12


def test_deepcam_learns_where_storms_are():
    # Tracing this many layers would take longer than these few steps.
    training = Training("deepcam", epochs=6, examples=32, tests=16, run_eagerly=True)
    losses = training.history["loss"]
    assert losses[-1] < 0.6 * losses[0]
    assert training.after > training.before


def test_faster_rcnn_as_a_workload():
    """That it learns is shown elsewhere; this is its joining with data, optimizer and quality."""
    workload = workloads.get("extreme-weather")
    size = workload.size("tiny")
    maps = size.data(None, None)
    data = ExampleDataset("few", Subset(maps.train, range(16)), Subset(maps.test, range(4)))
    model = size.network()
    workload.compile(model, lambda: keras.optimizers.AdamW(1e-3), run_eagerly=True)
    model.fit(data.training(8, 1), steps_per_epoch=2, shuffle=False, verbose=0)
    assert 0 <= workload.quality(model, data, 4) < 0.5
