"""Every rank gets as much, and together they get everything once."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfkfac.sharding import shard


@pytest.mark.parametrize(("length", "size"), [(12, 3), (13, 3), (14, 3), (5, 5), (9, 1)])
@pytest.mark.parametrize("kind", ["array", "known", "unknown"])
def test_parts_are_disjoint_and_equally_long(length, size, kind):
    data: Any = np.arange(length)
    if kind != "array":
        data = tf.data.Dataset.from_tensor_slices(data)
    if kind == "unknown":
        data = data.filter(lambda _: True)
    parts = [list(np.asarray(list(shard(data, rank, size)))) for rank in range(size)]
    assert len({len(part) for part in parts}) == 1
    kept = length // size * size
    assert sorted(sum(parts, [])) == list(range(kept))
    assert parts[0] == list(range(0, kept, size))


@pytest.mark.parametrize("kind", ["array", "known"])
def test_repeat_keeps_everything(kind):
    data = np.arange(7)
    if kind == "known":
        data = tf.data.Dataset.from_tensor_slices(data)
    parts = [[int(i) for i in shard(data, rank, 3, "repeat")] for rank in range(3)]
    assert parts == [[0, 3, 6], [1, 4, 0], [2, 5, 1]]


def test_structures_keep_their_form():
    images, labels = np.arange(12).reshape(6, 2), np.arange(6)
    x, y = shard((images, labels), 1, 2)
    np.testing.assert_array_equal(y, [1, 3, 5])
    np.testing.assert_array_equal(x, images[1::2])
    features = shard({"a": images, "b": labels}, 0, 2)
    np.testing.assert_array_equal(features["b"], [0, 2, 4])


def test_structured_dataset_of_unknown_length():
    dataset = tf.data.Dataset.from_tensor_slices((np.arange(7), {"twice": 2 * np.arange(7)}))
    own = list(shard(dataset.filter(lambda *_: True), 1, 2))
    assert [(int(x), int(f["twice"])) for x, f in own] == [(1, 2), (3, 6), (5, 10)]


def test_endless_dataset():
    dataset = tf.data.Dataset.range(4).repeat()
    assert [int(i) for i in shard(dataset, 1, 2).take(4)] == [1, 3, 1, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.arange(4), 2, 2), "rank must be in"),
        ((np.arange(4), 0, 2, "keep"), "remainder must be"),
        ((np.arange(2), 0, 3), "2 examples for 3 ranks"),
        (((np.arange(4), np.arange(5)), 0, 2), "different lengths"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        shard(*arguments)


def test_repeat_needs_a_length():
    with pytest.raises(ValueError, match="known length"):
        shard(tf.data.Dataset.range(4).filter(lambda _: True), 0, 2, "repeat")
