"""The suite with made-up trials: kept, skipped, failed, killed, interrupted, and a full disk."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from models import workloads
from models.benchmark import record, results, suite, tuning
from models.benchmark.progress import Progress
from models.benchmark.record import Conditions, Plan
from models.benchmark.suite import Directory, locked, run_trials
from models.hpcai500 import micro
from models.hpcai500.command import main
from tfkfac.errors import InputError, TrainingError

# In a trial's place: what it does is the seed's matter. It counts how often it ran.
WORKER = """
import os, sys, time
from pathlib import Path
from models.benchmark import record
plan, conditions = record.read_task(Path(sys.argv[1]))
target = Path(sys.argv[2])
with (target.parent / f"runs-of-{plan.seed}").open("a") as file:
    file.write("x")
print("epoch 1/1", flush=True)
if plan.seed == 2:
    print("error: events.h5: cut short", file=sys.stderr)
    sys.exit(2)
if plan.seed == 3:
    os.kill(os.getpid(), 9)
if plan.seed == 4:
    time.sleep(600)
made = record.Record(plan, "missed", "AUC", True, (record.Evaluation(1, 5, 1.0, 0.5, 0.1),))
record.write(target, record.to_json(made))
"""


@pytest.fixture(autouse=True)
def made_up_trials(monkeypatch):
    monkeypatch.setattr(
        suite,
        "_command",
        lambda module, ranks, task, target: [sys.executable, "-c", WORKER, str(task), str(target)],
    )


def plans(*seeds):
    return [
        Plan("hep", "tiny", "sgd", {"learning_rate": 1}, 32, 1, repetition=s, seed=s) for s in seeds
    ]


def run(path, planned, **options):
    """What `hpcai500 run` does with plans."""
    directory = Directory(path)
    with locked(path):
        directory.open(planned, Conditions(), {})
        trials = {plan.name: plan for plan in planned}
        return run_trials(
            directory.trials,
            trials,
            Conditions(),
            Progress(),
            after_each=directory.write_results,
            **options,
        )


def times_run(path, seed):
    return (path / "trials" / f"runs-of-{seed}").stat().st_size


def statuses(path):
    return [entry["status"] for entry in json.loads((path / "results.json").read_text())["records"]]


def test_a_failed_trial_does_not_lose_the_others(tmp_path, capsys):
    records = run(tmp_path, plans(1, 2, 3, 5))
    assert [r.status for r in records.values()] == ["missed", "failed", "failed", "missed"]
    assert statuses(tmp_path) == ["missed", "failed", "failed", "missed"]
    errors = [r.error for r in records.values()]
    assert errors == [
        None,
        "events.h5: cut short",
        "ended by SIGKILL, perhaps for want of memory",
        None,
    ]
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        "1/4 hep-tiny-sgd-b32-r1-1",
        "  epoch 1/1",
        "1/4 hep-tiny-sgd-b32-r1-1  missed, AUC 0.5000",
    ]
    assert "2/4 hep-tiny-sgd-b32-r1-2  failed: events.h5: cut short" in lines
    assert not list((tmp_path / "trials").glob("*.plan"))


def test_what_is_done_is_not_done_again(tmp_path):
    run(tmp_path, plans(1, 2))
    run(tmp_path, plans(1, 2, 5))  # more of it
    assert [times_run(tmp_path, seed) for seed in (1, 2, 5)] == [1, 1, 1]
    run(tmp_path, plans(1, 2), retry_failed=True)
    assert [times_run(tmp_path, seed) for seed in (1, 2, 5)] == [1, 2, 1]
    assert statuses(tmp_path) == ["missed", "failed", "missed"]  # 5 is still part of the suite


def test_other_plans_of_the_same_name_are_refused(tmp_path):
    run(tmp_path, plans(1))
    other = [dataclasses.replace(plan, epochs=7) for plan in plans(1)]
    with pytest.raises(InputError, match="epochs of hep-tiny-sgd-b32-r1-1 is 1 there and 7 now"):
        run(tmp_path, other)
    with pytest.raises(InputError, match="suite.json: threads of this suite is None there and 2"):
        Directory(tmp_path).open(plans(1), Conditions(threads=2), {})
    assert statuses(tmp_path) == ["missed"]


def test_damaged_records_are_refused(tmp_path):
    run(tmp_path, plans(1))
    file = Directory(tmp_path).record(plans(1)[0].name)
    text = file.read_text()
    file.write_text(text.replace("0.5", "0.9"))
    with pytest.raises(InputError, match="r1-1.json: its digest is not that of its contents"):
        run(tmp_path, plans(1))
    file.write_text(text[:100])
    with pytest.raises(InputError, match="r1-1.json: not JSON, or cut short"):
        run(tmp_path, plans(1))


def test_foreign_directories_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="has other files; choose another directory"):
        run(tmp_path, plans(1))
    with pytest.raises(InputError, match="thesis.tex: not a directory"):
        run(tmp_path / "thesis.tex", plans(1))


def test_two_suites_do_not_share_a_directory(tmp_path):
    with locked(tmp_path), pytest.raises(InputError, match="another process runs trials here"):
        run(tmp_path, plans(1))


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    run(tmp_path, plans(1))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.json")}

    def full(path, value):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(record, "write_task", lambda path, *rest: full(path, rest))
    with pytest.raises(TrainingError, match="cannot be written: No space left on device; results"):
        run_trials(tmp_path / "trials", {"other": plans(5)[0]}, Conditions(), Progress())
    monkeypatch.setattr(record, "write", full)
    with pytest.raises(TrainingError, match="results.json: cannot be written: No space left"):
        Directory(tmp_path).write_results()
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.json")} == before


REPLACED = """
import sys
from pathlib import Path
from models.benchmark import suite
suite._command = lambda module, ranks, task, target: [
    sys.executable, "-c", {worker!r}, str(task), str(target)
]
"""
COMMAND = """
from models.hpcai500 import micro
from models.hpcai500.command import main
sys.exit(main(["run", "image-classification", "--size", "tiny", "--optimizers", "sgd", "--seed",
               "4", "--out", {out!r}]))
