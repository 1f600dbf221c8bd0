"""Whether results can be what a suite left: complete, unchanged, and true to themselves.

Digests find what was changed by accident. What was changed on purpose, with new digests, is found
where a number follows from others: then it has to be the number that follows. docs/hpcai500.md says
which do not follow from anything; in a suite's directory the trials' logs bear witness, too.

Nothing here raises for wrong results: each problem is a line of text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.benchmark import mllog, record, results
from models.benchmark.fields import mistyped
from models.benchmark.record import FAILED, FORMAT, Conditions, Record
from models.benchmark.verification.log import of_log
from models.benchmark.verification.suite import completeness, micro_benchmarks, together
from models.benchmark.verification.trial import of_record
from tfkfac.errors import InputError

__all__ = ["of_log", "of_path", "of_record", "of_results"]


def of_path(path: Path) -> list[str]:
    """The problems of a results file, and of all that lies around it if a directory is given.

    Args:
        path: a suite's directory, or its results.json alone.

    Raises:
        InputError: if there is nothing to verify: no such file, no JSON, or no results.
    """
    if path.is_dir() and not results.file(path).exists():
        raise InputError(f"{path}: no {results.FILE} in it; `hpcai500 run --out` makes one")
    file = results.file(path)
    text, values = _read(file)
    names = {"format", "suite", "records", "micro", "digest"}
    if not isinstance(values, dict) or names - set(values):
        raise InputError(f"{file}: no results of hpcai500 run: needs {', '.join(sorted(names))}")
    found = list(of_results(values))
    if text != _as_written(values):
        found.append(
            "its text is not as it was written: other spacing, a name twice, or something that is "
            "no JSON number"
        )
    if path.is_dir():
        found += _around(path, values)
    return found


def _read(path: Path) -> tuple[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8")
        return text, json.loads(text)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON, or cut short: {error}") from error


def _as_written(values: Any) -> str:
    """The text that `record.write` makes of it."""
    try:
        return json.dumps(values, indent=1, allow_nan=False) + "\n"
    except ValueError:
        return ""


def of_results(values: Mapping[str, Any]) -> Iterator[str]:
    """The problems of the contents of results.json."""
    unknown = set(values) - {"format", "suite", "records", "micro", "digest"}
    if unknown:
        yield f"unknown entries: {', '.join(sorted(unknown))}"
    if values["format"] != FORMAT:
        yield f"format is {values['format']!r}, not {FORMAT}"
    content = {name: value for name, value in values.items() if name != "digest"}
    if record.digest(content) != values["digest"]:
        yield "its digest is not that of its contents: it was changed or damaged"
    try:
        plans = results.planned(values["suite"], "suite")
    except InputError as error:
        yield str(error)
        plans = []
    conditions, problem = _conditions(values["suite"])
    if problem:
        yield problem
    if not isinstance(values["records"], list) or not isinstance(values["micro"], list):
        yield "records and micro must be lists"
        return
    records = []
    for place, entry in enumerate(values["records"], start=1):
        made, problems = _record(entry, f"record {place}")
        yield from problems
        if made is not None:
            records.append(made)
    for made in records:
        yield from (f"{made.plan.name}: {problem}" for problem in of_record(made, conditions))
    yield from completeness(plans, records)
    yield from together(records)
    yield from micro_benchmarks(
        values["micro"], [r.system for r in records if r.status != FAILED], conditions
    )


def _conditions(suite: Any) -> tuple[Conditions | None, str]:
    try:
        made = Conditions(**suite["options"])
    except (KeyError, TypeError) as error:
        return None, f"suite: options: {error}"
    problems = list(mistyped(made))
    if isinstance(suite, dict) and suite.get("format") != FORMAT:
        problems.append(f"format is {suite.get('format')!r}, not {FORMAT}")
    return (None, f"suite: {'; '.join(problems)}") if problems else (made, "")


def _around(path: Path, values: Mapping[str, Any]) -> Iterator[str]:
    """The files of a suite's directory say the same, logs included."""
    suite = path / "suite.json"
    try:
        if record.read(suite) != values["suite"]:
            yield "suite.json is not the suite of results.json"
    except InputError as error:
        yield str(error)
    micro = path / "micro.json"
    try:
        if values["micro"] and record.read(micro).get("micro") != values["micro"]:
            yield "micro.json is not the micro benchmarks of results.json"
    except (InputError, AttributeError) as error:
        yield str(error)
    if not isinstance(values["records"], list):
        return
    for place, entry in enumerate(values["records"], start=1):
        made, _ = _record(entry, f"record {place}")
        if made is None:
            continue
        name = made.plan.name
        file = path / "trials" / f"{name}.json"
        try:
            if record.read(file) != entry:
                yield f"{name}: trials/{name}.json is not its record in results.json"
        except InputError as error:
            yield str(error)
        if made.status != FAILED:
            log = file.with_suffix(".mllog")
            try:
                events = mllog.read(log)
            except OSError as error:
                yield f"{name}: {log.name}: {error.strerror}"
                continue
            except ValueError as error:
                yield f"{name}: {log.name}: no log of MLLOG lines: {error}"
                continue
            yield from (f"{name}: {log.name}: {problem}" for problem in of_log(made, events))


def _record(entry: Any, where: str) -> tuple[Record | None, list[str]]:
    """The record of an entry, even if its digest is wrong, and what is wrong with its form."""
    problems = []
    if isinstance(entry, dict):
        content = {name: value for name, value in entry.items() if name != "digest"}
        correct = record.digest(content)
        if entry.get("digest") != correct:
            problems.append(f"{where}: its digest is not that of its contents")
        entry = {**content, "digest": correct}
    try:
        made = record.from_json(entry, where)
    except InputError as error:
        return None, [*problems, str(error)]
    wrong = [f"{where}: {problem}" for problem in mistyped(made)]
    return (None if wrong else made), problems + wrong
