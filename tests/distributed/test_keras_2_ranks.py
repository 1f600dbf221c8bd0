"""Two ranks with Keras 2 equal one, with this project's callbacks and with Horovod's own."""

from __future__ import annotations

import numpy as np
import pytest

from tests.distributed import launching, worker
from tfkfac.keras_version import KERAS_3

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(KERAS_3, reason="Keras 3: test_ranks is about it; Horovod's callbacks fail"),
]


def test_two_ranks_equal_one_process(tmp_path):
    done = launching.launch(2, "keras_2_worker", str(tmp_path))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    first, second = (dict(np.load(tmp_path / f"rank{rank}.npz")) for rank in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)
    weights, history = worker.train(worker.make_model(0, "factor-wise"), 0, 1, [])
    for name in ("factor-wise", "layer-wise", "Horovod"):
        np.testing.assert_allclose(first[name], weights, atol=1e-5, rtol=0, err_msg=name)
        np.testing.assert_allclose(first[f"{name}: loss"], history["loss"], rtol=1e-5)
    assert np.abs(weights[-1] - weights[0]).max() > 0.01
    # Horovod's warm-up came to its end.
    np.testing.assert_allclose(first["Horovod: learning rate"], [0.05], rtol=1e-6)
    assert "without hvd.DistributedOptimizer" in str(first["wrapped"])
