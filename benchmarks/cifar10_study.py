"""Accuracy of ResNet-20 on CIFAR-10 by optimizer, against epochs and against time.

Every optimizer gets the same tuning budget: three learning rates, one short training each, the
other settings those of the presets `cifar10-resnet20-*`. The best rate by test accuracy then trains
longer, once per seed, with a linear decay to zero; K-FAC also with fewer steps. Every training is a
call of `models-train` in a process of its own; one that is complete is skipped and one that was
interrupted is resumed, so the study can be stopped and started again.

    python benchmarks/cifar10_study.py --data cifar10.npz --runs runs/study --out docs/results

Time is processor time of the training steps (all threads, without evaluation), divided by the
number of threads: other work on the machine disturbs it less than wall-clock.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from models.plot import read_log
from models.run_directory import RunDirectory

# Steps between two looks at the test images, at 128 images a step: half an epoch while tuning, a
# third of one in the trainings that are compared.
TUNING_PERIOD, PERIOD = 195, 130
THREADS = os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Contestant:
    """An optimizer with the learning rates that it may try."""

    name: str
    learning_rates: tuple[float, ...]
    options: tuple[str, ...] = ()


KFAC_OPTIONS = (
    *("--damping", "0.003", "--debias", "--kl-clip", "0.001", "--kl-clip-learning-rate", "0.1"),
    *("--factor-interval", "5", "--eigen-interval", "25"),
)

CONTESTANTS = (
    Contestant("sgd", (0.1, 0.2, 0.4)),
    Contestant("adamw", (0.001, 0.003, 0.01)),
    Contestant("muon", (0.01, 0.02, 0.04)),
    Contestant("kfac", (0.05, 0.1, 0.2), KFAC_OPTIONS),
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: so many periods of so many steps."""

    contestant: Contestant
    learning_rate: float
    periods: int
    period: int
    seed: int
    stage: str

    @property
    def steps(self) -> int:
        """Length of the training."""
        return self.periods * self.period

    def directory(self, runs: Path) -> Path:
        name = f"{self.contestant.name}-{self.learning_rate:g}-{self.steps}-seed{self.seed}"
        return runs / self.stage / name

    def complete(self, runs: Path) -> bool:
        log = RunDirectory(self.directory(runs)).log
        return log.exists() and len(read_log(log)) == self.periods

    def train(self, runs: Path, data: Path) -> None:
        directory = self.directory(runs)
        if self.complete(runs):
            return
        directory.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "models.train"]
        command += ["--config", f"cifar10-resnet20-{self.contestant.name}", "--data", str(data)]
        command += ["--learning-rate", str(self.learning_rate), *self.contestant.options]
        command += ["--epochs", str(self.periods), "--steps-per-epoch", str(self.period)]
        # A warm-up of a fifth of the training.
        command += [
            "--warmup-epochs",
            str(0.2 * self.periods),
            "--seed",
            str(self.seed),
            "--out",
            str(directory),
        ]
        resumable = (directory / "last.keras").exists()
        command += ["--resume"] if resumable else ["--overwrite"]
        print(f"== {directory}", flush=True)
        code = subprocess.run(command, check=False).returncode
        # A rate that diverges has lost its contest; anything else is an error.
        if code not in (0, 1):
            raise SystemExit(f"{directory}: exit code {code}")

    def accuracy(self, runs: Path) -> float:
        """Final test accuracy, 0 for a training that diverged."""
        if not self.complete(runs):
            return 0.0
        return read_log(RunDirectory(self.directory(runs)).log)[-1]["val_accuracy"]


def tuning(periods: int) -> list[Run]:
    """The contest of learning rates."""
    return [
        Run(contestant, rate, periods, TUNING_PERIOD, 0, "tuning")
        for contestant in CONTESTANTS
        for rate in contestant.learning_rates
    ]


