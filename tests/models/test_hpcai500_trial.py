"""Trials of a real workload: what is recorded, what diverges, and one launch of the command."""

import dataclasses
import itertools
import json

import h5py
import numpy as np
import pytest

from models import workloads
from models.benchmark import mllog, record, trial, verification
from models.benchmark.record import Conditions, Plan
from models.benchmark.stopwatch import Stopwatch
from models.data.examples import ExampleDataset
from models.hpcai500.command import main
from tfkfac.errors import InputError, TrainingError

PLAN = Plan(
    "image-classification",
    "tiny",
    "sgd",
    {"learning_rate": 0.05, "momentum": 0.9},
    batch_size=32,
    epochs=3,
    steps_per_epoch=12,
    target=0.5,
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A trial's record, its events, and its lines of progress."""
    path = tmp_path_factory.mktemp("trial") / "log"
    lines: list[str] = []
    with mllog.Log(path) as log:
        result = trial.run(PLAN, Conditions(price_per_hour=36.0), log=log, say=lines.append)
    return result, mllog.read(path), lines


def test_a_trial_stops_at_its_target(done):
    result, _, lines = done
    last = result.history[-1]
    assert result.status == "reached" and result.error is None and result.note is None
    assert last.quality >= 0.5 and all(entry.quality < 0.5 for entry in result.history[:-1])
    assert [entry.step for entry in result.history] == [
        12 * (epoch + 1) for epoch in range(len(result.history))
    ]
    assert result.time_to_quality == result.seconds == last.seconds
    assert result.cost_to_quality == pytest.approx(last.seconds / 100)
    assert abs(last.training_quality - last.quality) < 0.2
    assert lines[0].startswith("epoch 1/3  accuracy 0.")


def test_its_numbers_fit_together(done):
    result, _, _ = done
    assert result.warm_up_steps + result.timed_steps == result.history[-1].step
    assert result.step_seconds <= result.longest_step_seconds
    timed = 32 * result.timed_steps / result.samples_per_second
    assert timed < result.seconds
    assert result.flops_per_second == pytest.approx(
        result.flops_per_sample * result.samples_per_second
    )
    assert result.vflops == result.flops_per_second  # at the target, capped
    assert result.optimizer_flops_per_step == 0
    assert result.parameters == 19074
    assert result.peak_memory > 1e8 and result.allreduce_share is None
    assert len(result.data_hash) == 64
    assert record.from_json(json.loads(json.dumps(record.to_json(result))), "x") == result


def test_its_events_are_in_order(done):
    result, events, _ = done
    keys = [event["key"] for event in events]
    epochs = len(result.history)
    rounds = ["epoch_start", "epoch_stop", "eval_start", "eval_stop", "eval_accuracy"]
    begin = keys.index("init_start")
    assert keys[begin:] == ["init_start", "init_stop", "run_start", *epochs * rounds, "run_stop"]
    assert events[-1]["metadata"] == {"status": "success"}
    values = {event["key"]: event["value"] for event in events}
    assert values["seed"] == 1 and values["opt_base_learning_rate"] == 0.05
    assert values["eval_accuracy"] == result.history[-1].quality
    times = [event["time_ms"] for event in events]
    assert times == sorted(times)


def test_the_seed_decides(done):
    """A trial that is run again is the same, another repetition is another."""
    losses = {}
    for seed in (1, 2):
        plan = dataclasses.replace(PLAN, seed=seed, target=0.0)  # reached at once
        losses[seed] = trial.run(plan, Conditions()).history[0].training_loss
    first = done[0].history[0].training_loss
    assert losses[1] == pytest.approx(first, rel=1e-4)
    assert abs(losses[2] - first) > 1e-3


@pytest.mark.parametrize("optimizer", ["sgd", "kfac"])
def test_a_diverged_training_is_a_miss(optimizer):
    settings = {"learning_rate": 1e30, "warm_up": 0.0}
    if optimizer == "kfac":
        settings["kl_clip"] = None  # type: ignore[assignment]
    result = trial.run(
        dataclasses.replace(PLAN, optimizer=optimizer, settings=settings), Conditions()
    )
    assert result.status == "missed"
    assert result.note is not None and result.note.startswith("diverged: the loss is nan after")
    assert result.history[-1].quality is None
    assert len(result.history) == 1 and result.history[0].step < 12
    assert record.from_json(record.to_json(result), "x").note == result.note


def test_a_target_that_is_never_reached():
    plan = dataclasses.replace(PLAN, target=1.1, epochs=2, steps_per_epoch=2)
    result = trial.run(plan, Conditions())
    assert (result.status, result.time_to_quality, result.cost_to_quality) == ("missed", None, None)
    assert len(result.history) == 2
    assert result.vflops is not None and result.flops_per_second is not None
    assert result.vflops < result.flops_per_second


def test_a_clock_that_goes_back_ends_a_trial(monkeypatch):
    times = itertools.chain(range(5), itertools.repeat(3))
    monkeypatch.setattr(
        trial, "Stopwatch", lambda meter, watts: Stopwatch(now=lambda: float(next(times)))
    )
    with pytest.raises(TrainingError, match="the clock went back by 1 s"):
        trial.run(dataclasses.replace(PLAN, epochs=1, steps_per_epoch=6), Conditions())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workload": "hepp"}, "unknown workload hepp"),
        ({"settings": {"learning_rate": 1, "momentom": 1}}, "unknown setting of sgd momentom"),
        (
            {"batch_size": 5000, "steps_per_epoch": None},
            "1437 training examples do not fill one batch of 5000",
        ),
    ],
)
def test_impossible_trials(change, message):
    with pytest.raises(InputError, match=message):
        trial.run(dataclasses.replace(PLAN, **change), Conditions())


