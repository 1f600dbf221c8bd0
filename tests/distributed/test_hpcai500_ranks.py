"""A trial on two ranks: averaged gradients, shared evaluation, and what only ranks have."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.distributed import hpcai500_worker, launching
from tfkfac.ranks import Ranks

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hpcai500")
    done = launching.launch(2, "hpcai500_worker", str(folder))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return folder


@pytest.fixture(scope="module")
def written(folder):
    """What each rank wrote."""
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_the_step_is_that_of_the_mean_gradient(folder, name):
    pairs = zip(*(hpcai500_worker.gradients(rank) for rank in (0, 1)), strict=True)
    expected = hpcai500_worker.weights_after(name, [(a + b) / 2 for a, b in pairs])
    for rank in (0, 1):
        found = np.load(folder / f"rank{rank}.npz")
        for number, value in enumerate(expected):
            np.testing.assert_allclose(found[f"{name}{number}"], value, rtol=1e-5, atol=1e-6)


def test_ranks_agree_on_what_they_came_to(written):
    first, second = (values["record"] for values in written)
    assert first["status"] == second["status"]
    for name in ("quality", "training_quality", "training_loss", "step"):
        assert first["history"][0][name] == second["history"][0][name]
    assert first["peak_memory"] == second["peak_memory"]


def test_all_test_examples_are_evaluated_together(written):
    alone = hpcai500_worker.untrained_quality(Ranks())
    assert [values["untrained"] for values in written] == [alone, alone]


def test_the_share_of_the_exchange(written):
    record = written[0]["record"]
    assert 0 < record["allreduce_share"] < 1
    assert record["system"]["threads"] == 1


def test_the_exchange_as_a_micro_benchmark(written):
    assert written[0]["exchange"] == ["allreduce on 2 ranks", 2, 2 * 0.5 * 4 * 1000, 3]
