"""Which sentence pairs may share a batch, so that little padding and few shapes are needed.

A pair of sentences of S and T subwords is a point in the plane, and a batch holds pairs of one
box of the plane, padded to its corner. The boxes are the leaves of a tree: it starts with one box
for all pairs, and again and again the cut is made that saves the most padding. What fills no batch
in its box joins what is left of the box beside it, in the box that encloses the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tfkfac.errors import InputError


@dataclass
class Step:
    """The batches of all ranks in one step: `pairs` of them, padded to (source, target)."""

    source: int
    target: int
    pairs: int


@dataclass
class _Box:
    """A node of the tree.

    Args:
        points: different (S, T) in the box: int, points x 2.
        counts: pairs at each of them: int, points.
        indices: the points' numbers.
    """

    points: np.ndarray
    counts: np.ndarray
    indices: np.ndarray
    children: tuple[int, int] | None = None
    corner: tuple[int, int] = field(init=False)
    pairs: int = field(init=False)

    def __post_init__(self) -> None:
        source, target = self.points.max(axis=0)
        self.corner = int(source), int(target)
        self.pairs = int(self.counts.sum())

    def part(self, chosen: np.ndarray) -> _Box:
        return _Box(self.points[chosen], self.counts[chosen], self.indices[chosen])

    def best_cut(self) -> tuple[int, list[np.ndarray]]:
        """The positions that the best cut in two saves, and the points of its two parts.

        Both parts shrink to the corner of what they hold. No cut saves anything: 0, [].
        """
        best: tuple[int, list[np.ndarray]] = (0, [])
        for axis in range(2):
            order = np.argsort(self.points[:, axis], kind="stable")
            points, counts = self.points[order], np.cumsum(self.counts[order])
            cuts = np.flatnonzero(np.diff(points[:, axis]))  # behind these points
            if not len(cuts):
                continue
            below = np.maximum.accumulate(points)[cuts].sum(axis=1)
            above = np.maximum.accumulate(points[::-1])[::-1][cuts + 1].sum(axis=1)
            positions = counts[cuts] * below + (self.pairs - counts[cuts]) * above
            cut = int(np.argmin(positions))
            saved = self.pairs * sum(self.corner) - int(positions[cut])
            if saved > best[0]:
                best = saved, np.split(order, [cuts[cut] + 1])
        return best


class Buckets:
    """The steps of an epoch for pairs of given lengths, and which pairs each of them takes.

    Args:
        lengths: of source and target, END included: int, pairs x 2.
        tokens: positions that one rank's batch may have on each side, at least the greatest length.
        ranks: batches in a step; each has at least one pair.
        shapes: the most different (S, T), at least 1.

    Raises:
        InputError: if so few pairs fit into a batch that ranks cannot have equally many steps.
    """

    def __init__(self, lengths: np.ndarray, tokens: int, ranks: int, shapes: int) -> None:
        self._ranks = ranks
        radix = int(lengths.max()) + 1
        keys, point_of_pair, counts = np.unique(
            lengths[:, 0] * radix + lengths[:, 1], return_inverse=True, return_counts=True
        )
        points = np.stack(np.divmod(keys, radix), axis=1)
        self._boxes = _grown(_Box(points, counts, np.arange(len(points))), tokens, ranks, shapes)
        box_of_point = np.zeros(len(points), np.uint16 if len(self._boxes) <= 2**16 else np.int64)
        for number, box in enumerate(self._boxes):
            if box.children is None:
                box_of_point[box.indices] = number
        self._box_of_pair = box_of_point[point_of_pair]
        self._layout = list(_layout(self._boxes, tokens, ranks))
        self.steps = [
            Step(*group.corner, group.pairs) for group in self._layout for _ in range(group.steps)
        ]
        self._borrowed = self._borrow()

    def fill(self, pairs: np.ndarray) -> list[np.ndarray]:
        """The pairs of each step; within a box they are taken in the order of `pairs`.

        Args:
            pairs: the numbers of all pairs, in any order.
        """
        boxes = self._box_of_pair[pairs]
        ends = np.cumsum(np.bincount(boxes, minlength=len(self._boxes)))
        waiting = np.split(pairs[np.argsort(boxes, kind="stable")], ends[:-1])
        members: list[np.ndarray] = []
        for group in self._layout:
            children = self._boxes[group.box].children or ()
            pool = np.concatenate([waiting[box] for box in (group.box, *children)])
            for child in children:
                waiting[child] = pool[:0]
            taken, waiting[group.box] = np.split(pool, [group.pairs * group.steps])
            if group.steps:
                members += np.split(taken, group.steps)
        if self._borrowed is not None:
            donor, number = self._borrowed
            members[-1] = np.concatenate([members[-1], members[donor][-number:]])
            members[donor] = members[donor][:-number]
        return members

    def _borrow(self) -> tuple[int, int] | None:
        """Lets the last step have a pair for each rank: from which step, and how many pairs."""
        missing = self._ranks - self.steps[-1].pairs
        if missing <= 0:
            return None
        donor = max(range(len(self.steps)), key=lambda number: self.steps[number].pairs)
        if self.steps[donor].pairs < self._ranks + missing:
            raise InputError(
                f"batches of one sentence pair cannot be shared equally among {self._ranks} "
                "ranks; use more tokens a batch"
            )
        self.steps[donor].pairs -= missing
        self.steps[-1].pairs += missing
        return donor, missing


def _grown(root: _Box, tokens: int, ranks: int, shapes: int) -> list[_Box]:
    """The boxes of the tree that pads least with at most `shapes` shapes; children come later."""
    boxes = [root]
    cuts = {0: root.best_cut()}
    best, best_size = _positions(boxes, tokens, ranks)[0], 1
    # Enclosing boxes often have the shape of a box inside, or fill no batch.
    while len(boxes) < 4 * shapes:
        number = max(cuts, key=lambda box: cuts[box][0])
        saved, parts = cuts.pop(number)
        if saved == 0:
            break
        boxes[number].children = len(boxes), len(boxes) + 1
        for part in parts:
            boxes.append(boxes[number].part(part))
            cuts[len(boxes) - 1] = boxes[-1].best_cut()
        positions, different = _positions(boxes, tokens, ranks)
        if different <= shapes and positions < best:
            best, best_size = positions, len(boxes)
    for box in boxes:
        if box.children and box.children[0] >= best_size:
            box.children = None
    return boxes[:best_size]


class _Group(NamedTuple):
    """Steps of one shape: the box whose pairs they take, corner, pairs a step, and how many."""

    box: int
    corner: tuple[int, int]
    pairs: int
    steps: int


def _layout(boxes: list[_Box], tokens: int, ranks: int) -> Iterator[_Group]:
    """The steps of all boxes, children first; what is left at last makes a smaller one."""
    left = [(0, (0, 0))] * len(boxes)  # how many pairs, and the corner that holds them
    for number in reversed(range(len(boxes))):
        box = boxes[number]
        waiting, corner = box.pairs, box.corner
        if box.children:
            (first, (source, target)), (second, corner) = (left[child] for child in box.children)
            waiting = first + second
            corner = max(source, corner[0]), max(target, corner[1])
        size = tokens // max(*corner, 1) * ranks
        steps, remaining = divmod(waiting, size)
        left[number] = remaining, corner if remaining else (0, 0)
        if steps or box.children:
            yield _Group(number, corner, size, steps)
    if remaining:  # fewer than ranks: they borrow pairs of any box
        yield _Group(0, boxes[0].corner if remaining < ranks else corner, remaining, 1)


def _positions(boxes: list[_Box], tokens: int, ranks: int) -> tuple[int, int]:
    """Positions of an epoch on both sides, padding included, and the number of shapes."""
    groups = [group for group in _layout(boxes, tokens, ranks) if group.steps]
    positions = sum(group.pairs * group.steps * sum(group.corner) for group in groups)
    return positions, len({group.corner for group in groups})
