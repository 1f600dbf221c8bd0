"""Both detectors: losses by hand-worked numbers, targets and detections that undo each other."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import boxes as box
from models import faster_rcnn, racah_detector
from models.benchmark.quality import mean_average_precision

ABSENT = [-1.0] * 5


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


# ------------------------------------------------------------------------------ the single stage


def test_racah_reference_has_the_papers_grid_and_size():
    with keras.StatelessScope(initialize_variables=False):
        model = racah_detector.racah_reference()
    assert model.output_shape == (None, 12, 18, 10)  # cells of 64 pixels
    widths = (16, *racah_detector.FILTERS)
    encoder = sum(25 * a * b + 2 * b for a, b in zip(widths, widths[1:], strict=False))
    assert trainable(model) == encoder + 9 * 1280 * 10 + 10


def test_racah_reconstructs_the_map():
    model = racah_detector.racah_detector((16, 24, 3), (4, 6, 8), reconstruct=True)
    shapes = {name: output.shape for name, output in model.output.items()}
    assert shapes == {"cells": (None, 2, 3, 10), "reconstruction": (None, 16, 24, 3)}
    maps = tf.constant([1.0, 2.0])
    assert float(racah_detector.reconstruction_loss(maps, maps + [0.1, 0.3])) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="3 halvings do not divide"):
        racah_detector.racah_detector((20, 24, 3), (4, 6, 8))


def test_racah_targets():
    boxes = np.array([[[5, 20, 9, 31, 1], [4, 16, 12, 32, 2]], [ABSENT, ABSENT]], np.float32)
    targets = racah_detector.cell_targets(boxes, (2, 4), 8)
    # Centre (8, 24) is the first point of cell (1, 3); one cell high and two wide. The other box,
    # of centre (7, 25.5), is in cell (0, 3): 3.5/4 of it down, 3/16 to the right.
    expected = np.zeros((2, 2, 4, 6))
    expected[0, 1, 3] = 0, 0, 0, 1, 1, 2
    expected[0, 0, 3] = 7 / 8, 3 / 16, -1, np.log2(11 / 8), 1, 1
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    boxes[0, 0] = boxes[0, 1]
    boxes[0, 0, 4] = 3  # of two in one cell the later one stays
    expected[0, 0, 3] = 0
    np.testing.assert_allclose(racah_detector.cell_targets(boxes, (2, 4), 8), expected, atol=1e-6)


def test_racah_loss():
    targets, outputs = np.zeros((1, 1, 2, 6), np.float32), np.zeros((1, 1, 2, 10), np.float32)
    targets[0, 0, 1] = 0.5, 0.25, 1.0, -2.0, 1, 3
    outputs[0, 0, 1, :4] = 0.5, 0.75, 1.0, 0.0
    outputs[0, 0, 0, 4] = np.log(3)  # p(no storm) = 3/4
    # 5 * 0.5²/2, 7 * (2 - 1/2), log 2, log 4, and the other cell's log(4/3) / 2
    expected = 5 * 0.125 + 7 * 1.5 + np.log(2) + np.log(4) + 0.5 * np.log(4 / 3)
    got = racah_detector.detection_loss(tf.constant(targets), tf.constant(outputs))
    assert float(got) == pytest.approx(expected)
    twice = [tf.constant(np.concatenate([a, a])) for a in (targets, outputs)]
    assert float(racah_detector.detection_loss(*twice)) == pytest.approx(expected)


def perfect_outputs(boxes, shape, stride):
    """What the network would say if it knew."""
    targets = racah_detector.cell_targets(boxes, shape, stride).numpy()
    outputs = np.zeros((*targets.shape[:3], 10), np.float32)
    outputs[..., :4] = targets[..., :4]
    outputs[..., 4] = 10 - 20 * targets[..., 4]
    outputs[..., 5] = -outputs[..., 4]
    outputs[..., 6:] = 10 * np.eye(4)[targets[..., 5].astype(int)]
    return outputs


def test_racah_detections_undo_the_targets():
    boxes = np.array([[[4, 16, 12, 30, 2], [20, 3, 30, 9, 0], ABSENT]], np.float32)
    found = racah_detector.detections(perfect_outputs(boxes, (4, 5), 8), 8, 5).numpy()
    assert found.shape == (1, 5, 6)
    order = np.argsort(-found[0, :2, 4])
    np.testing.assert_allclose(found[0, order, :5], boxes[0, :2], atol=1e-4)
    np.testing.assert_allclose(found[0, :2, 5], 1, atol=1e-3)
    assert found[0, 2:, 5].max() < 1e-3
    assert mean_average_precision(boxes, found, 4) == 1


# -------------------------------------------------------------------------------- the two stages


def test_proposal_loss():
    logits, label = tf.constant([[0.0, np.log(3), 5.0]], tf.float32), tf.constant([[1, 0, -1]])
    corrections = tf.zeros((1, 3, 4))
    wanted = tf.constant([[[1.0, 0, 0, 1 / 18], [9] * 4, [9] * 4]])
    chosen = tf.constant([[True, True, False]])
    # log 2 and log 4; with the transition at 1/9: 1 - 1/18, and (1/18)² * 9 / 2 = 1/72
    expected = (np.log(2) + np.log(4) + 1 - 1 / 18 + 1 / 72) / 4
    got = faster_rcnn.proposal_loss(logits, corrections, label, chosen, wanted, 4)
    assert float(got) == pytest.approx(expected)


def test_region_loss():
    logits = tf.zeros((3, 5))
    corrections = np.zeros((3, 4, 4), np.float32)
    corrections[0, 2] = 2.0  # of the region's own class; the others' do not count
    corrections[0, 1] = corrections[1] = 100.0
    kind = tf.constant([3, 0, 1])
    got = faster_rcnn.region_loss(
        logits, tf.constant(corrections), kind, tf.zeros((3, 4)), tf.constant([1.0, 1.0, 0.0])
    )
    # Each log 5; the first also 4 (2 - 1/2); the third is padding.
    assert float(got) == pytest.approx((2 * np.log(5) + 6) / 2)


@pytest.fixture(scope="module")
def detector():
    keras.utils.set_random_seed(0)
    return faster_rcnn.FasterRCNN(
        faster_rcnn.residual_backbone((32, 48, 3), (4, 6)),
        sizes=(8, 16),
        ratios=(1.0,),
        width=8,
        crop=2,
        units=8,
        sampling=faster_rcnn.Sampling(16, 40, 8, 8, 5),
        seed=0,
    )


def test_faster_rcnn_shapes(detector):
    maps = np.random.default_rng(0).standard_normal((2, 32, 48, 3)).astype(np.float32)
    outputs = detector(maps)
    assert detector.stride == 4
    assert outputs["features"].shape == (2, 8, 12, 6)
    assert outputs["logits"].shape == (2, 8 * 12 * 2)
    proposals = outputs["proposals"].numpy()
    assert proposals.shape == (2, 8, 4)
    assert proposals.min() >= 0 and proposals[..., 2].max() <= 32 and proposals[..., 3].max() <= 48
    found = detector.detect(maps).numpy()
    assert found.shape == (2, 5, 6)
    assert np.all(np.diff(found[..., 5], axis=1) <= 0)


def test_faster_rcnn_anchors_are_where_the_features_are(detector):
    """The reshaped outputs and the anchors have one order: a bias for anchors of one size only
    makes proposals of that size, around the cell where the features are."""
    detector.proposer.get_layer("rpn_logits").bias.assign([0.0, 50.0])
    detector.proposer.get_layer("rpn_corrections").kernel.assign(
        tf.zeros_like(detector.proposer.get_layer("rpn_corrections").kernel)
    )
    proposals = detector(np.zeros((1, 32, 48, 3), np.float32))["proposals"].numpy()[0]
    inner = proposals[(proposals[:, 0] > 0) & (proposals[:, 2] < 32)]
    np.testing.assert_allclose(inner[:, 2] - inner[:, 0], 16)
    detector.proposer.get_layer("rpn_logits").bias.assign([0.0, 0.0])


def test_faster_rcnn_without_storms_has_a_finite_loss(detector):
    maps = np.zeros((2, 32, 48, 3), np.float32)
    nothing = tf.fill((2, 3, 5), -1.0)
    loss = detector.compute_loss(maps, nothing, detector(maps, training=True))
    # Nothing is positive: at most log losses of 16 anchors and of the regions remain.
    assert np.isfinite(float(loss)) and float(loss) < 5


def test_faster_rcnn_true_boxes_are_among_the_regions(detector):
    """With a truth that no anchor is near, the head still has one positive region to learn from:
    its kind and weight, seen through a spy."""
    seen: dict[str, Any] = {}

    def spy(logits, corrections, kind, wanted, weight):
        seen.update(kind=kind.numpy(), wanted=wanted.numpy(), weight=weight.numpy())
        return tf.constant(0.0)

    maps = np.zeros((1, 32, 48, 3), np.float32)
    truth = tf.constant([[[1.0, 1, 3, 3, 2], ABSENT]])
    original, faster_rcnn.region_loss = faster_rcnn.region_loss, spy
    try:
        detector.compute_loss(maps, truth, detector(maps, training=True))
    finally:
        faster_rcnn.region_loss = original
    positive = seen["kind"] > 0
    assert list(seen["kind"][positive]) == [3]
    np.testing.assert_allclose(seen["wanted"][positive], 0, atol=1e-5)
    assert seen["weight"][positive] == 1
    # The padding beside it is no region.
    assert seen["weight"].sum() == 8


def test_faster_rcnn_learns_one_map():
    """All gradients arrive: in a few steps it finds the two storms that it is shown."""
    keras.utils.set_random_seed(1)
    model = faster_rcnn.FasterRCNN(
        faster_rcnn.residual_backbone((32, 48, 2), (8, 12)),
        sizes=(8, 16),
        ratios=(1.0,),
        width=16,
        crop=2,
        units=24,
        sampling=faster_rcnn.Sampling(32, 60, 16, 16, 8),
        seed=0,
    )
    truth = np.array([[[4, 4, 14, 14, 1], [12, 26, 26, 40, 3], ABSENT]] * 2, np.float32)
    maps = 0.1 * np.random.default_rng(0).standard_normal((2, 32, 48, 2)).astype(np.float32)
    maps[:, 4:14, 4:14, 0] += 2
    maps[:, 12:26, 26:40, 1] += 2
    model.compile(optimizer=keras.optimizers.Adam(3e-3), run_eagerly=True)
    model.fit(maps, truth, batch_size=2, epochs=50, verbose=0)
    assert mean_average_precision(truth, model.predict(maps, verbose=0), 4) > 0.9


def test_faster_rcnn_reference():
    with keras.StatelessScope(initialize_variables=False):
        backbone = faster_rcnn.resnet50_backbone((768, 1152, 16))
        head = faster_rcnn.region_head(1024, 7, 1024, 4)
    assert backbone.output_shape == (None, 48, 72, 1024)
    # 7*7*1024 -> 1024 -> 1024 -> 5 and 16
    assert trainable(head) == 50176 * 1024 + 1024 + 1024 * 1024 + 1024 + 1025 * 21
    assert len(box.anchors((48, 72), 16, (32, 64, 128, 256, 512), (0.5, 1, 2))) == 51840
