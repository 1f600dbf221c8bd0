"""The generated collisions: kinematics, balance, and how well simple features tell them apart."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from models.data import hep


@pytest.fixture(scope="module")
def events():
    return hep.collisions(3000, seed=1)


def invariant_mass(momenta, directions):
    """Of massless particles near an axis: m² = 2 Σ pi pj (cosh Δη - cos Δφ)."""
    mass = 0.0
    for i, p in enumerate(momenta):
        for j, q in enumerate(momenta):
            eta, phi = directions[i] - directions[j]
            mass += p * q * (np.cosh(eta) - np.cos(phi))
    return np.sqrt(mass)


def test_decays_have_the_mass_of_what_decayed(monkeypatch):
    monkeypatch.setattr(hep, "MASS_SPREAD", 0.0)
    random = np.random.default_rng(0)
    for _ in range(20):
        momenta, directions = hep._three_body_decay(random, 1000.0)
        assert momenta.sum() == pytest.approx(1000)
        np.testing.assert_allclose(momenta @ directions, 0, atol=1e-9)
        assert invariant_mass(momenta, directions) == pytest.approx(hep.MASS, rel=0.02)


def test_radiation_is_soft_and_collinear():
    random = np.random.default_rng(0)
    first, angles = [], []
    for _ in range(4000):
        momenta, directions = hep._radiation(random, 1.0)
        assert momenta.sum() == pytest.approx(1)
        np.testing.assert_allclose(momenta @ directions, 0, atol=1e-12)
        first.append(momenta[1])
        angles.append(np.hypot(*(directions[1] - directions[0])))
    # dz/z: as many fractions below the geometric mean of the limits as above
    below = np.mean(np.array(first) < np.sqrt(hep.SOFTEST * 0.5))
    assert below == pytest.approx(0.5, abs=0.04)  # five deviations
    median = np.median(angles)  # the second emission moves it a little
    assert median == pytest.approx(np.sqrt(hep.NARROWEST * hep.WIDEST), rel=0.1)


def test_a_particle_is_seen_where_it_is():
    image = hep._image(
        momentum=np.array([10.0, 30.0, 5.0, 7.0]),
        place=np.array([[0.1, 0.1], [0.1, 0.1], [-2.4, -0.1], [2.6, 1.0]]),  # the last is outside
        charged=np.array([True, False, True, True]),
        photon=np.array([False, True, False, False]),
        size=4,
    )
    expected = np.zeros((4, 4, 3))
    expected[0, 2] = 40, 0.75, 1
    expected[3, 0] = 5, 0, 1  # just below φ = 0 is the last row
    np.testing.assert_allclose(image, expected, atol=1e-6)


def test_classes_are_balanced_and_have_the_same_energy(events):
    images, labels = events["images"].astype(np.float64), events["labels"]
    assert images.shape == (3000, 64, 64, 3)
    assert labels.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(3000))
    energy = np.log(images[..., 0].sum((1, 2)))
    assert roc_auc_score(labels, energy) == pytest.approx(0.5, abs=0.05)
    assert np.exp(np.median(energy)) == pytest.approx(hep.MOMENTUM + 65, rel=0.1)
    # photons are 0.28 of the particles, tracks 0.6
    assert np.average(images[..., 1], weights=images[..., 0]) == pytest.approx(0.28, abs=0.02)


def test_simple_features_tell_some_apart(events):
    """Calibrated: an AUC near 0.75, and no single feature that is nearly as good."""
    features, labels = hep.simple_features(events["images"]), events["labels"]
    model = LogisticRegression().fit(features[:2000], labels[:2000])
    auc = roc_auc_score(labels[2000:], model.decision_function(features[2000:]))
    assert 0.72 < auc < 0.80
    alone = [roc_auc_score(labels, feature) for feature in features.T]
    assert max(max(alone), 1 - min(alone)) < 0.70


def test_events_depend_on_seed_and_number_alone(events):
    later = hep.collisions(1, seed=1, first=17)
    np.testing.assert_array_equal(later["images"][0], events["images"][17])
    assert later["labels"][0] == events["labels"][17]
    assert not np.array_equal(hep.collisions(1, seed=2)["images"][0], events["images"][0])


def test_network_inputs_and_copies(events):
    inputs = hep.network_inputs(events["images"][:50])
    assert inputs.dtype == np.float32
    energy = events["images"][:50, ..., 0].astype(np.float32)
    np.testing.assert_allclose(inputs[..., 0], np.log1p(energy))
    copies, labels = hep.flipped(inputs, events["labels"][:50], np.random.default_rng(0))
    np.testing.assert_array_equal(labels, events["labels"][:50])
    assert not np.array_equal(copies, inputs)
    np.testing.assert_allclose(copies.sum((1, 2)), inputs.sum((1, 2)), rtol=1e-5)
    # Columns stay columns of η, up to their order.
    np.testing.assert_allclose(
        np.sort(copies[..., 0].sum(1)), np.sort(inputs[..., 0].sum(1)), rtol=1e-5
    )
