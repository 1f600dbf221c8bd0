"""Boxes: hand-worked numbers, and suppression against brute force."""

import numpy as np
import pytest
import tensorflow as tf

from models import boxes as box

ONE = [0.0, 0.0, 4.0, 4.0]


def tensor(values):
    return tf.constant(values, tf.float32)


def test_overlaps():
    others = tensor([ONE, [0, 2, 4, 6], [4, 4, 8, 8], [1, 1, 3, 3], [3, 3, 2, 2]])
    got = box.overlaps(tensor([ONE]), others)[0]
    # the same; 8 of 24; a common corner; 4 of 16; no box
    np.testing.assert_allclose(got, [1, 1 / 3, 0, 1 / 4, 0])
    batched = box.overlaps(tensor([[ONE], [[0, 2, 4, 6]]]), tensor([[ONE], [ONE]]))
    np.testing.assert_allclose(batched[:, 0, 0], [1, 1 / 3])


def test_anchors():
    got = box.anchors((1, 2), stride=8, sizes=(4,), ratios=(1.0, 4.0))
    # Of ratio 4 and area 16: 8 high and 2 wide.
    expected = [[2, 2, 6, 6], [0, 3, 8, 5], [2, 10, 6, 14], [0, 11, 8, 13]]
    np.testing.assert_allclose(got, expected)
    assert box.anchors((3, 5), 16, (32, 64), (0.5, 1, 2)).shape == (90, 4)


def test_encoding():
    # Centre from (2, 2) to (4, 1): half a height down, a quarter width left; 8 high, 2 wide.
    got = box.encode(tensor([0, 0, 8, 2]), tensor(ONE))
    np.testing.assert_allclose(got, [0.5, -0.25, np.log(2), -np.log(2)], atol=1e-6)
    random = np.random.default_rng(0)
    corners, sizes = random.uniform(0, 50, (2, 9, 2)), random.uniform(1, 30, (2, 9, 2))
    boxes, references = (
        tensor(np.concatenate([c, c + s], 1)) for c, s in zip(corners, sizes, strict=True)
    )
    decoded = box.decode(box.encode(boxes, references), references)
    np.testing.assert_allclose(decoded, boxes, rtol=1e-4, atol=1e-4)


def test_decoding_survives_a_wild_network():
    assert np.isfinite(box.decode(tensor([0, 0, 1e6, 1e6]), tensor(ONE))).all()


def test_clipping():
    got = box.clip(tensor([-3, 2, 20, 7]), (10, 5))
    np.testing.assert_allclose(got, [0, 2, 10, 5])


def test_matching():
    overlap = tensor([[0.8, 0.1], [0.5, 0.0], [0.1, 0.4], [0.0, 0.0], [0.2, 0.29]])
    present = tf.constant([True, True])
    chosen, label = box.match(overlap, present, 0.7, 0.3, every_object=False)
    np.testing.assert_array_equal(chosen, [0, 0, 1, 0, 1])
    np.testing.assert_array_equal(label, [1, -1, -1, 0, 0])
    # The second object has its best candidate, though at 0.4 only.
    _, label = box.match(overlap, present, 0.7, 0.3, every_object=True)
    np.testing.assert_array_equal(label, [1, -1, 1, 0, 0])
    # Padding is no object, whatever it overlaps.
    _, label = box.match(overlap, tf.constant([False, True]), 0.7, 0.3, every_object=True)
    np.testing.assert_array_equal(label, [0, 0, 1, 0, 0])


def test_sampling():
    label = tf.constant([[1, 0, 1, -1, 0, 1, 0, 0], [0, 0, 0, 0, -1, -1, -1, 1]])
    priority = tensor([[8, 7, 6, 5, 4, 3, 2, 1]] * 2)
    got = box.sample(label, 4, 0.5, priority)
    # At most two positives, those of the smallest numbers, and negatives to fill up.
    np.testing.assert_array_equal(np.nonzero(got[0])[0], [2, 5, 6, 7])
    np.testing.assert_array_equal(np.nonzero(got[1])[0], [1, 2, 3, 7])


