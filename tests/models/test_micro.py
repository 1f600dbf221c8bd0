"""Micro benchmarks: formulas against the graph's count, results against numpy, and the clock."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from models.benchmark import flops, micro
from models.benchmark.micro import Operation

SMALL = {
    "convolution_2d": dict(batch=2, size=6, channels=3, filters=4, kernel=3, stride=2),
    "convolution_3d": dict(batch=1, size=4, channels=2, filters=3, kernel=3),
    "fully_connected": dict(batch=3, inputs=5, outputs=4),
}


def products(operation):
    traced = tf.function(operation.run, autograph=False).get_concrete_function()
    return flops.graph_products(traced.graph)


@pytest.mark.parametrize("name", SMALL)
def test_formulas_agree_with_the_graph(name):
    """Products are counted there, without the additions of a bias."""
    forward, backward = getattr(micro, name)(**SMALL[name])
    additions = 12 if name == "fully_connected" else 0
    assert products(forward) == forward.flops - additions
    assert products(backward) == backward.flops - additions
    assert forward.images == SMALL[name]["batch"]


def test_worked_formulas():
    # 2 * (2*3*3*4) outputs * 9 * 3
    assert micro.convolution_2d(**SMALL["convolution_2d"])[0].flops == 2 * 72 * 27
    product = micro.matrix_product(2, 3, 4)
    assert (product.flops, product.traffic) == (48, 4 * (6 + 12 + 8))
    forward, backward = micro.pooling(1, 4, 2, 2, 2)
    assert (forward.flops, backward.flops) == (2 * 2 * 2 * 3, 8)
    assert micro.eigendecomposition(4).flops == 9 * 64


def test_results():
    values, vectors = micro.eigendecomposition(5).run()
    again = vectors.numpy() @ np.diag(values) @ vectors.numpy().T
    root = np.random.default_rng(0).standard_normal((5, 5), np.float32)
    np.testing.assert_allclose(again, root @ root.T / 5, atol=1e-5)
    forward, backward = micro.pooling(1, 4, 1, 2, 2)
    image = np.random.default_rng(0).standard_normal((1, 4, 4, 1), np.float32)[0, ..., 0]
    maxima = image.reshape(2, 2, 2, 2).max((1, 3))
    np.testing.assert_array_equal(forward.run()[0, ..., 0], maxima)
    gradient = backward.run()[0].numpy()
    assert np.count_nonzero(gradient) == 4
    np.testing.assert_array_equal((gradient != 0)[0, ..., 0], np.isin(image, maxima))


def test_allreduce_on_one_rank():
    pytest.importorskip("horovod.tensorflow")
    operation = micro.allreduce(10)
    assert operation.name == "allreduce on 1 ranks"
    assert (operation.flops, operation.traffic) == (0, 0)


def test_samples_come_after_the_warm_up():
    calls = []
    operation = Operation("counting", lambda: calls.append(0), 1.0, 1.0)
    ticks = itertools.count(step=0.5)
    assert micro.samples(operation, 4, warm_up=2, clock=lambda: next(ticks)) == [0.5] * 4
    assert len(calls) == 6
    with pytest.raises(ValueError, match="0 repetitions"):
        micro.samples(operation, 0)
    back = itertools.count(step=-1.0)
    with pytest.raises(ValueError, match="counting: the clock went back by 1.0 s"):
        micro.samples(operation, 1, clock=lambda: next(back))


def test_roofline():
    operation = Operation("any", lambda: None, flops=100.0, traffic=50.0)
    assert micro.roofline(operation, peak_flops=1000.0, bandwidth=300.0) == 600
    assert micro.roofline(operation, peak_flops=500.0, bandwidth=300.0) == 500
