"""A suite: plans become processes, one at a time, and what they leave is kept at once.

A result directory holds

    suite.json         the plans and their conditions, written before anything runs
    trials/NAME.json   the record of a trial, whole or absent; NAME is the plan's
    trials/NAME.mllog  its events, trials/NAME.log what its process printed
    results.json       all of it with a digest, rewritten after every trial

A trial whose record is there is not run again; one that was interrupted begins anew, since its
clock may not stop. What happens to one trial's process does not concern the others.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from models.benchmark import record, results, system
from models.benchmark.progress import Progress
from models.benchmark.record import FAILED, Conditions, Plan, Record
from tfkfac.errors import InputError, TrainingError
from tfkfac.files import remove_leftovers

FORMAT = 1
LOCK = ".lock"
STOP_SECONDS = 10.0  # that a process has to end after it was asked to
_PARENT_DEATH_SIGNAL = 1  # of Linux's prctl
_RANK_PREFIX = re.compile(r"^\[[\d,]+\]<std(?:out|err)>:")  # of horovodrun


class Directory:
    """The files of a suite.

    Args:
        path: the directory; see `locked`, which makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.suite = path / "suite.json"
        self.results = path / "results.json"
        self.micro = path / "micro.json"
        self.trials = path / "trials"

    def record(self, name: str) -> Path:
        """The record of a trial."""
        return self.trials / f"{name}.json"

    def open(
        self, plans: Sequence[Plan], conditions: Conditions, targets: Mapping[str, str]
    ) -> None:
        """Writes down what is planned, or adds to what is planned already: `suite.json`.

        Args:
            plans: of all trials.
            conditions: the same for all.
            targets: by workload, who set it, in words.

        Raises:
            InputError: if it holds another plan of the same name, or other conditions.
            TrainingError: if it cannot be written.
        """
        planned: dict[str, dict[str, Any]] = {}
        options = dataclasses.asdict(conditions)
        if self.suite.exists():
            before = record.read(self.suite)
            targets = {**before.get("targets", {}), **targets}
            try:
                planned = {Plan(**values).name: values for values in before["plans"]}
                require_equal(before["options"], options, str(self.suite), "this suite")
            except (KeyError, TypeError) as error:
                raise InputError(f"{self.suite}: no suite: {error}") from error
        elif any(file.name != LOCK for file in self.path.iterdir()):
            raise InputError(f"--out {self.path}: has other files; choose another directory")
        for plan in plans:
            values = _as_json(plan)
            if plan.name in planned:
                require_equal(planned[plan.name], values, str(self.suite), plan.name)
            planned[plan.name] = values
        with saving(self.path):
            self.trials.mkdir(exist_ok=True)
            content = {"format": FORMAT, "plans": list(planned.values()), "options": options}
            record.write(self.suite, {**content, "targets": dict(targets)})

    def write_results(self) -> None:
        """Gathers all records into `results.json`.

        Raises:
            InputError: if a record is damaged.
            TrainingError: if it cannot be written.
        """
        suite = record.read(self.suite)
        files = [self.record(plan.name) for plan in results.planned(suite, str(self.suite))]
        records = [record.from_json(record.read(f), str(f)) for f in files if f.exists()]
        micro = read_micro(self.micro) if self.micro.exists() else ()
        with saving(self.results):
            results.save(self.path, results.Results(suite, tuple(records), micro))


def read_micro(path: Path) -> tuple[results.Micro, ...]:
    """Micro benchmarks from a file.

    Raises:
        InputError: if they are damaged.
    """
    values = record.read(path)
    try:
        content = {name: values[name] for name in ("format", "micro")}
        if record.digest(content) != values["digest"]:
            raise InputError(f"{path}: its digest is not that of its contents: it was changed")
        entries = ({**entry, "seconds": tuple(entry["seconds"])} for entry in values["micro"])
        return tuple(results.Micro(**entry) for entry in entries)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: no micro benchmarks: {error}") from error


