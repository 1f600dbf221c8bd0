"""The file of a suite's results, `results.json`: what was planned, and what came out.

An object with `format`, `suite` (what suite.json says, before anything ran), `records` (one of each
trial that ended, as `record.to_json` makes them), `micro` (micro benchmarks) and `digest`.
docs/hpcai500.md is the schema.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from models.benchmark import record
from models.benchmark.fields import fits, mistyped
from models.benchmark.power import ESTIMATED, MEASURED, UNAVAILABLE
from models.benchmark.record import FORMAT, Plan, Record
from tfkfac.errors import InputError

FILE = "results.json"


@dataclasses.dataclass(frozen=True)
class Micro:
    """What was measured of one operation.

    Attributes:
        name: of the operation, such as `convolution 2-D forward`.
        device: `CPU`, or the GPU's name.
        seconds: of each timed run.
        flops: of a run, by formula; 0 where moving data is the work.
        traffic: bytes that a run reads and writes, or that a link carries.
        images: examples of a run; 0 where there are none.
        ranks: processes.
        peak_flops: FLOPS of the device, measured with a large matrix product.
        bandwidth: bytes a second of its memory, or of the link, measured.
        energy: of all timed runs together, `joules`, `source` and `detail` as of `power.Energy`.
        price_per_hour, currency: as stated by whoever ran it.
        system: as `models.benchmark.system.describe` has it.
    """

    name: str
    device: str
    seconds: tuple[float, ...]
    flops: float
    traffic: float
    images: int = 0
    ranks: int = 1
    peak_flops: float | None = None
    bandwidth: float | None = None
    energy: Mapping[str, Any] | None = None
    price_per_hour: float | None = None
    currency: str | None = None
    system: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def median(self) -> float:
        """Seconds of a run."""
        return statistics.median(self.seconds)

    @property
    def flops_per_second(self) -> float | None:
        """Of the median run; None where moving data is the work."""
        return self.flops / self.median if self.flops else None

    @property
    def roofline(self) -> float | None:
        """FLOPS that the device allows: its peak, or what its memory can feed."""
        if self.peak_flops is None or self.bandwidth is None or not self.flops or not self.traffic:
            return None
        return min(self.peak_flops, self.bandwidth * self.flops / self.traffic)


@dataclasses.dataclass(frozen=True)
class Results:
    """What a suite came to, so far.

    Attributes:
        suite: what suite.json says: `format`, `plans` and `options`.
        records: of the trials that ended, in the order of the plans.
        micro: of the micro benchmarks.
    """

    suite: Mapping[str, Any]
    records: tuple[Record, ...] = ()
    micro: tuple[Micro, ...] = ()


def to_json(results: Results) -> dict[str, Any]:
    """A JSON object with `format`, `suite`, `records`, `micro` and `digest`."""
    values: dict[str, Any] = {
        "format": FORMAT,
        "suite": dict(results.suite),
        "records": [record.to_json(entry) for entry in results.records],
        "micro": [dataclasses.asdict(entry) for entry in results.micro],
    }
    return {**values, "digest": record.digest(values)}


def from_json(values: Any, where: str) -> Results:
    """The results of a JSON object.

    Args:
        values: as made by `to_json`.
        where: the file, for messages.

    Raises:
        InputError: if these are no results, or damaged ones, or the format is newer.
    """
    names = {"format", "suite", "records", "micro", "digest"}
    if not isinstance(values, dict) or names - set(values):
        raise InputError(f"{where}: no results of hpcai500 run: needs {', '.join(sorted(names))}")
    if values["format"] != FORMAT:
        raise InputError(f"{where}: has format {values['format']!r}; this version reads {FORMAT}")
    rest = {name: value for name, value in values.items() if name != "digest"}
    if record.digest(rest) != values["digest"]:
        raise InputError(f"{where}: its digest is not that of its contents: it was changed")
    try:
        micro = tuple(
            Micro(**{**entry, "seconds": tuple(entry["seconds"])}) for entry in values["micro"]
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{where}: no complete micro benchmark: {error}") from error
    if not isinstance(values["suite"], dict) or not isinstance(values["records"], list):
        raise InputError(f"{where}: suite must be an object, records a list")
    records = tuple(
        record.from_json(entry, f"{where}: record {number}")
        for number, entry in enumerate(values["records"], start=1)
    )
    results = Results(values["suite"], records, micro)
    planned(results.suite, where)
    for place, made in enumerate(records, start=1):
        for problem in plan_problems(made.plan):
            raise InputError(f"{where}: record {place}: plan: {problem}")
    entries: list[tuple[str, Record | Micro]] = []
    entries += [(f"record {number}", entry) for number, entry in enumerate(records, start=1)]
    entries += [(entry.name, entry) for entry in micro]
    for name, entry in entries:
        for problem in chain(mistyped(entry), energy_problems(entry.energy)):
            raise InputError(f"{where}: {name}: {problem}")
    for timed in micro:
        if not timed.seconds or min(timed.seconds) <= 0:
            raise InputError(f"{where}: {timed.name}: seconds must be above 0")
    return results


def planned(suite: Mapping[str, Any], where: str) -> list[Plan]:
    """The plans of a suite.

    Raises:
        InputError: if they are none.
    """
    try:
        plans = [Plan(**values) for values in suite["plans"]]
    except (KeyError, TypeError) as error:
        raise InputError(f"{where}: no complete plans: {error}") from error
    for plan in plans:
        for problem in plan_problems(plan):
            raise InputError(f"{where}: plan of {plan.workload}: {problem}")
    return plans


def plan_problems(plan: Plan) -> Iterator[str]:
    """What is wrong with a plan: a field's type, or that nothing can be run by it."""
    problems = list(mistyped(plan))
    yield from problems
    if not problems and min(plan.batch_size, plan.ranks, plan.epochs) < 1:
        yield "batch_size, ranks and epochs must be 1 or more"


def energy_problems(energy: Mapping[str, Any] | None) -> Iterator[str]:
    """What is wrong with an energy, if there is one: joules and their source go together."""
    if energy is None:
        return
    if set(energy) != {"joules", "source", "detail"} or not isinstance(energy["detail"], str):
        yield "energy needs joules, source and detail"
        return
    source, joules = energy["source"], energy["joules"]
    if source not in (MEASURED, ESTIMATED, UNAVAILABLE):
        yield f"energy.source is {source!r}"
    elif (joules is None) != (source == UNAVAILABLE):
        yield f"energy is {source}, with {joules} J"
    elif joules is not None and not (fits(joules, float) and joules >= 0):
        yield f"energy.joules is {joules!r}"
    elif not energy["detail"]:
        yield "energy does not say where it is from"


def save(path: Path, results: Results) -> None:
    """Writes results, whole or not at all.

    Args:
        path: of the file, or of the directory that gets `results.json`.
        results: to write.
    """
    record.write(file(path), to_json(results))


def load(path: Path) -> Results:
    """Reads results.

    Args:
        path: of the file, or of the directory with `results.json`.

    Raises:
        InputError: if there are none, or they are damaged.
    """
    if path.is_dir() and not file(path).exists():
        raise InputError(f"{path}: no {FILE} in it; `hpcai500 run --out` makes one")
    return from_json(record.read(file(path)), str(file(path)))


def file(path: Path) -> Path:
    """The file itself, where a directory may be meant."""
    return path / FILE if path.is_dir() else path
