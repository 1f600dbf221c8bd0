"""Equal budgets: for every optimizer as many candidates, one training each, and one choice.

The candidates of an optimizer lie on a line: the learning rate is that of the registry times a
power of √10. K-FAC's damping goes with it, and its KL clip with its square, since where the clip
binds, it alone is the length of a step: K-FAC gets no trainings for its further constants. The
first three candidates are the start and its neighbours. Each further one goes beyond the best so
far, if that lies at an end of what was tried, or else halfway to one of its neighbours.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from models.benchmark import optimizers
from models.benchmark.plans import check_workloads
from models.benchmark.record import Plan, Record
from tfkfac import options
from tfkfac.errors import InputError
from tfkfac.files import replacing

SEED = 1000  # far from those of measured trials
STEP = math.sqrt(10)
FIRST = (0.0, 1.0, -1.0)  # in steps from the start
KL_CLIP = 0.001  # KFAC's default

Settings = Mapping[str, Mapping[str, Mapping[str, Any]]]


def candidate(optimizer: str, start: Mapping[str, Any], position: float) -> dict[str, Any]:
    """Settings to try.

    Args:
        optimizer: by name.
        start: its settings to begin with.
        position: steps of √10 from them, towards larger learning rates.

    Example:

    >>> candidate("sgd", {"learning_rate": 0.1}, -1)
    {'learning_rate': 0.0316}
    """
    factor = STEP**position
    changed: dict[str, Any] = {"learning_rate": _rounded(start["learning_rate"] * factor)}
    if optimizer == "kfac":
        if "damping" in start:
            changed["damping"] = _rounded(start["damping"] * factor)
        clip = start.get("kl_clip", KL_CLIP)
        changed["kl_clip"] = None if clip is None else _rounded(clip * factor**2)
    return {**start, **changed}


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def next_position(tried: Sequence[float], records: Sequence[Record]) -> float:
    """Where the next candidate lies, see `candidate`.

    Args:
        tried: positions of those before it.
        records: of their trainings.
    """
    if len(tried) < len(FIRST):
        return FIRST[len(tried)]
    ranks = ranking(records)
    if records[ranks[0]].quality is None:  # all diverged
        return min(tried) - 1
    best, ends = tried[ranks[0]], (min(tried), max(tried))
    if best in ends:
        return best - 1 if best == ends[0] else best + 1
    below = max(p for p in tried if p < best)
    above = min(p for p in tried if p > best)
    if math.isclose(best - below, above - best):
        order = [tried[number] for number in ranks]
        neighbour = min(below, above, key=order.index)
    else:
        neighbour = below if best - below > above - best else above
    return (best + neighbour) / 2


def name(plan: Plan, number: int) -> str:
    """Of a candidate's files; `number` counts from 1."""
    return f"{plan.name}-candidate{number}"


def ranking(records: Sequence[Record]) -> list[int]:
    """Numbers of candidates, the best first: who reaches the target first, else of better quality.

    First is who needs the fewest steps, of whom the better one: settings of one optimizer do not
    change what a step costs, and steps, unlike seconds, are the same when they are counted again.
    """

    def badness(entry: Record) -> tuple[float, float]:
        sign = -1.0 if entry.higher_is_better else 1.0
        step = next((e.step for e in entry.history if e.seconds == entry.time_to_quality), math.inf)
        best = math.inf if entry.quality is None else sign * entry.quality
        return (math.inf if entry.time_to_quality is None else step, best)

    return sorted(range(len(records)), key=lambda number: badness(records[number]))


def choose(records: Sequence[Record]) -> int:
    """The number of the best.

    Raises:
        InputError: if none has a quality.
    """
    best = ranking(records)[0]
    if records[best].quality is None:
        plan = records[best].plan
        raise InputError(
            f"{plan.workload}: none of {plan.optimizer}'s candidates came to a quality; see "
            "their logs"
        )
    return best


