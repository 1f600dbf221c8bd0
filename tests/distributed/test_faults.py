"""Whatever one rank does, all processes end, say why, and leave the last checkpoint whole."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.distributed.launching import launch
from tfkfac import KFAC

pytestmark = pytest.mark.distributed

# Seconds that ranks wait for each other when they start.
PATIENCE = {"HOROVOD_GLOO_TIMEOUT_SECONDS": "10"}


@pytest.mark.parametrize(
    ("fault", "message", "has_checkpoint"),
    [
        ("killed", "exited with non-zero status", True),
        ("raises", "the data set went away", True),
        ("stalls", "rank 0 has stalled: batch 2 did not end", True),
        ("absent", "timeout", False),
        ("different models", "ranks differ in the layer of variable 0", False),
        ("wrapped", "without hvd.DistributedOptimizer", False),
    ],
)
def test_every_process_ends_with_a_message(tmp_path, fault, message, has_checkpoint):
    done = launch(2, "faulty", fault, str(tmp_path), **PATIENCE)
    assert done.returncode != 0
    assert "finished" not in done.stdout
    assert message.lower() in (done.stdout + done.stderr).lower()
    assert (tmp_path / "last.keras").exists() is has_checkpoint
    if has_checkpoint:
        model = keras.models.load_model(tmp_path / "last.keras")
        assert isinstance(model.optimizer, KFAC)
        assert int(model.optimizer.iterations) == 4
        x = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
        model.fit(x, x[:, :1], batch_size=8, verbose=0)
        assert int(model.optimizer.iterations) == 8


def test_one_rank_that_wants_to_stop_stops_all(tmp_path):
    done = launch(2, "faulty", "wants to stop", str(tmp_path), **PATIENCE)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        assert f"rank {rank} finished after 1 epochs" in done.stdout
