"""Refreshed eigenbases: rotations towards the eigenvectors, whoever computes which columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.tfkfac.training import compiled, dense_model, fit, flat_weights
from tfkfac import KFAC, refresh


def factor(generator, n):
    """A covariance with a spread-out spectrum."""
    rows = generator.normal(size=(4 * n, n)) * np.logspace(0, -2, n)
    rotation = np.linalg.qr(generator.normal(size=(n, n)))[0]
    rows = rows @ rotation
    return rows.T @ rows / len(rows)


def run(matrices, vectors, members=1, blur=0.0):
    """Bases after a refresh that `members` ranks share; they work one after the other here."""
    edges = [[len(m) * i // members for i in range(members + 1)] for m in matrices]
    tasks = [
        [
            refresh.Refresh(
                tf.constant(m), tf.constant(q), e[i], e[i + 1] - e[i], tf.constant(blur, m.dtype)
            )
            for m, q, e in zip(matrices, vectors, edges, strict=True)
        ]
        for i in range(members)
    ]
    if members == 1:
        return refresh.refresh(tasks[0], lambda columns, name: list(columns))
    # Ranks in lockstep: replay each rank's work up to the exchange that is being asked for.
    known: dict[str, list[list[tf.Tensor]]] = {}
    bases: list[list[Any]] = []
    while not bases:
        sent = []
        for rank in range(members):

            def gather(columns, name):
                if name not in known:
                    raise _Waiting(name, columns)
                own = known[name]
                return [tf.concat([r[i] for r in own], -1) for i in range(len(columns))]

            try:
                bases.append(refresh.refresh(tasks[rank], gather))
            except _Waiting as waiting:
                sent.append(waiting)
        if sent:
            assert len({waiting.name for waiting in sent}) == 1
            known[sent[0].name] = [list(waiting.columns) for waiting in sent]
    for other in bases[1:]:
        for one, two in zip(bases[0], other, strict=True):
            np.testing.assert_array_equal(one.vectors, two.vectors)
            np.testing.assert_array_equal(one.values, two.values)
    return bases[0]


class _Waiting(Exception):
    def __init__(self, name, columns):
        super().__init__(name)
        self.name, self.columns = name, columns


def off_diagonal(matrix, vectors):
    rotated = vectors.T @ matrix @ vectors
    return np.linalg.norm(rotated - np.diag(np.diag(rotated)))


def test_an_eigenbasis_stays():
    matrix = factor(np.random.default_rng(0), 12)
    values, vectors = np.linalg.eigh(matrix)
    [basis] = run([matrix], [vectors])
    np.testing.assert_allclose(basis.vectors, vectors, atol=1e-12)
    np.testing.assert_allclose(basis.values, values, atol=1e-12)


def test_repeated_refreshes_reach_the_eigenvectors():
    generator = np.random.default_rng(1)
    old, new = factor(generator, 12), factor(generator, 12)
    matrix = 0.9 * old + 0.1 * new
    _, vectors = np.linalg.eigh(old)
    distances = [off_diagonal(matrix, vectors)]
    for _ in range(12):
        [basis] = run([matrix], [vectors])
        vectors = basis.vectors.numpy()
        distances.append(off_diagonal(matrix, vectors))
    assert distances[1] < 0.7 * distances[0]
    assert distances[-1] < 1e-9 * distances[0]
    np.testing.assert_allclose(np.sort(basis.values), np.linalg.eigvalsh(matrix), rtol=1e-6)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(12), atol=1e-10)


def test_lost_orthogonality_is_taken_back():
    generator = np.random.default_rng(2)
    matrix = factor(generator, 10)
    _, vectors = np.linalg.eigh(matrix)
    vectors = vectors + 0.01 * generator.normal(size=(10, 10))
    [basis] = run([matrix], [vectors])
    before = np.abs(vectors.T @ vectors - np.eye(10)).max()
    after = np.abs(basis.vectors.numpy().T @ basis.vectors.numpy() - np.eye(10)).max()
    assert after < 0.1 * before


def test_values_are_rayleigh_quotients_of_the_new_columns():
    generator = np.random.default_rng(3)
    matrix = factor(generator, 9)
    _, vectors = np.linalg.eigh(factor(generator, 9))
    [basis] = run([matrix], [vectors])
    new = basis.vectors.numpy()
    np.testing.assert_allclose(basis.values, np.diag(new.T @ matrix @ new), rtol=1e-10)


def test_equal_eigenvalues_do_no_harm():
    _, vectors = np.linalg.eigh(factor(np.random.default_rng(4), 6))
    [basis] = run([np.eye(6)], [vectors])
    np.testing.assert_allclose(basis.vectors, vectors, atol=1e-4)
    np.testing.assert_allclose(basis.values, np.ones(6), atol=1e-7)


@pytest.mark.parametrize("members", [2, 3, 5])
def test_shared_work_gives_the_same_basis(members):
    generator = np.random.default_rng(5)
    matrices = [factor(generator, 7), factor(generator, 4)]
    vectors = [np.linalg.eigh(m + 0.1 * np.diag(np.arange(len(m))))[1] for m in matrices]
    alone = run(matrices, vectors)
    for one, shared in zip(alone, run(matrices, vectors, members), strict=True):
        np.testing.assert_allclose(shared.vectors, one.vectors, atol=1e-12)
        np.testing.assert_allclose(shared.values, one.values, atol=1e-12)


def test_blur_leaves_close_eigenvalues_alone():
    generator = np.random.default_rng(6)
    matrix = factor(generator, 8)
    _, vectors = np.linalg.eigh(factor(generator, 8))
    [basis] = run([matrix], [vectors], blur=1e6)
    np.testing.assert_allclose(basis.vectors, vectors, atol=1e-9)


def test_training_with_refreshes_follows_exact_decompositions():
    """The first decomposition is exact, the later ones are near it, and the stale one is not."""
    settings: dict[str, Any] = {
        "learning_rate": 0.05,
        "damping": 0.01,
        "factor_interval": 1,
        "factor_decay": 0.5,
    }
    start, final = dense_model().get_weights(), {}
    cases: dict[str, dict[str, Any]] = {
        "exact": {"eigen_interval": 1},
        "refreshed": {"eigen_interval": 1, "refresh_above": 1},
        "stale": {"eigen_interval": 1000},
    }
    for name, options in cases.items():
        model = compiled(KFAC(**settings, **options), start)
        fit(model, epochs=3)
        final[name] = flat_weights(model)
    near = np.linalg.norm(final["refreshed"] - final["exact"])
    assert 0 < near < 0.5 * np.linalg.norm(final["stale"] - final["exact"])


def test_inverses_are_not_refreshed():
    with pytest.raises(ValueError, match='refresh_above works with method="eigen" only'):
        KFAC(method="inverse", refresh_above=10)