"""
# Without what the command imports.
ALONE = """
from models.benchmark.progress import Progress
from models.benchmark.record import Conditions, Plan
plan = Plan("hep", "tiny", "sgd", {{}}, 32, 1, seed=4)
suite.run_trials(Path({out!r}) / "trials", {{plan.name: plan}}, Conditions(), Progress())
"""


@pytest.mark.parametrize(("number", "script"), [(signal.SIGINT, COMMAND), (signal.SIGKILL, ALONE)])
def test_an_end_from_outside_ends_the_trial_too(tmp_path, number, script):
    """And says what is safe, if it can."""
    filled = (REPLACED + script).format(worker=WORKER, out=str(tmp_path / "out"))
    process = subprocess.Popen(
        [sys.executable, "-c", filled],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background processes ignore it, and so would this one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    mark = tmp_path / "out" / "trials" / "runs-of-4"
    while not mark.exists() and process.poll() is None:
        time.sleep(0.05)
    children = subprocess.run(
        ["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True
    ).stdout.split()
    assert len(children) == 1
    process.send_signal(number)
    _, error = process.communicate()
    while os.path.exists(f"/proc/{children[0]}"):
        time.sleep(0.05)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted; 0 of 1 trials are safe in" in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a command: list, run"),
        (["rnu"], "unknown command rnu (did you mean run?)"),
        (["run", "--sizes", "tiny"], "unknown option --sizes (did you mean --size?)"),
        (["run", "hepp"], "unknown workload hepp (did you mean hep?)"),
        (["run", "--size", "tinny"], "--size: unknown size tinny (did you mean tiny?)"),
        (["run", "--optimizers", "adam"], "unknown optimizer adam (did you mean adamw?)"),
        (["run", "--ranks", "0"], "--ranks: expected a whole number above 0, not 0"),
        (["run", "--scaling", "week"], "--scaling: unknown scaling week (did you mean weak?)"),
        (["run", "--price-per-hour", "-1"], "--price-per-hour: expected a number, 0 or more"),
        (["run", "--watts", "many"], "--watts: expected a number above 0, not 'many'"),
        (["run", "--vflops-cap", "0"], "--vflops-cap: expected a number above 0, or none"),
        (["run", "--target", "hep=inf"], "--target: hep: expected a number, not 'inf'"),
        (["run", "hep", "--data", "hep=/no.h5"], "--data: hep: no file or folder /no.h5"),
        (["run", "--settings", "/no.yaml"], "--settings: no file /no.yaml"),
        (["tune", "--candidates", "x"], "--candidates: expected a whole number above 0"),
        (["micro", "--size", "big"], "--size: unknown size big"),
    ],
)
def test_wrong_options(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("error: ") and message in captured.err
    assert not list(tmp_path.iterdir())  # nothing half-written


def test_ranks_need_horovod(monkeypatch):
    monkeypatch.setattr(suite.importlib.util, "find_spec", lambda name: None)
    suite.check_launcher([1])
    with pytest.raises(InputError, match="several ranks need Horovod; `make horovod`"):
        suite.check_launcher([1, 2])


def test_the_list(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["workload", "size"]
    sizes = sum(len(workloads.get(name).sizes) for name in workloads.names())
    assert len(lines) == 1 + sizes and not any(line.endswith(" ") for line in lines)
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["workload"] == "hep" and rows[0]["settings"]["sgd"]["momentum"] == 0.9


def test_the_table_of_micro_benchmarks():
    made = results.Micro("product", "CPU", (0.003, 0.001, 0.002), 4e9, 1e6, 20, 1, 8e12, 1e10)
    lines = micro.table([made]).splitlines()
    assert lines[1].split() == ["product", "2.0", "2000.0", "10000.0", "0.5", "25.0", "%"]
    assert lines[2] == "roofline: 8000.0 GFLOPS of matrix products, 10.0 GB/s of copies, CPU"
    exchange = results.Micro("allreduce", "CPU", (0.5,), 0.0, 1e9, ranks=2)
    assert micro.table([exchange]).splitlines()[1].split() == [
        "allreduce",
        *["500.0", "-", "-", "2.0", "-"],
    ]


def test_micro_benchmarks_that_fail_say_so(tmp_path, monkeypatch):
    failing = [sys.executable, "-c", "raise MemoryError('too large')"]
    monkeypatch.setattr(suite, "_command", lambda *_: failing)
    with pytest.raises(TrainingError, match="micro benchmarks on 1 ranks failed: MemoryError: too"):
        suite.run_micro(tmp_path, 1, {"size": "tiny"}, Conditions(), Progress())


def test_damaged_micro_benchmarks_are_refused(tmp_path):
    file = tmp_path / "micro.json"
    suite.write_micro(file, [results.Micro("product", "CPU", (0.5,), 1e9, 1e6)])
    assert suite.read_micro(file)[0].median == 0.5
    file.write_text(file.read_text().replace("0.5", "0.4"))
    with pytest.raises(InputError, match="micro.json: its digest is not that of its contents"):
        suite.read_micro(file)
    file.write_text("{}")
    with pytest.raises(InputError, match="micro.json: no micro benchmarks"):
        suite.read_micro(file)


def test_tuned_settings_are_those_that_run(tmp_path, capsys):
    choice = ["hep", "--size", "tiny", "--optimizers", "sgd", "kfac", "--epochs", "1"]
    tune = ["tune", *choice, "--candidates", "3", "--out", str(tmp_path / "tuning")]
    assert main(tune) == 0
    assert times_run(tmp_path / "tuning", 1000) == 6  # three each
    assert main(tune) == 0
    assert times_run(tmp_path / "tuning", 1000) == 6
    settings = tmp_path / "tuning" / "settings.yaml"
    run_it = ["run", *choice, "--settings", str(settings), "--out", str(tmp_path / "run")]
    assert main([*run_it, "--seed", "999", "--repetitions", "2"]) == 2
    assert "was tuned with seed 1000; choose another --seed" in capsys.readouterr().err
    assert main(run_it) == 0
    plans = json.loads((tmp_path / "run" / "suite.json").read_text())["plans"]
    tuned = tuning.read(settings).settings["hep"]
    assert [plan["settings"] for plan in plans] == [tuned["sgd"], tuned["kfac"]]
    assert main([*tune, "--threads", "2"]) == 2  # other conditions
    assert "tuning.json: threads of this tuning is None there and 2" in capsys.readouterr().err
