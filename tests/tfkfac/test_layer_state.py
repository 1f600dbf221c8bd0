"""What ranks keep of a layer, and how a checkpoint turns from one form into the other."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfkfac import layer_state
from tfkfac.layer_state import ARCHIVE, BASES, NOTHING
from tfkfac.plan import BLOCKS, DIAGONAL, IDENTITY, LayerPlan, Side


def plan(rows, columns, groups=1):
    shape = (groups, rows.size, columns.size)
    return LayerPlan("layer", "dense", 0, None, 1, groups, rows, columns, (), shape)


PLANS = {
    "dense": plan(Side(4), Side(3)),
    "groups": plan(Side(4), Side(3), groups=2),
    "blocks": plan(Side(5, BLOCKS, 2), Side(3, DIAGONAL)),
    "elementwise": plan(Side(4, DIAGONAL), Side(1, IDENTITY)),
}


def positive(shape, side, generator):
    """Something that could have been decomposed."""
    if side.structure == DIAGONAL:
        return generator.uniform(0.5, 2.0, shape)
    rows = generator.normal(size=(*shape[:-1], 2 * shape[-1]))
    if side.structure == BLOCKS:
        inside = np.arange(side.padded_size) < side.size
        rows *= inside.reshape(1, side.blocks, side.block_size, 1)
    matrix = rows @ np.swapaxes(rows, -1, -2)
    return matrix + 0.1 * np.eye(shape[-1]) * (side.structure != BLOCKS)


@pytest.mark.parametrize("method", ["eigen", "inverse"])
@pytest.mark.parametrize("name", PLANS)
def test_bases_and_archive_follow_from_each_other(method, name):
    generator = np.random.default_rng(0)
    layer = PLANS[name]
    archive = layer_state.create(layer, method, tf.float64, False, ARCHIVE)
    bases = layer_state.create(layer, method, tf.float64, False, BASES)
    saved = {key: variable.numpy() for key, variable in archive.named().items()}
    for side_name, side in layer.sides():
        shape = side.shape(layer.groups)
        matrix = positive(shape, side, generator)
        if method == "inverse" and side.structure == BLOCKS:
            matrix = matrix + 0.1 * np.eye(shape[-1])
        saved[f"{side_name}_decomposed"] = matrix
    converted = bases.convert(saved)
    assert set(converted) == set(bases.named())
    for side_name, side in layer.sides():
        expected = layer_state.decompose(
            tf.constant(saved[f"{side_name}_decomposed"]), side, method
        )
        for key, value in zip(layer.basis_shapes(side_name, method), expected, strict=True):
            np.testing.assert_array_equal(converted[key], value)
    back = archive.convert({key: value.numpy() for key, value in converted.items()})
    for key, value in saved.items():
        np.testing.assert_allclose(back[key], value, atol=1e-9, err_msg=key)


@pytest.mark.parametrize("keeps", [BASES, ARCHIVE])
def test_initial_archive_means_initial_bases(keeps):
    for layer in PLANS.values():
        for method in ("eigen", "inverse"):
            bases = layer_state.create(layer, method, tf.float64, False, BASES)
            other = layer_state.create(layer, method, tf.float64, False, keeps)
            saved = {key: variable.numpy() for key, variable in other.named().items()}
            converted = bases.convert(saved)
            for side_name, side in layer.sides():
                if side.structure == BLOCKS:
                    continue  # its padding has other, unused values
                for key in layer.basis_shapes(side_name, method):
                    got = np.abs(converted[key])
                    np.testing.assert_allclose(got, bases.variables[key], atol=1e-12)


def test_rank_without_bases_keeps_only_factors():
    state = layer_state.create(PLANS["dense"], "eigen", tf.float32, False, NOTHING)
    assert set(state.variables) == {"rows_factor", "columns_factor"}


def test_what_is_missing_is_named():
    bases = layer_state.create(PLANS["dense"], "eigen", tf.float64, False, BASES)
    saved = {key: variable.numpy() for key, variable in bases.named().items()}
    del saved["columns_eigenvectors"]
    with pytest.raises(KeyError, match="columns_eigenvectors"):
        bases.convert(saved)
