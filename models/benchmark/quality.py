"""How good a trained network is, as pure functions of its outputs and the truth.

Everything is float64 NumPy, for a quality that decides over a benchmark is no place for surprises.
"""

from __future__ import annotations

import numpy as np

from models.data.cosmology import measured_power_spectrum


def accuracy(labels: np.ndarray, scores: np.ndarray) -> float:
    """Fraction of examples whose largest score is that of their label; scores N x classes."""
    return float(np.mean(np.argmax(scores, axis=-1) == labels))


def area_under_curve(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a signal's score is above a background's.

    Ties count as half.

    Args:
        labels: N, true or 1 for signal.
        scores: N.

    Raises:
        ValueError: if one of both is missing.
    """
    positive = np.asarray(labels).astype(bool)
    signals, backgrounds = int(positive.sum()), int((~positive).sum())
    if not signals or not backgrounds:
        raise ValueError(f"{signals} signals and {backgrounds} backgrounds have no ROC curve")
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]  # of tied scores the mean
    return float((ranks[positive].sum() - signals * (signals + 1) / 2) / (signals * backgrounds))


def mean_absolute_error(truth: np.ndarray, outputs: np.ndarray) -> float:
    """Mean |difference| over examples and outputs."""
    return float(np.mean(np.abs(np.asarray(outputs, np.float64) - truth)))


def overlap(boxes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of N boxes with M others, N x M; top, left, bottom, right."""
    boxes, other = np.asarray(boxes, np.float64)[:, None], np.asarray(other, np.float64)[None]
    sides = np.minimum(boxes[..., 2:], other[..., 2:]) - np.maximum(boxes[..., :2], other[..., :2])
    common = np.maximum(sides, 0).prod(-1)
    union = sum((b[..., 2:] - b[..., :2]).prod(-1) for b in (boxes, other)) - common
    return np.where(union > 0, common / np.where(union > 0, union, 1), 0)


def average_precision(hits: np.ndarray, scores: np.ndarray, objects: int) -> float:
    """Area under the precision-recall curve, the precision being made monotonic.

    Args:
        hits: N, whether a detection is right.
        scores: N.
        objects: how many there were to be found, at least one.
    """
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(hits[order])
    precision = right / np.arange(1, len(right) + 1)
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.concatenate([[0], right]) / objects
    return float(np.sum(np.diff(recall) * best_beyond))


def mean_average_precision(
    truth: np.ndarray, detections: np.ndarray, classes: int, needed: float = 0.5
) -> float:
    """The mean over classes of their average precision (mAP).

    From the best detection to the worst, one is right if the object of its class on its map that it
    overlaps most is not yet taken and overlaps by `needed` or more, as in PASCAL VOC.

    Args:
        truth: N x M x 5, top, left, bottom, right, class; class -1 for none.
        detections: N x K x 6, the same and a score.
        classes: their number; those without an object do not count.
        needed: intersection over union.

    Returns:
        From 0 to 1; nan without any object.
    """
    precisions = []
    for kind in range(classes):
        objects = int((truth[..., 4] == kind).sum())
        if not objects:
            continue
        hits: list[bool] = []
        scores: list[float] = []
        for boxes, found in zip(truth, detections, strict=True):
            mine = boxes[boxes[:, 4] == kind]
            candidates = found[found[:, 4] == kind]
            candidates = candidates[np.argsort(-candidates[:, 5], kind="stable")]
            taken = np.zeros(len(mine), bool)
            for row, score in zip(
                overlap(candidates[:, :4], mine[:, :4]), candidates[:, 5], strict=True
            ):
                nearest = int(row.argmax()) if len(row) else -1
                hit = nearest >= 0 and row[nearest] >= needed and not taken[nearest]
                if hit:
                    taken[nearest] = True
                hits.append(hit)
                scores.append(float(score))
        precisions.append(average_precision(np.array(hits, bool), np.array(scores), objects))
    return float(np.mean(precisions)) if precisions else float("nan")


def mean_intersection_over_union(truth: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """The mean over classes of pixels in both over pixels in either (IoU), as DeepCAM's.

    Args:
        truth, predicted: class of each pixel, of one shape.
        classes: those in neither do not count.
    """
    confusion = np.bincount(
        truth.reshape(-1).astype(np.int64) * classes + predicted.reshape(-1), minlength=classes**2
    ).reshape(classes, classes)
    both = np.diag(confusion)
    either = confusion.sum(0) + confusion.sum(1) - both
    return float(np.mean(both[either > 0] / either[either > 0]))


def spectral_distance(real: np.ndarray, generated: np.ndarray, cell: float = 1.0) -> float:
    """How far generated density maps are from real ones: mean |log ratio| of power spectra.

    The spectra are means over the maps, in shells of wave number up to half the Nyquist frequency,
    and without the first shell. 0.1 is about 10 %.

    Args:
        real, generated: N x n x n densities, not contrasts; N may differ.
        cell: side of a pixel.
    """

    def spectrum(maps: np.ndarray) -> np.ndarray:
        mean = np.mean(real)
        powers = [measured_power_spectrum(image / mean - 1, cell)[1] for image in maps]
        return np.mean(powers, axis=0)[1 : real.shape[1] // 4]

    ratio = np.maximum(spectrum(generated), 1e-12) / spectrum(real)
    return float(np.mean(np.abs(np.log(ratio))))


def histogram_distance(real: np.ndarray, generated: np.ndarray, bins: int = 20) -> float:
    """Total variation between the pixels' distributions: 0 for equal, 1 for disjoint ones.

    Args:
        real, generated: values in any shape; bins have equally many of the real ones.
    """
    edges = np.unique(np.quantile(real, np.linspace(0, 1, bins + 1)[1:-1]))
    counts = []
    for values in (real, generated):
        place = np.searchsorted(edges, values.reshape(-1), side="right")
        counts.append(np.bincount(place, minlength=len(edges) + 1) / values.size)
    return float(np.abs(counts[0] - counts[1]).sum() / 2)