def greedy(boxes, scores, limit):
    kept: list[int] = []
    for number in np.argsort(-scores):
        if all(box.overlaps(boxes[number : number + 1], boxes[k : k + 1]) <= limit for k in kept):
            kept.append(number)
    return kept


def test_suppression():
    boxes = tensor([ONE, [0, 1, 4, 5], [0, 3, 4, 7], [10, 10, 12, 12]])
    # The second overlaps the first by 12/20, the third by 4/28.
    numbers, valid = box.suppress(boxes, tensor([0.9, 0.8, 0.7, 0.95]), 4, 0.5)
    np.testing.assert_array_equal(numbers, [3, 0, 2, 0])
    np.testing.assert_array_equal(valid, [True, True, True, False])
    numbers, valid = box.suppress(boxes, tensor([0.9, 0.8, 0.7, 0.95]), 4, 0.65, lowest=0.75)
    np.testing.assert_array_equal(np.asarray(numbers)[np.asarray(valid)], [3, 0, 1])


def test_suppression_is_the_greedy_one():
    random = np.random.default_rng(1)
    corners = random.uniform(0, 30, (2, 40, 2))
    boxes = tensor(np.concatenate([corners, corners + random.uniform(2, 20, (2, 40, 2))], -1))
    scores = tensor(random.random((2, 40)))
    numbers, valid = box.suppress(boxes, scores, 40, 0.4)
    for image in range(2):
        kept = np.asarray(numbers[image])[np.asarray(valid[image])]
        expected = greedy(boxes[image], np.asarray(scores[image]), 0.4)
        assert 5 < len(expected) < 40
        np.testing.assert_array_equal(kept, expected)


def test_suppression_by_class():
    boxes = tensor([[ONE, [0, 1, 4, 5]]])
    scores = tensor([[[0.9, 0.1], [0.8, 0.6]]])
    got = box.suppress_by_class(boxes, scores, 4, 0.5)[0]
    # Of the first class one stays; of the second the other one.
    np.testing.assert_allclose(got[0], [*ONE, 0, 0.9])
    np.testing.assert_allclose(got[1], [0, 1, 4, 5, 1, 0.6])
    np.testing.assert_allclose(got[2:, 4:], -1)


@pytest.mark.parametrize("stride", [1, 4])
def test_aligned_crops_interpolate(stride):
    """On a ramp each bin has the value at its centre, to fractions of a feature."""
    rows, columns = 8, 10
    y, x = np.mgrid[:rows, :columns] + 0.5  # positions of the features' centres
    features = tensor(np.stack([y, x], -1)[None])
    region = np.array([[[1.3, 2.1, 5.3, 8.1]]]) * stride
    got = box.aligned_crops(features, tensor(region), stride, 2)
    assert got.shape == (1, 2, 2, 2)
    np.testing.assert_allclose(got[0, :, 0, 0], [2.3, 4.3], rtol=1e-5)
    np.testing.assert_allclose(got[0, 0, :, 1], [3.6, 6.6], rtol=1e-5)


def test_aligned_crops_of_several_maps():
    features = tensor(np.arange(3.0).reshape(3, 1, 1, 1) * np.ones((3, 4, 4, 1)))
    regions = tensor(np.tile([0, 0, 4, 4], (3, 2, 1)))
    got = box.aligned_crops(features, regions, 1, 1)
    np.testing.assert_allclose(got[:, 0, 0, 0], [0, 0, 1, 1, 2, 2])


def test_smooth_absolute():
    np.testing.assert_allclose(box.smooth_absolute(tensor([-3, 0.5, 0])), [2.5, 0.125, 0])
    np.testing.assert_allclose(box.smooth_absolute(tensor([0.5, 1.0]), 0.5), [0.25, 0.75])