def finals(best: dict[str, float], periods: int, shorter: int, seeds: Sequence[int]) -> list[Run]:
    """The trainings that are compared."""
    runs = []
    for seed in seeds:
        for contestant in CONTESTANTS:
            lengths = (periods, shorter) if contestant.name == "kfac" else (periods,)
            for length in lengths:
                rate = best[contestant.name]
                runs.append(Run(contestant, rate, length, PERIOD, seed, "final"))
    return runs


def best_rates(runs: Sequence[Run], directory: Path) -> dict[str, float]:
    """Each optimizer's learning rate with the highest accuracy."""
    best: dict[str, tuple[float, float]] = {}
    for run in runs:
        entry = (run.accuracy(directory), run.learning_rate)
        best[run.contestant.name] = max(best.get(run.contestant.name, (-1.0, 0.0)), entry)
    return {name: rate for name, (_, rate) in best.items()}


def rows(runs: Sequence[Run], directory: Path) -> Iterator[dict[str, object]]:
    """One row per training."""
    for run in runs:
        log = (
            read_log(RunDirectory(run.directory(directory)).log) if run.complete(directory) else []
        )
        yield {
            "stage": run.stage,
            "optimizer": run.contestant.name,
            "learning_rate": run.learning_rate,
            "steps": run.steps,
            "seed": run.seed,
            "accuracy": log[-1]["val_accuracy"] if log else "",
            "loss": log[-1]["loss"] if log else "diverged",
            "seconds": round(log[-1]["cpu_seconds"] / THREADS, 1) if log else "",
            "wall_seconds": round(log[-1]["seconds"], 1) if log else "",
        }


def plot(runs: Sequence[Run], directory: Path, out: Path) -> None:
    """Test accuracy against epochs and against time: mean over seeds, and each seed thinly."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.complete(directory):
            groups[f"{run.contestant.name}, {run.steps} steps"].append(run)
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharey=True)
    for label, members in groups.items():
        logs = [read_log(RunDirectory(run.directory(directory)).log) for run in members]
        accuracy = np.array([[row["val_accuracy"] for row in log] for log in logs])
        seconds = np.array([[row["cpu_seconds"] / THREADS for row in log] for log in logs])
        steps = (np.arange(accuracy.shape[1]) + 1) * PERIOD
        for axes, x in zip(panels, (steps, seconds.mean(axis=0)), strict=True):
            (line,) = axes.plot(x, accuracy.mean(axis=0), "o-", label=label)
            for seed in accuracy:
                axes.plot(x, seed, color=line.get_color(), alpha=0.3, linewidth=0.8)
    panels[0].set(xlabel="steps of 128 images", ylabel="test accuracy")
    panels[1].set(xlabel=f"seconds (processor time / {THREADS} threads, training steps only)")
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle("ResNet-20 on CIFAR-10, linear decay to zero")
    figure.savefig(out, dpi=140)
    pyplot.close(figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="cifar10.npz")
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar10-study"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--tuning-periods", type=int, default=1, help="of 195 steps (default: 1)")
    parser.add_argument("--periods", type=int, default=3, help="of 130 steps (default: 3)")
    parser.add_argument("--shorter", type=int, default=2, help="K-FAC's short run (default: 2)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--report-only", action="store_true", help="train nothing; report what is complete"
    )
    options = parser.parse_args()
    contest = tuning(options.tuning_periods)
    if not options.report_only:
        for run in contest:
            run.train(options.runs, options.data)
    best = best_rates(contest, options.runs)
    print("best learning rates:", best, flush=True)
    compared = finals(best, options.periods, options.shorter, options.seeds)
    for run in compared:
        if not options.report_only:
            run.train(options.runs, options.data)
    if options.report_only:
        compared = [run for run in compared if run.complete(options.runs)]
    options.out.mkdir(parents=True, exist_ok=True)
    table = list(rows([*contest, *compared], options.runs))
    with (options.out / "cifar10_study.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    plot(compared, options.runs, options.out / "cifar10_study.png")
    for row in table:
        print("  ".join(f"{value}" for value in row.values()))


if __name__ == "__main__":
    main()