def test_a_file_that_is_damaged_further_on(monkeypatch):
    """What a reader says while batches are made is the trial's error, in one line."""

    class Damaged:
        def __len__(self):
            return 64

        def read(self, indices):
            if len(indices) > 1:  # the first alone shows types and shapes
                raise InputError("volume7.h5: cut short")
            return np.zeros((1, 8, 8, 1), np.float32), np.zeros(1, np.int32)

    workload = workloads.get("image-classification")
    size = dataclasses.replace(
        workload.size("tiny"), data=lambda path, cache: ExampleDataset("x", Damaged(), Damaged())
    )
    monkeypatch.setitem(workload.sizes, "tiny", size)
    with pytest.raises(InputError, match="^volume7.h5: cut short$"):
        trial.run(dataclasses.replace(PLAN, steps_per_epoch=2), Conditions())


def test_a_file_that_is_no_plan(tmp_path, capsys):
    file = tmp_path / "plan.json"
    assert trial.main([str(file), "out.json"]) == 2
    assert "plan.json: No such file" in capsys.readouterr().err
    file.write_text('{"plan": {"workload": "hep"}, "conditions": {}}')
    assert trial.main([str(file), "out.json"]) == 2
    assert "plan.json: no plan of a trial" in capsys.readouterr().err


def test_the_command(tmp_path, capsys):
    """In processes: K-FAC on digits, and HEP from a damaged file."""
    events = tmp_path / "events.h5"
    with h5py.File(events, "w") as file:
        file["images"] = np.zeros((50, 3, 64, 64), np.float32)
        file["labels"] = np.zeros(50, np.int64)
    events.write_bytes(events.read_bytes()[:100_000])
    out = tmp_path / "out"
    command = ["run", "image-classification", "hep", "--size", "tiny", "--optimizers", "kfac"]
    command += ["--epochs", "1", "--steps", "12", "--data", f"hep={events}", "--out", str(out)]
    command += ["--target", "image-classification=0.15", "hep=none"]
    command += ["--watts", "50", "--threads", "1"]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "1/2 image-classification-tiny-kfac-b32-r1-1  reached, accuracy 0." in error
    results = json.loads((out / "results.json").read_text())
    good, bad = results["records"]
    assert good["status"] == "reached" and bad["status"] == "failed"
    assert str(events) in bad["error"] and "Traceback" not in bad["error"]
    assert good["energy"]["source"] == "estimated" and good["system"]["threads"] == 1
    assert good["optimizer_flops_per_step"] > 0
    assert good["note"] == "speed is of 7 steps, fewer than eigen_interval 50"
    suite = json.loads((out / "suite.json").read_text())
    assert results["suite"] == suite
    assert suite["targets"] == {"image-classification": "set by --target"}
    assert verification.of_path(out) == []
    assert main(command) == 1  # nothing is run again
    assert "2 of 2 trials were done before" in capsys.readouterr().err


def test_the_micro_command(capsys):
    """In a process, at the tiny size."""
    assert main(["micro", "--size", "tiny", "--repetitions", "2", "--json", "--watts", "10"]) == 0
    entries = json.loads(capsys.readouterr().out)
    names = [entry["name"] for entry in entries]
    for part in ("2-D forward", "2-D backward", "3-D", "pooling", "connected", "product", "eigen"):
        assert any(part in name for name in names)
    for entry in entries:
        assert len(entry["seconds"]) == 2 and entry["median"] > 0
        roof = min(entry["peak_flops"], entry["bandwidth"] * entry["flops"] / entry["traffic"])
        assert entry["roofline"] == pytest.approx(roof)
        speed = entry["flops"] / entry["median"]
        assert entry["share_of_roofline"] == pytest.approx(speed / roof)
        assert entry["energy"]["source"] in ("measured", "estimated")
