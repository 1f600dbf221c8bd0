"""The registry; and each workload, at its smallest, learns more than chance or simple features."""

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from models import workloads
from models.benchmark import flops, quality
from models.data import hep
from models.data.examples import ExampleDataset, Subset
from nmt.decoding import DecodingOptions
from nmt.translation.translator import Translator
from tfkfac import KFAC
from tfkfac.errors import InputError


class Training:
    """A tiny training with AdamW.

    Attributes:
        before, after: the quality.
        history: each epoch's losses, by name.
        data: what it was trained and tested on.
        model: the network.
    """

    def __init__(self, name, epochs, examples=None, tests=None, path=None, **options):
        workload = workloads.get(name)
        size = workload.size("tiny")
        keras.utils.set_random_seed(0)
        self.data = size.data(path, None)
        if examples:
            parts = Subset(self.data.train, range(examples)), Subset(self.data.test, range(tests))
            self.data = ExampleDataset(name, *parts)
        self.model = model = size.network()
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
    assert len(workloads.names()) == 10
    for name in workloads.names():
        workload = workloads.get(name)
        assert workload.name == name
        assert tuple(workload.sizes) == workloads.SIZES
        for size in workload.sizes.values():
            assert tuple(size.settings) == workloads.OPTIMIZERS
        for name in ("tiny", "small"):
            target = workload.size(name).target
            assert target is not None
            assert workload.chance is None or workload.better(target, workload.chance)
    with pytest.raises(InputError, match="unknown workload cosmoflw .did you mean cosmoflow"):
        workloads.get("cosmoflw")
    with pytest.raises(InputError, match="workload hep: unknown size huge"):
        workloads.get("hep").size("huge")


def test_which_quality_is_better():
    assert workloads.get("hep").better(0.8, 0.7)
    assert workloads.get("cosmoflow").better(0.3, 0.4)


@pytest.mark.parametrize("name", workloads.names())
def test_sizes_that_need_their_files(name):
    sizes = workloads.get(name).sizes.values()
    needy = [size for size in sizes if not size.generated]
    assert bool(needy) == (name != "cosmology-dcgan")
    for size in needy:
        with pytest.raises(InputError, match="give its path"):
            size.data(None, None)


def test_hep_beats_simple_features():
    training = Training("hep", epochs=3)
    train, test = training.data.train, training.data.test
    simple = LogisticRegression().fit(hep.simple_features(train.inputs), train.targets)
    baseline = quality.area_under_curve(
        test.targets, simple.decision_function(hep.simple_features(test.inputs))
    )
    assert baseline > 0.7
    assert training.after > baseline + 0.04


def test_cosmoflow_learns_more_than_the_mean():
    training = Training("cosmoflow", epochs=6)
    assert training.before > 0.48
    assert training.after < 0.465


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


def test_jets_from_a_file(tmp_path):
    """Three classes of dots, each in a place of its own, which a network finds."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 400)
    images = np.zeros((400, 24, 24), np.float32)
    images[np.arange(400), 6 + 5 * labels, 12] = random.uniform(0.001, 0.1, 400)
    np.savez(
        tmp_path / "jets.npz", x_fixedr=images, y_fixedr=labels, classes=np.array(["a", "b", "c"])
    )
    training = Training("hep-jets", epochs=4, path=tmp_path / "jets.npz")
    assert training.before < 0.6
    assert training.after > 0.9


@pytest.fixture(scope="module")
def translation():
    return Training("translation", epochs=4)


def test_translation_learns_words(translation):
    assert translation.history["loss"][-1] < 0.65 * translation.history["loss"][0]
    assert translation.before < 0.5
    assert translation.after > 2


def test_translations_are_those_of_nmts_own_command(translation):
    workload, data = workloads.get("translation"), translation.data
    few = type(data)("few", data.train, Subset(data.test, range(9)), data.target_subwords, "")
    references, found = workload.predictions(translation.model, few, 4)
    subwords = data.target_subwords
    sources = [subwords.decode(row) for row in few.test.read(np.arange(9))[0]["source"]]
    options = DecodingOptions(beam=1, max_length=data.input_shape["source"][0])
    expected = Translator([translation.model], subwords, subwords, options)(sources)
    assert list(found) == [translated.text for translated in expected]
    assert workload.measure(references, references) == pytest.approx(100)


def test_the_reference_transformer_is_the_base_model():
    """d = 512, 2048 units, 32,000 joint subwords, whose one matrix serves three times."""
    d, inner, vocabulary = 512, 2048, 32_000
    attention = 4 * (d * d + d)
    feed_forward, norm = d * inner + inner + inner * d + d, 2 * d
    encoder = 6 * (attention + feed_forward + 2 * norm)
    decoder = 6 * (2 * attention + feed_forward + 3 * norm)
    expected = vocabulary * d + vocabulary + encoder + decoder + 2 * norm
    with keras.StatelessScope(initialize_variables=False):
        model = workloads.get("translation").size("reference").network()
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == expected == 60_556_544


def test_translation_counts_its_products(translation):
    """Of one sentence: dense layers in each of the L positions, and two products for attention."""
    length, d, inner, vocabulary = 32, 64, 128, 600
    attention = 4 * d * d * length + 2 * length * length * d
    feed_forward = 2 * d * inner * length
    products = 3 * attention + 2 * feed_forward + vocabulary * d * length
    spec = next(iter(translation.data.training(2, 1)))[0]
    assert flops.forward_flops(translation.model, spec) == 2 * 2 * products


def test_kfac_preconditions_all_of_a_transformer(translation):
    """Embeddings, dense layers on sequences, normalisation: none gets the plain update."""
    workload = workloads.get("translation")
    model = workload.size("tiny").network()
    optimizer = KFAC(0.1, damping=0.01)
    workload.compile(model, lambda: optimizer)
    model.fit(translation.data.training(4, 1), steps_per_epoch=1, shuffle=False, verbose=0)
    assert {row.treatment for row in optimizer.report().rows} & {"plain"} == set()
