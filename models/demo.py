"""`make demo`: a small residual network on scikit-learn's digits, with SGD and with K-FAC.

The same network, data, batches and epochs three times: SGD, K-FAC, and K-FAC on two ranks under
`horovodrun`. Ends with a table and a picture of the curves. Each training is an ordinary call of
`models-train`, printed before it runs.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from models.plot import read_log
from models.run_directory import RunDirectory
from tfkfac.command_line import Parser, exit_code
from tfkfac.errors import InputError
from tfkfac.files import replacing

EPOCHS = 4
BATCH_SIZE = 128
WARMUP_EPOCHS = 0.5
# A short training: factors that follow the network from the first step on.
KFAC_OPTIONS = (
    *("--optimizer", "kfac", "--damping", "0.03", "--debias"),
    *("--factor-interval", "1", "--eigen-interval", "5"),
)


@dataclasses.dataclass(frozen=True)
class Training:
    """One row of the table."""

    title: str
    name: str
    options: tuple[str, ...]
    ranks: int = 1

    def command(self, out: Path) -> list[str]:
        """The command line, batches divided among the ranks."""
        train = [sys.executable, "-m", "models.train", "--config", "digits", *self.options]
        train += ["--epochs", str(EPOCHS), "--warmup-epochs", str(WARMUP_EPOCHS)]
        train += ["--batch-size", str(BATCH_SIZE // self.ranks), "--no-scale-learning-rate"]
        train += ["--out", str(out / self.name), "--overwrite"]
        if self.ranks == 1:
            return train
        launcher = Path(sys.executable).with_name("horovodrun")
        return [str(launcher), "-np", str(self.ranks), "--gloo", *train]


TRAININGS = (
    Training("SGD with momentum", "sgd", ("--optimizer", "sgd")),
    Training("K-FAC", "kfac", KFAC_OPTIONS),
    Training("K-FAC, two ranks", "kfac-2-ranks", KFAC_OPTIONS, ranks=2),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m models.demo", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--out", default="runs/demo", metavar="DIR", help="run directories (default: runs/demo)"
    )
    out = Path(parser.parse(arguments).out)
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    have_horovod = importlib.util.find_spec("horovod") is not None
    finished: list[tuple[Training, float]] = []
    for training in TRAININGS:
        if training.ranks > 1 and not have_horovod:
            console.print(f"\n[yellow]{training.title}: skipped, Horovod is not installed[/yellow]")
            continue
        console.rule(training.title)
        started = time.perf_counter()
        _train(training, out)
        finished.append((training, time.perf_counter() - started))
    console.print(_table(finished, out))
    picture = out / "curves.png"
    _plot([training for training, _ in finished], out, picture)
    console.print(f"curves: {picture}")


def _train(training: Training, out: Path) -> None:
    command = training.command(out)
    shown = ["python", *command[1:]] if training.ranks == 1 else ["horovodrun", *command[1:]]
    shown = ["python" if part == sys.executable else part for part in shown]
    print(f"$ {shlex.join(shown)}", flush=True)
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3")
    if training.ranks > 1:
        # Two ranks on one machine: a core each, so that they do not fight.
        threads = str(max(1, (os.cpu_count() or 1) // training.ranks))
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
            environment[name] = threads
    code = subprocess.run(command, env=environment, check=False).returncode
    if code:
        raise InputError(f"{training.title} ended with exit code {code}; its messages are above")


def _table(finished: Sequence[tuple[Training, float]], out: Path) -> Table:
    table = Table(title=f"digits, {EPOCHS} epochs, {BATCH_SIZE} images a step")
    for heading in ("", "accuracy", "after 2 epochs", "seconds", "seconds per epoch"):
        table.add_column(heading, justify="right" if heading else "left")
    for training, seconds in finished:
        log = read_log(RunDirectory(out / training.name).log)
        starts = [row["seconds"] for row in log]
        # The first epoch also traces and optimises the graph.
        later = [end - start for start, end in zip(starts, starts[1:], strict=False)]
        table.add_row(
            training.title,
            f"{log[-1]['val_accuracy']:.1%}",
            f"{log[1]['val_accuracy']:.1%}",
            f"{seconds:.0f}",
            f"{statistics.median(later):.2f}",
        )
    table.caption = "seconds: the whole command; seconds per epoch: median without the first"
    return table


def _plot(trainings: Sequence[Training], out: Path, picture: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for training in trainings:
        log = read_log(RunDirectory(out / training.name).log)
        epochs = [row["epoch"] for row in log]
        left.plot(epochs, [row["val_accuracy"] for row in log], ".-", label=training.title)
        right.semilogy(epochs, [row["loss"] for row in log], ".-", label=training.title)
    left.set(xlabel="epoch", ylabel="test accuracy")
    right.set(xlabel="epoch", ylabel="training loss")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(picture) as temporary:
        figure.savefig(temporary, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
