"""Equal budgets: for every optimizer as many candidates, one training each, and one choice.

Candidates lie around where the registry starts. The learning rate takes steps of equal ratio, of
√10 until five of them reach from a tenth to ten times the start, of less if there are more. K-FAC's
damping takes the same steps, of five or more candidates in another order, so that it costs none of
its own; and its KL clip goes with the square of the learning rate, since where the clip binds, it
alone is the length of a step.
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
DECADES = 1.0  # to either side of the start, at most
WIDEST_STEP = 0.5  # decades: between two candidates further apart the best may be missed
FEW = 5  # too few candidates to spread over both constants
KL_CLIP = 0.001  # KFAC's default
GOLDEN = (math.sqrt(5) - 1) / 2

Settings = Mapping[str, Mapping[str, Mapping[str, Any]]]


def candidates(optimizer: str, start: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Settings to try.

    Args:
        optimizer: by name.
        start: its settings to begin with.
        count: how many; 1 tries the start alone.

    Example:

    >>> [c["learning_rate"] for c in candidates("sgd", {"learning_rate": 0.1}, 3)]
    [0.0316, 0.1, 0.316]
    """
    found = []
    for number, other in enumerate(_spread(count)):
        factor = _factor(number, count)
        changed: dict[str, Any] = {"learning_rate": _rounded(start["learning_rate"] * factor)}
        if optimizer == "kfac":
            if "damping" in start:
                changed["damping"] = _rounded(start["damping"] * _factor(other, count))
            clip = start.get("kl_clip", KL_CLIP)
            changed["kl_clip"] = None if clip is None else _rounded(clip * factor**2)
        found.append({**start, **changed})
    return found


def _factor(number: int, count: int) -> float:
    if count == 1:
        return 1.0
    step = min(WIDEST_STEP, 2 * DECADES / (count - 1))
    return 10 ** (step * (number - (count - 1) / 2))


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _spread(count: int) -> list[int]:
    """A permutation of 0 ... count - 1 that keeps neighbours apart: the order of multiples of the
    golden ratio, modulo 1. For odd counts its middle one stays in the middle, so that the start
    itself is a candidate. Of few, damping rises with the learning rate: the other way round one end
    is too bold in both, the other too timid."""
    if count < FEW:
        return list(range(count))
    parts = [(number * GOLDEN) % 1 for number in range(count)]
    ranks = [sorted(parts).index(part) for part in parts]
    shift = (count // 2 - ranks[count // 2]) if count % 2 else 0
    return [(rank + shift) % count for rank in ranks]


def name(plan: Plan, number: int, count: int) -> str:
    """Of a candidate's files; `number` counts from 1."""
    return f"{plan.name}-candidate{number}of{count}"


def choose(records: Sequence[Record]) -> int:
    """The number of the best: the first to the target, else the one of the best quality.

    First is who needs the fewest steps, of whom the better one: settings of one optimizer do not
    change what a step costs, and steps, unlike seconds, are the same when they are counted again.

    Raises:
        InputError: if none has a quality.
    """

    def badness(entry: Record) -> tuple[float, float, float]:
        sign = -1.0 if entry.higher_is_better else 1.0
        step = next((e.step for e in entry.history if e.seconds == entry.time_to_quality), math.inf)
        best = math.inf if entry.quality is None else sign * entry.quality
        return (math.inf if entry.time_to_quality is None else step, best, entry.seconds or 0.0)

    if all(entry.quality is None for entry in records):
        plan = records[0].plan
        raise InputError(
            f"{plan.workload}: none of {plan.optimizer}'s candidates came to a quality; see "
            "their logs"
        )
    return min(range(len(records)), key=lambda number: badness(records[number]))


def at_an_end(records: Sequence[Record]) -> bool:
    """Whether the best candidate is the first or the last of several: beyond it may be better."""
    return len(records) > 1 and choose(records) in (0, len(records) - 1)


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