def at_an_end(records: Sequence[Record]) -> bool:
    """Whether no smaller, or no larger learning rate than the best one's was tried."""
    rates = [entry.plan.settings["learning_rate"] for entry in records]
    return len(rates) > 1 and rates[choose(records)] in (min(rates), max(rates))


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What a file of settings says.

    Attributes:
        file: for messages.
        settings: by workload and optimizer.
        size: that they were found for; None where the file does not say.
        seed: of the trainings that found them; None likewise.
    """

    file: str
    settings: Settings
    size: str | None = None
    seed: int | None = None

    def check(self, size: str, seeds: Iterable[int]) -> None:
        """Raises InputError if the settings are for another size, or saw one of the seeds."""
        if self.size is not None and self.size != size:
            raise InputError(f"{self.file}: was tuned for size {self.size}, not {size}")
        if self.seed is not None and self.seed in seeds:
            raise InputError(f"{self.file}: was tuned with seed {self.seed}; choose another --seed")


def write(
    path: Path, size: str, seed: int, found: Mapping[str, Mapping[str, Sequence[Record]]]
) -> None:
    """Writes the chosen settings, and what all candidates came to.

    Args:
        path: a YAML file.
        size: of the workloads.
        seed: of the trainings.
        found: records by workload and optimizer.
    """
    settings: dict[str, dict[str, Any]] = {}
    table: dict[str, dict[str, Any]] = {}
    for workload, own in found.items():
        settings[workload], table[workload] = {}, {}
        for optimizer, records in own.items():
            best = choose(records)
            settings[workload][optimizer] = dict(records[best].plan.settings)
            table[workload][optimizer] = [
                {
                    "settings": dict(entry.plan.settings),
                    "status": entry.status,
                    "quality": entry.quality,
                    "time_to_quality": entry.time_to_quality,
                    "epochs": len(entry.history),
                    "seconds": entry.seconds,
                    "chosen": number == best,
                }
                for number, entry in enumerate(records)
            ]
    content = {"size": size, "seed": seed, "settings": settings, "candidates": table}
    with replacing(path) as temporary:
        temporary.write_text(
            "# Settings of optimizers, for `hpcai500 run --settings`; written by `hpcai500 tune`.\n"
            + yaml.safe_dump(content, sort_keys=False),
            encoding="utf-8",
        )


def read(path: Path) -> Tuned:
    """Settings from a YAML file; of its keys, `settings` alone is needed.

    Raises:
        InputError: naming file and line.
    """
    if not path.is_file():
        raise InputError(f"--settings: no file {path}")
    settings: dict[str, dict[str, dict[str, Any]]] = {}
    size, seed = None, None
    for entry in options.read_entries(path, "settings:"):
        if entry.key == "size":
            size = str(entry.value)
        elif entry.key == "seed":
            seed = options.convert(options.option(options.SEED, 0, ""), entry.value, entry.where)
        elif entry.key == "settings":
            for workload in options.entries(entry.node, path, "hep:"):
                check_workloads([workload.key], workload.where)
                settings[workload.key] = {}
                for optimizer in options.entries(workload.node, path, "sgd: {learning_rate: 0.1}"):
                    own = {
                        setting.key: _scalar(setting.value)
                        for setting in options.entries(optimizer.node, path, "learning_rate: 0.1")
                    }
                    optimizers.check(optimizer.key, own, optimizer.where)
                    settings[workload.key][optimizer.key] = own
        elif entry.key != "candidates":
            raise InputError(f"{entry.where}: expected settings, not {entry.key}")
    if not settings:
        raise InputError(f"{path}: no settings in it")
    return Tuned(str(path), settings, size, seed)


def _scalar(value: Any) -> Any:
    """What a scalar means; YAML itself takes 1e-3 for text."""
    if not isinstance(value, str):
        return value
    meant = yaml.safe_load(value)
    if isinstance(meant, str):
        try:
            return options.number(meant)
        except ValueError:
            return meant
    return meant
