"""Folding a symmetric matrix into half of its entries."""

import numpy as np
import pytest
import tensorflow as tf

from tfkfac import triangle


def symmetric(shape, n, seed=0):
    matrix = np.random.default_rng(seed).normal(size=(*shape, n, n))
    return matrix + np.swapaxes(matrix, -1, -2)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 17])
@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_unfold_undoes_fold(n, shape):
    matrix = symmetric(shape, n)
    folded = triangle.fold(tf.constant(matrix))
    assert tuple(folded.shape) == (*shape, *triangle.folded_shape(n))
    np.testing.assert_array_equal(triangle.unfold(folded).numpy(), matrix)


@pytest.mark.parametrize("n", [4, 5])
def test_rectangle_holds_the_upper_triangle_and_nothing_else(n):
    matrix = symmetric((), n)
    upper = np.triu(matrix)
    below_is_garbage = upper + np.tril(np.full((n, n), np.nan), -1)
    folded = triangle.fold(tf.constant(below_is_garbage)).numpy()
    expected = list(upper[np.triu_indices(n)])
    if n % 2:  # the middle row is there twice
        middle = n // 2
        expected += list(upper[middle, middle:])
    np.testing.assert_allclose(sorted(folded.ravel()), sorted(expected))


def test_rectangle_by_hand():
    matrix = np.array([[1, 2, 3, 4], [2, 5, 6, 7], [3, 6, 8, 9], [4, 7, 9, 10]], np.float32)
    folded = triangle.fold(tf.constant(matrix)).numpy()
    np.testing.assert_array_equal(folded, [[10, 1, 2, 3, 4], [9, 8, 5, 6, 7]])


def test_half_of_the_entries():
    rows, columns = triangle.folded_shape(576)
    assert rows * columns == 576 * 577 // 2
