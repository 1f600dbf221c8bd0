"""Two and four ranks under `horovodrun` against a single process on the same global batches."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.distributed import launching, worker

pytestmark = pytest.mark.distributed

# What trains like which single process.
ALIKE = {
    "factor-wise": "factor-wise",
    "layer-wise": "factor-wise",
    "hybrid": "factor-wise",
    "memory": "factor-wise",
    "inverse, layer-wise": "inverse",
    "refresh": "refresh",
    "refresh, hybrid": "refresh",
    "one layer, hybrid": "one layer",
}
CASES = [(n, name) for n, names in worker.SCENARIOS.items() for name in names if name in ALIKE]
EXACTLY_RESUMED = ("layer-wise", "inverse, layer-wise")
RESUMED = (*EXACTLY_RESUMED, "refresh, hybrid")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders with what the ranks of each launch wrote; two ranks resume what four saved."""
    folders: dict[int, Path] = {}
    for ranks in (4, 2):
        folder = tmp_path_factory.mktemp(f"ranks{ranks}")
        if ranks == 2:
            (folder / "earlier").mkdir()
            for name in RESUMED:
                shutil.copy(folders[4] / f"{name}.keras", folder / "earlier")
        done = launching.launch(ranks, "worker", str(folder))
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
        folders[ranks] = folder
    return folders


@pytest.fixture(scope="module")
def launches(folders):
    """By number of ranks: by rank: arrays by name."""
    return {
        ranks: [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(ranks)]
        for ranks, folder in folders.items()
    }


@pytest.fixture(scope="module")
def single():
    """Weights by step and logs of the single process, by name."""
    return {
        name: worker.train(worker.make_model(0, name), 0, 1, []) for name in set(ALIKE.values())
    }


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_stay_bit_equal(launches, ranks):
    first = launches[ranks][0]
    for other in launches[ranks][1:]:
        for name in first:
            if not name.endswith(": memory"):
                np.testing.assert_array_equal(other[name], first[name], err_msg=name)


@pytest.mark.parametrize(("ranks", "name"), CASES)
def test_ranks_equal_one_process(launches, single, ranks, name):
    weights, history = single[ALIKE[name]]
    assert len(weights) == worker.STEPS
    tolerance = {"float32": 1e-5, "float64": 1e-10}[worker.precision(name)]
    np.testing.assert_allclose(launches[ranks][0][name], weights, atol=tolerance, rtol=0)
    # They went somewhere.
    assert np.abs(weights[-1] - weights[0]).max() > 0.01
    # Metrics of the ranks' parts of batches average to those of whole ones.
    np.testing.assert_allclose(launches[ranks][1][f"{name}: loss"], history["loss"], rtol=1e-5)
    np.testing.assert_allclose(
        launches[ranks][1][f"{name}: accuracy"], history["accuracy"], rtol=1e-5
    )


def test_methods_differ(single):
    """Or the comparisons above would prove nothing."""
    exact, _ = worker.train(worker.make_model(0, "refresh left out"), 0, 1, [])
    for one, other in (
        (single["factor-wise"][0], single["inverse"][0]),
        (single["refresh"][0], exact),
    ):
        assert np.abs(one[-1] - other[-1]).max() > 1e-4


def test_half_precision_stays_close(launches, single):
    weights, _ = single["factor-wise"]
    half = launches[2][0]["half"]
    distance = np.abs(half - weights).max()
    assert 1e-7 < distance < 0.02 * np.abs(weights[-1] - weights[0]).max()


def test_all_ranks_count_decompositions(launches):
    expected = -(-worker.STEPS // worker.INTERVALS["eigen_interval"])
    for name in ("factor-wise", "layer-wise", "refresh, hybrid"):
        for rank in launches[4]:
            assert set(rank[f"{name}: decompositions"]) == {expected}


def test_layer_wise_ranks_hold_less(launches):
    everything = launches[4][1]["factor-wise: memory"]
    for rank in launches[4][1:]:
        assert rank["layer-wise: memory"] < 0.8 * everything
    # Rank 0 holds an archive instead of the others' bases.
    assert launches[4][0]["layer-wise: memory"] <= launches[4][0]["factor-wise: memory"]


@pytest.mark.parametrize("name", EXACTLY_RESUMED)
def test_four_ranks_checkpoint_resumed_on_two(launches, name):
    uninterrupted = launches[4][0][name][worker.CHECKPOINT_STEP :]
    np.testing.assert_allclose(launches[2][0][f"resumed {name}"], uninterrupted, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", EXACTLY_RESUMED)
def test_four_ranks_checkpoint_resumed_in_one_process(folders, launches, name):
    model = keras.models.load_model(folders[4] / f"{name}.keras")
    weights, _ = worker.train(model, 0, 1, [], worker.CHECKPOINT_STEP)
    uninterrupted = launches[4][0][name][worker.CHECKPOINT_STEP :]
    np.testing.assert_allclose(weights, uninterrupted, atol=2e-5, rtol=0)


def test_refreshed_bases_of_others_are_resumed_as_exact_ones(launches):
    """Rank 0 archives the factors that they follow: the run goes on, but not number by number."""
    uninterrupted = launches[4][0]["refresh, hybrid"]
    resumed = launches[2][0]["resumed refresh, hybrid"]
    assert len(resumed) == worker.STEPS - worker.CHECKPOINT_STEP
    moved = np.linalg.norm(uninterrupted[-1] - uninterrupted[0])
    assert 0 < np.linalg.norm(resumed[-1] - uninterrupted[-1]) < 0.5 * moved