def write_micro(path: Path, found: Sequence[results.Micro]) -> None:
    """Writes micro benchmarks, with a digest."""
    content = {"format": FORMAT, "micro": [dataclasses.asdict(entry) for entry in found]}
    record.write(path, {**content, "digest": record.digest(content)})


def measure_micro(
    directory: Directory,
    ranks: Sequence[int],
    task: Mapping[str, Any],
    conditions: Conditions,
    progress: Progress,
) -> None:
    """Measures micro benchmarks on these numbers of ranks, and keeps them in the directory."""
    found: list[results.Micro] = []
    for number in sorted({1, *ranks}):
        progress.start_other(f"micro benchmarks on {number} ranks")
        found += run_micro(directory.path, number, task, conditions, progress)
        progress.close()
    with saving(directory.micro):
        write_micro(directory.micro, found)


def run_micro(
    folder: Path, ranks: int, task: Mapping[str, Any], conditions: Conditions, progress: Progress
) -> tuple[results.Micro, ...]:
    """Measures micro benchmarks in a process of their own, or in one for each rank.

    Args:
        folder: for the processes' files, which are removed again.
        ranks: processes.
        task: the fields of `micro_suite.Task`.
        conditions: as for trials.
        progress: shows what is measured.

    Raises:
        TrainingError: if the process fails.
    """
    target, log, file = (folder / f"micro-r{ranks}{end}" for end in (".json", ".log", ".plan"))
    values = {"task": {**task, "ranks": ranks}, "conditions": dataclasses.asdict(conditions)}
    try:
        with saving(folder):
            record.write(file, values)
        with saving(log), log.open("w", encoding="utf-8") as output:
            code = _launch(_command("micro_suite", ranks, file, target), output, progress.line)
        if code:
            words = last_words(log.read_text(encoding="utf-8", errors="replace"), code)
            raise TrainingError(f"micro benchmarks on {ranks} ranks failed: {words}; see {log}")
        log.unlink()
        return read_micro(target)
    finally:
        for path in (target, file):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Makes a directory, and keeps other processes from running trials in it.

    Raises:
        InputError: if one does, or it is no directory.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"--out {path}: not a directory")
    with saving(path):
        path.mkdir(parents=True, exist_ok=True)
        file = (path / LOCK).open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{path}: another process runs trials here; wait for it") from error
        yield


def check_launcher(ranks: Sequence[int]) -> None:
    """Raises InputError if several ranks are needed and there is no Horovod to start them."""
    if max(ranks) > 1 and importlib.util.find_spec("horovod") is None:
        raise InputError("--ranks: several ranks need Horovod; `make horovod` builds it")


def run_trials(
    folder: Path,
    trials: Mapping[str, Plan],
    conditions: Conditions,
    progress: Progress,
    retry_failed: bool = False,
    after_each: Callable[[], None] = lambda: None,
) -> dict[str, Record]:
    """Runs those trials that have no record yet.

    Args:
        folder: where records are kept, and logs.
        trials: plans by the names of their files.
        conditions: of all of them.
        progress: shows how far it is.
        retry_failed: run failed ones again.
        after_each: called when a record was written.

    Returns:
        All records by name.

    Raises:
        InputError: if a record is damaged, or of another plan.
        TrainingError: if a record cannot be written.
    """
    known = [_known(folder / f"{name}.json", plan, retry_failed) for name, plan in trials.items()]
    progress.begin(len(trials), sum(found is not None for found in known))
    return {
        name: run_trial(folder, name, plan, conditions, progress, retry_failed, after_each)
        for name, plan in trials.items()
    }


def run_trial(
    folder: Path,
    name: str,
    plan: Plan,
    conditions: Conditions,
    progress: Progress,
    retry_failed: bool = False,
    after: Callable[[], None] = lambda: None,
) -> Record:
    """Runs a trial if it has no record yet; else as `run_trials`."""
    found = _known(folder / f"{name}.json", plan, retry_failed)
    if found is not None:
        return found
    progress.start(name)
    result = _run(folder, name, plan, conditions, progress)
    after()
    progress.end(result)
    return result


