"""From what a person asks for to the plans of all trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.benchmark.record import Plan
from tfkfac import options
from tfkfac.errors import InputError, unknown
from tfkfac.options import Kind

STRONG, WEAK = "strong", "weak"
FIRST_SEED = 1
NUMBER = Kind("a number", options.number)


@dataclass(frozen=True)
class Request:
    """What to run: all combinations.

    Attributes:
        workloads, optimizers: by name.
        size: of all workloads.
        ranks: numbers of processes.
        scaling: STRONG divides a workload's batch among the ranks, WEAK gives it to each of them.
        repetitions: with seeds `seed`, `seed` + 1, ...
        seed: of the first repetition.
        epochs, steps, batch_size: None for the workload's; steps are those of an epoch.
        targets: by workload; None for none, and without an entry the workload's own.
        data: paths of original files by workload.
        settings: by workload and optimizer, in place of the workload's own.
    """

    workloads: Sequence[str]
    optimizers: Sequence[str]
    size: str = "small"
    ranks: Sequence[int] = (1,)
    scaling: str = STRONG
    repetitions: int = 1
    seed: int = FIRST_SEED
    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    targets: Mapping[str, float | None] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)


def make(request: Request) -> list[Plan]:
    """The plans, repetitions innermost: what is compared runs close together.

    Raises:
        InputError: if a workload, size or optimizer is unknown, a path is missing, or ranks do not
            divide a batch.
    """
    from models import workloads

    plans = []
    for name in request.workloads:
        size = workloads.get(name).size(request.size)
        path = request.data.get(name)
        if path is not None and not Path(path).exists():
            raise InputError(f"--data: {name}: no file or folder {path}")
        if path is None and not size.generated:
            raise InputError(
                f"{name}: its {request.size} size reads original files; give --data {name}=PATH"
            )
        target = request.targets.get(name, size.target)
        for ranks in request.ranks:
            batch = request.batch_size or size.batch_size
            if request.scaling == WEAK:
                batch *= ranks
            if batch % ranks:
                raise InputError(
                    f"--ranks: {ranks} do not divide the batch of {batch} examples of {name}; "
                    "choose --batch-size, or --scaling weak"
                )
            for repetition in range(request.repetitions):
                for optimizer in request.optimizers:
                    if optimizer not in size.settings:
                        raise unknown("optimizer", optimizer, size.settings, "--optimizers")
                    chosen = request.settings.get(name, {}).get(optimizer)
                    plans.append(
                        Plan(
                            name,
                            request.size,
                            optimizer,
                            dict(size.settings[optimizer] if chosen is None else chosen),
                            batch_size=batch,
                            epochs=request.epochs or size.epochs,
                            ranks=ranks,
                            repetition=repetition + 1,
                            seed=request.seed + repetition,
                            target=target,
                            steps_per_epoch=request.steps,
                            data=None if path is None else str(Path(path).resolve()),
                        )
                    )
    return plans


def possible(names: Iterable[str], size: str, data: Mapping[str, str]) -> tuple[str, ...]:
    """Those workloads whose examples are generated at this size, or have a path."""
    from models import workloads

    return tuple(n for n in names if n in data or workloads.get(n).size(size).generated)


def check_workloads(names: Iterable[str], where: str) -> None:
    """Raises InputError if a workload is unknown."""
    from models import workloads

    for name in names:
        if name not in workloads.names():
            raise unknown("workload", name, workloads.names(), where)


def assignments(texts: Iterable[str], option: str) -> dict[str, str]:
    """`WORKLOAD=VALUE` pairs as a dictionary.

    Raises:
        InputError: if a text is none, or a workload is unknown or named twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not value:
            raise InputError(f"{option}: expected WORKLOAD=VALUE, not {text}")
        if name in found:
            raise InputError(f"{option}: {name} is given twice")
        found[name] = value
    check_workloads(found, option)
    return found


def targets(texts: Sequence[str], option: str = "--target") -> dict[str, float | None]:
    """Targets from `WORKLOAD=VALUE` pairs and YAML files of `WORKLOAD: VALUE` lines.

    A value of `none` stands for no target. Later texts win over earlier ones.

    Raises:
        InputError: naming option, or file and line.
    """
    found: dict[str, float | None] = {}
    for text in texts:
        if "=" in text:
            pairs = [(option, *pair) for pair in assignments([text], option).items()]
        elif Path(text).is_file():
            entries = list(options.read_entries(Path(text), "hep: 0.95"))
            pairs = [(entry.where, entry.key, entry.value) for entry in entries]
        else:
            raise InputError(f"{option}: expected WORKLOAD=VALUE or a YAML file, not {text}")
        for where, name, value in pairs:
            check_workloads([name], where)
            if value is None or str(value).lower() == "none":
                found[name] = None
                continue
            kept = options.option(NUMBER, None, "")
            found[name] = options.convert(kept, value, f"{where}: {name}")
    return found
