"""nmt-train on two ranks against one process that takes both ranks' batches at once."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from nmt.train import main
from nmt.training import run
from tests.distributed.launching import launch
from tests.distributed.nmt_worker import UnionOfRanks, arguments
from tests.nmt.tasks import log


def numbers(path):
    """Weights and optimizer state."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and not name.startswith("training/"):
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


@pytest.mark.distributed
def test_two_ranks_train_as_one_process(tmp_path, monkeypatch):
    options = arguments(tmp_path)
    several, one = tmp_path / "several", tmp_path / "one"
    done = launch(2, "nmt_worker", *options, "--threads", "1", "--out", str(several))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    monkeypatch.setattr(run, "TokenBatches", UnionOfRanks)
    assert main([*options, "--out", str(one)]) == 0

    for name in ("last", "best", "averaged"):
        ours, theirs = (numbers(folder / f"{name}.weights.h5") for folder in (several, one))
        assert ours.keys() == theirs.keys()
        for key in ours:
            np.testing.assert_allclose(ours[key], theirs[key], atol=2e-5, err_msg=f"{name} {key}")
    before, after = (
        numbers(one / "checkpoints" / f"{update:08d}.weights.h5") for update in (6, 12)
    )
    assert max(np.abs(after[key] - before[key]).max() for key in after) > 0.01
    for ours, theirs in zip(log(several), log(one), strict=True):
        for column in ("update", "epoch", "tokens", "bleu", "chrf", "bleu_signature"):
            assert ours[column] == theirs[column]
        for column in ("loss", "cross_entropy", "validation_loss"):
            assert float(ours[column]) == pytest.approx(float(theirs[column]), rel=1e-4)
    # One line of output each, from the first rank.
    for line in ("training text: 301 pairs read", "update 12 ", "finished: 12 updates"):
        assert done.stdout.count(line) == 1
    assert {path.name for path in several.iterdir()} == {path.name for path in one.iterdir()}
