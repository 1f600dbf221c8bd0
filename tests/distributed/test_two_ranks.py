"""Two ranks under `horovodrun` against a single process on the same global batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.distributed import worker

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both ranks wrote."""
    folder = tmp_path_factory.mktemp("ranks")
    launcher = Path(sys.executable).with_name("horovodrun")
    worker_command = [sys.executable, "-m", "tests.distributed.worker", str(folder)]
    command = [str(launcher), "-np", "2", "--gloo", *worker_command]
    environment = dict(os.environ, PYTHONPATH=str(ROOT), TF_CPP_MIN_LOG_LEVEL="3")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(2)]


@pytest.mark.distributed
def test_ranks_stay_bit_equal(ranks):
    first, second = ranks
    np.testing.assert_array_equal(first["weights"], second["weights"])
    np.testing.assert_array_equal(first["continued"], second["continued"])


@pytest.mark.distributed
def test_two_ranks_equal_one_process(ranks):
    model = worker.make_model(seed=0)
    weights, history = worker.train(model, 0, 1, [])
    assert len(weights) == worker.STEPS
    np.testing.assert_allclose(ranks[0]["weights"], weights, atol=1e-5, rtol=0)
    # They went somewhere.
    assert np.abs(weights[-1] - weights[0]).max() > 0.01
    # Metrics of a rank's half batches average to those of the whole ones.
    np.testing.assert_allclose(ranks[0]["loss"], history["loss"], rtol=1e-5)
    np.testing.assert_allclose(ranks[1]["accuracy"], history["accuracy"], rtol=1e-5)


@pytest.mark.distributed
def test_broadcast_carries_factors_and_bases(ranks):
    model = worker.make_model(seed=0)
    worker.train(model, 0, 1, [])
    continued, _ = worker.train(model, 0, 1, [])
    np.testing.assert_allclose(ranks[1]["continued"], continued, atol=1e-4, rtol=0)
