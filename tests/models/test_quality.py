"""Qualities by hand-worked numbers."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from models.benchmark import quality


def test_accuracy():
    assert quality.accuracy(np.array([1, 0, 1]), np.array([[0, 1], [2, 3], [-1, 5]])) == 2 / 3


def test_area_under_curve():
    # Pairs of signal and background: 3 > 1, 3 > 2, 2 = 2 (half), 2 > 1: 3.5 of 4.
    labels, scores = np.array([1, 1, 0, 0]), np.array([3.0, 2.0, 2.0, 1.0])
    assert quality.area_under_curve(labels, scores) == 3.5 / 4
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 2, 200), random.integers(0, 30, 200).astype(float)
    expected = roc_auc_score(labels, scores)
    assert quality.area_under_curve(labels, scores) == pytest.approx(expected)
    with pytest.raises(ValueError, match="0 signals and 2 backgrounds"):
        quality.area_under_curve(np.zeros(2), np.zeros(2))


def test_mean_absolute_error():
    assert quality.mean_absolute_error(np.array([[0.0, 1.0]]), np.array([[1.0, -2.0]])) == 2


def test_average_precision():
    # Right, wrong, right, of three objects: precision 1 up to recall 1/3, then 2/3 up to 2/3.
    hits = np.array([True, True, False])
    assert quality.average_precision(hits, np.array([0.9, 0.5, 0.7]), 3) == pytest.approx(5 / 9)
    assert quality.average_precision(np.array([], bool), np.array([]), 2) == 0


A, B, FAR = [0, 0, 10, 10], [0, 5, 10, 15], [50, 50, 60, 60]


def found(*rows):
    return np.array([rows], float)


def test_mean_average_precision():
    truth = found([*A, 0], [*FAR, 1], [-1] * 5)
    assert quality.mean_average_precision(truth, found([*A, 0, 0.9], [*FAR, 1, 0.2]), 4) == 1
    # Of the wrong class; nothing of the other one.
    assert quality.mean_average_precision(truth, found([*A, 1, 0.9]), 2) == 0
    # The second detection of one object is wrong: precision 1 at recall 1/1 came first.
    twice = found([*A, 0, 0.9], [*A, 0, 0.8], [*FAR, 1, 0.5])
    assert quality.mean_average_precision(truth, twice, 2) == 1
    # A better scored miss halves the precision of its class.
    missed = found([*B, 0, 0.95], [*A, 0, 0.9], [*FAR, 1, 0.5])
    assert quality.mean_average_precision(truth, missed, 2) == pytest.approx(0.75)
    # A and B have 50 of 150 in common.
    assert quality.mean_average_precision(truth, found([*B, 0, 1.0]), 2, needed=1 / 3) == 0.5
    assert quality.mean_average_precision(truth, found([*B, 0, 1.0]), 2, needed=0.34) == 0
    assert np.isnan(quality.mean_average_precision(found([-1] * 5), found([*A, 0, 1.0]), 2))


def test_detections_of_different_maps_compete():
    truth = np.array([[[*A, 0]], [[*A, 0]]], float)
    detections = np.array([[[*FAR, 0, 0.9]], [[*A, 0, 0.5]]], float)
    # One of two found, behind one miss: precision 1/2 up to recall 1/2.
    assert quality.mean_average_precision(truth, detections, 1) == 0.25


def test_mean_intersection_over_union():
    truth = np.array([[0, 0, 0, 1, 1]])
    predicted = np.array([[0, 0, 1, 1, 0]])
    # Class 0: 2 of 4; class 1: 1 of 3; class 2 is nowhere.
    assert quality.mean_intersection_over_union(truth, predicted, 3) == pytest.approx(5 / 12)


def test_spectral_distance():
    random = np.random.default_rng(0)
    density = 1 + 0.1 * random.standard_normal((4, 16, 16))
    assert quality.spectral_distance(density, density) == 0
    # Twice the contrast is four times the power.
    louder = density.mean() + 2 * (density - density.mean())
    assert quality.spectral_distance(density, louder) == pytest.approx(np.log(4))


def test_histogram_distance():
    values = np.arange(100.0)
    assert quality.histogram_distance(values, values, 4) == 0
    assert quality.histogram_distance(values, values + 25, 4) == pytest.approx(0.25)
    assert quality.histogram_distance(values, values + 1000, 4) == pytest.approx(0.75)
