"""The training command with tensorflow-addons' callbacks, and without them."""

from __future__ import annotations

import importlib.util
import itertools
import types

import keras
import numpy as np
import pytest

from models.run_directory import RunDirectory
from models.train import main

DIGITS = ["--dataset", "digits", "--batch-size", "512", "--epochs", "3"]
KFAC = ["--optimizer", "kfac", "--factor-interval", "1", "--eigen-interval", "2"]
HAS_ADDONS = importlib.util.find_spec("tensorflow_addons") is not None


@pytest.mark.skipif(HAS_ADDONS, reason="tensorflow-addons is installed")
@pytest.mark.parametrize("option", [["--time-limit", "9"], ["--progress", "tqdm"]])
def test_addons_that_are_missing(option, tmp_path, capsys):
    assert main([*DIGITS, *option, "--out", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    name = option[0].removeprefix("--").replace("-", "_")
    assert f"{name}: tensorflow-addons is missing, which needs TensorFlow 2.15" in message


def numbers(path) -> list[np.ndarray]:
    """All variables in a checkpoint, the optimizer's included."""
    model = keras.models.load_model(path)
    optimizer = model.optimizer
    variables = [*model.variables, *optimizer.variables, *optimizer.state_variables.values()]
    return [np.asarray(variable) for variable in variables]


@pytest.mark.skipif(not HAS_ADDONS, reason="tensorflow-addons is not installed")
def test_a_training_that_ran_out_of_time_resumes(tmp_path, monkeypatch, capfd):
    arguments = [*DIGITS, *KFAC, "--progress", "tqdm"]
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    assert "3/3" in capfd.readouterr().err  # the bar

    ticks = itertools.count(step=10)  # at the beginning, and at the end of each epoch
    clock = types.SimpleNamespace(time=lambda: next(ticks))
    monkeypatch.setattr("tensorflow_addons.callbacks.time_stopping.time", clock)
    broken = str(tmp_path / "broken")
    assert main([*arguments, "--time-limit", "15", "--out", broken]) == 0
    assert "Timed stopping at epoch 2 after training for 0:00:15" in capfd.readouterr().out
    progress = RunDirectory(broken).progress()
    assert progress is not None and progress.epoch == 2
    assert main(["--out", broken, "--resume", "--time-limit", "1000"]) == 0

    for one, other in zip(
        numbers(tmp_path / "broken" / "last.keras"),
        numbers(tmp_path / "whole" / "last.keras"),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
