"""Boxes: overlaps, anchors, encodings, matching, sampling and suppression, as pure functions.

A box is (top, left, bottom, right) in pixels, with a continuous origin at the first pixel's corner.
Leading dimensions are those of a batch wherever `...` is written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

LARGEST_LOG_RATIO = math.log(1000 / 16)  # of sizes; what is beyond is a mistake of the network
POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


def area(boxes: Any) -> Any:  # ... x N x 4 -> ... x N
    """Areas, 0 for boxes that end before they begin."""
    height = tf.maximum(boxes[..., 2] - boxes[..., 0], 0.0)
    width = tf.maximum(boxes[..., 3] - boxes[..., 1], 0.0)
    return height * width


def overlaps(first: Any, second: Any) -> Any:  # ... x N x 4, ... x M x 4 -> ... x N x M
    """Intersection over union of every pair; 0 where the union is empty."""
    one, other = first[..., :, None, :], second[..., None, :, :]
    corner = tf.maximum(one[..., :2], other[..., :2])
    opposite = tf.minimum(one[..., 2:], other[..., 2:])
    common = tf.reduce_prod(tf.maximum(opposite - corner, 0.0), axis=-1)
    union = area(first)[..., :, None] + area(second)[..., None, :] - common
    return tf.math.divide_no_nan(common, union)


def anchors(
    shape: tuple[int, int], stride: int, sizes: Sequence[float], ratios: Sequence[float] = (1.0,)
) -> np.ndarray:
    """Boxes around the centre of every cell of a feature map.

    Args:
        shape: rows and columns of the feature map.
        stride: pixels of the image per cell.
        sizes: square roots of the anchors' areas, in pixels.
        ratios: their heights over their widths.

    Returns:
        (rows x columns x sizes x ratios) x 4, in that order, float32.
    """
    halves = [
        (size * math.sqrt(ratio) / 2, size / math.sqrt(ratio) / 2)
        for size in sizes
        for ratio in ratios
    ]
    around = np.array([(-h, -w, h, w) for h, w in halves])
    centres = [(np.arange(count) + 0.5) * stride for count in shape]
    y, x = np.meshgrid(*centres, indexing="ij")
    boxes = np.stack([y, x, y, x], axis=-1)[:, :, None, :] + around
    return boxes.reshape(-1, 4).astype(np.float32)


def _centres_and_sizes(boxes: Any) -> tuple[Any, Any]:
    sizes = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sizes / 2, sizes


def encode(boxes: Any, references: Any) -> Any:  # ... x 4, ... x 4 -> ... x 4
    """What a network is to predict for boxes next to anchors or proposals.

    The distance of the centres in units of the reference's size, and the logarithms of the ratio of
    sizes: (Δy/h, Δx/w, log h'/h, log w'/w), the parametrisation of R-CNN.
    """
    centres, sizes = _centres_and_sizes(boxes)
    reference_centres, reference_sizes = _centres_and_sizes(references)
    reference_sizes = tf.maximum(reference_sizes, 1e-3)
    moves = (centres - reference_centres) / reference_sizes
    scales = tf.math.log(tf.maximum(sizes, 1e-3) / reference_sizes)
    return tf.concat([moves, scales], axis=-1)


def decode(deltas: Any, references: Any) -> Any:  # ... x 4, ... x 4 -> ... x 4
    """The inverse of `encode`."""
    centres, sizes = _centres_and_sizes(references)
    centres = centres + deltas[..., :2] * sizes
    halves = sizes * tf.exp(tf.minimum(deltas[..., 2:], LARGEST_LOG_RATIO)) / 2
    return tf.concat([centres - halves, centres + halves], axis=-1)


def clip(boxes: Any, shape: tuple[int, int]) -> Any:  # ... x 4 -> ... x 4
    """Boxes cut at the edges of an image of this many rows and columns."""
    limits = tf.constant([*shape, *shape], boxes.dtype)
    return tf.minimum(tf.maximum(boxes, 0.0), limits)


def match(
    overlap: Any, present: Any, positive: float, negative: float, every_object: bool
) -> tuple[Any, Any]:
    """Which object each candidate belongs to, and whether it is to be told from background.

    Args:
        overlap: of candidates and objects, ... x N x M.
        present: which of the M objects there are, ... x M booleans; the rest is padding.
        positive: overlap from which on a candidate is positive.
        negative: overlap below which it is negative; between the two it is ignored.
        every_object: make each object's best candidates positive, however small the overlap.

    Returns:
        Number of the object with the largest overlap, ... x N, and POSITIVE, NEGATIVE or IGNORED.
    """
    overlap = tf.where(present[..., None, :], overlap, -1.0)
    best = tf.reduce_max(overlap, axis=-1)
    label = tf.where(best >= positive, POSITIVE, tf.where(best < negative, NEGATIVE, IGNORED))
    chosen = tf.argmax(overlap, axis=-1, output_type=tf.int32)
    if every_object:
        best_candidate = tf.reduce_max(overlap, axis=-2, keepdims=True)
        is_best = (overlap >= best_candidate) & (overlap > 0)
        label = tf.where(tf.reduce_any(is_best, axis=-1), POSITIVE, label)
    return chosen, label


def sample(label: Any, count: int, positive_fraction: float, priority: Any) -> Any:
    """Which candidates take part in the loss: some positives, and negatives to fill up.

    Args:
        label: POSITIVE, NEGATIVE or IGNORED, ... x N.
        count: how many to take, at most.
        positive_fraction: of `count`, at most.
        priority: ... x N distinct numbers; the smallest are taken. Random ones sample at random.

    Returns:
        ... x N booleans.
    """

    def rank_within(members: Any) -> Any:
        order = tf.argsort(tf.where(members, priority, np.inf), axis=-1)
        return tf.argsort(order, axis=-1)  # the inverse permutation

    positives, negatives = label == POSITIVE, label == NEGATIVE
    limit = int(count * positive_fraction)
    taken = positives & (rank_within(positives) < limit)
    rest = count - tf.reduce_sum(tf.cast(taken, tf.int32), axis=-1, keepdims=True)
    return taken | (negatives & (rank_within(negatives) < rest))


def suppress(
    boxes: Any, scores: Any, count: int, overlap: float, lowest: float = -math.inf
) -> tuple[Any, Any]:
    """Non-maximum suppression: the best boxes, without those that overlap a better one too much.

    Args:
        boxes: ... x N x 4.
        scores: ... x N.
        count: how many to keep.
        overlap: intersection over union above which the worse of two goes.
        lowest: score that a box must have.

    Returns:
        Numbers of the boxes that stay, best first, ... x count, 0 where there are no more, and
        which of them there are, ... x count booleans.
    """
    numbers, found = tf.image.non_max_suppression_padded(
        boxes,
        scores,
        max_output_size=count,
        iou_threshold=overlap,
        score_threshold=lowest,
        pad_to_max_output_size=True,
        canonicalized_coordinates=True,
    )
    return numbers, tf.range(count) < found[..., None]


def suppress_by_class(found: Any, scores: Any, count: int, overlap: float) -> Any:
    """Suppresses boxes class by class, and keeps the best of all.

    Args:
        found: N x B x 4, or N x B x classes x 4 if each class has boxes of its own.
        scores: N x B x classes.
        count: how many to keep of a map.
        overlap: intersection over union above which the worse of two goes.

    Returns:
        N x count x 6: top, left, bottom, right, class and score; class and score are -1 where there
        are no more.
    """
    kept = []
    for kind in range(scores.shape[-1]):
        of_kind = found if len(found.shape) == 3 else found[:, :, kind]
        numbers, valid = suppress(of_kind, scores[..., kind], count, overlap)
        chosen = tf.gather(of_kind, numbers, batch_dims=1)
        score = tf.where(valid, tf.gather(scores[..., kind], numbers, batch_dims=1), -1.0)
        label = tf.where(valid, float(kind), -1.0)
        kept.append(tf.concat([chosen, label[..., None], score[..., None]], axis=-1))
    together = tf.concat(kept, axis=1)
    best = tf.math.top_k(together[..., 5], count).indices
    return tf.gather(together, best, batch_dims=1)


def aligned_crops(features: Any, boxes: Any, stride: int, size: int) -> Any:
    """RoIAlign: features in a regular grid within each box, interpolated, not rounded.

    Each of size x size bins is the mean of 2 x 2 bilinear samples.

    Args:
        features: N x rows x columns x channels.
        boxes: N x B x 4, in pixels of the image.
        stride: pixels of the image per feature.
        size: bins of a side.

    Returns:
        (N B) x size x size x channels.
    """
    batch, per_image = tf.shape(boxes)[0], boxes.shape[1]
    rows, columns = features.shape[1], features.shape[2]
    samples = 2 * size
    flat = tf.reshape(boxes, [-1, 4]) / stride
    spacing = (flat[:, 2:] - flat[:, :2]) / samples
    # Feature i has its centre at i + 1/2. `crop_and_resize` wants the first and last sample, with
    # the centres of the first and the last feature at 0 and 1.
    first = flat[:, :2] + spacing / 2 - 0.5
    last = first + spacing * (samples - 1)
    extent = tf.constant([rows - 1, columns - 1] * 2, tf.float32)
    corners = tf.concat([first, last], axis=1) / tf.maximum(extent, 1.0)
    # What lies outside of the features continues their edge.
    image = tf.repeat(tf.range(batch), per_image)
    crops = tf.image.crop_and_resize(
        features, tf.clip_by_value(corners, 0.0, 1.0), image, [samples, samples]
    )
    return tf.nn.avg_pool2d(crops, 2, 2, "VALID")


def smooth_absolute(difference: Any, transition: float = 1.0) -> Any:
    """|d| - t/2 beyond the transition t, d² / 2t within: "smooth L1" or Huber's loss over t."""
    size = tf.abs(difference)
    return tf.where(size < transition, size**2 / (2 * transition), size - transition / 2)