def _known(path: Path, plan: Plan, retry_failed: bool) -> Record | None:
    """The record that makes the trial needless, if there is one."""
    if not path.exists():
        return None
    found = record.from_json(record.read(path), str(path))
    require_equal(_as_json(found.plan), _as_json(plan), str(path), plan.name)
    return None if found.status == FAILED and retry_failed else found


def _run(folder: Path, name: str, plan: Plan, conditions: Conditions, progress: Progress) -> Record:
    """Runs a trial in a process of its own, and sees to its record."""
    target, log, task = (folder / f"{name}{end}" for end in (".json", ".log", ".plan"))
    with saving(target):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        target.unlink(missing_ok=True)
        record.write_task(task, plan, conditions)
    try:
        with saving(log), log.open("w", encoding="utf-8") as output:
            code = _launch(_command("trial", plan.ranks, task, target), output, progress.line)
        if code == 0 and target.exists():
            return record.from_json(record.read(target), str(target))
        failed = _failure(plan, code, log)
        with saving(target):
            record.write(target, record.to_json(failed))
        return failed
    finally:
        task.unlink(missing_ok=True)


def _command(module: str, ranks: int, task: Path, target: Path) -> list[str]:
    worker = [sys.executable, "-m", f"models.benchmark.{module}", str(task), str(target)]
    if ranks == 1:
        return worker
    launcher = Path(sys.executable).with_name("horovodrun")
    return [str(launcher), "-np", str(ranks), "--gloo", *worker]


def _launch(command: Sequence[str], log: IO[str], show: Callable[[str], None]) -> int:
    """Runs a command in a process group of its own, which ends with this process or before.

    Args:
        command: program and arguments.
        log: receives all that it prints.
        show: is given each line of its standard output.

    Returns:
        Its exit code, negative for a signal.
    """
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1", **os.environ}
    paths = [str(system.SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    environment.setdefault("HOROVOD_DYNAMIC_PROCESS_SETS", "1")
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            log.write(line)
            log.flush()
            show(_RANK_PREFIX.sub("", line).rstrip())
        return process.wait()
    finally:
        _stop(process)


def _end_with_parent() -> None:
    """Has Linux end the new process when this one dies, even if nothing of it can run any more."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def _stop(process: subprocess.Popen[str]) -> None:
    """Ends a process and those that it started: asked first, then made to."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _failure(plan: Plan, code: int, log: Path) -> Record:
    """The record of a trial whose process failed: what its last words were."""
    from models import workloads  # TensorFlow, which is not needed until here

    workload = workloads.get(plan.workload)
    return Record(
        plan,
        FAILED,
        workload.metric,
        workload.higher_is_better,
        error=last_words(log.read_text(encoding="utf-8", errors="replace"), code),
        configuration_hash=plan.configuration_hash,
        system=system.describe(),
    )


def last_words(text: str, code: int) -> str:
    """Why a process failed, from what it printed and its exit code.

    >>> last_words("Traceback\\nerror: events.h5: cut short\\nmore\\n", 2)
    'events.h5: cut short'
    >>> last_words("[0]<stderr>:ValueError: no\\n", 1)
    'ValueError: no'
    """
    lines = [_RANK_PREFIX.sub("", line).strip() for line in text.splitlines()]
    errors = [line for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1].removeprefix("error: ")
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    exceptions = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    said = exceptions or [line for line in lines if line]
    return said[-1][:500] if said else f"exit code {code}, without a word"


def require_equal(before: Mapping[str, Any], now: Mapping[str, Any], file: str, of: str) -> None:
    """Raises InputError, naming what differs between what a file has of something and now."""
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise InputError(
                f"{file}: {name} of {of} is {before.get(name)!r} there and {now.get(name)!r} now; "
                "choose another --out, or the same options"
            )


def _as_json(plan: Plan) -> dict[str, Any]:
    return {**dataclasses.asdict(plan), "settings": dict(plan.settings)}


@contextlib.contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turns what a full or read-only disk leads to into an error of one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise TrainingError(
            f"{error.filename or path}: cannot be written: {reason}; results before it are intact"
        ) from error
