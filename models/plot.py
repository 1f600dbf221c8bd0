"""The command `models-plot`: compares trainings in a picture."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from models.config import unknown
from models.run_directory import COLUMNS, RunDirectory
from tfkfac.command_line import Parser, exit_code
from tfkfac.errors import InputError
from tfkfac.files import replacing

LABELS = {
    "epoch": "epoch",
    "step": "training steps",
    "seconds": "training time without evaluation (s)",
    "total_seconds": "wall-clock time (s)",
    "cpu_seconds": "processor time of training (s)",
    "loss": "training loss",
    "accuracy": "training accuracy",
    "val_loss": "test loss",
    "val_accuracy": "test accuracy",
    "learning_rate": "learning rate",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: those of the command line; default: the process's.

    Returns:
        The exit code: 0, or 2 if the input is wrong.
    """
    return exit_code(lambda: _run(arguments))


def parser() -> Parser:
    """The command's options."""
    result = Parser(prog="models-plot", description="Plot the logs of trainings over each other.")
    result.add_argument("runs", nargs="+", metavar="RUN_DIR", help="run directory of models-train")
    result.add_argument(
        "--out", required=True, metavar="FILE", help="picture to write: .png, .pdf or .svg"
    )
    columns = ", ".join(COLUMNS)
    result.add_argument(
        "--x", default="epoch", metavar="COLUMN", help=f"{columns} (default: epoch)"
    )
    result.add_argument(
        "--y", default="val_accuracy", metavar="COLUMN", help="likewise (default: val_accuracy)"
    )
    return result


def read_log(path: Path) -> list[dict[str, float]]:
    """The lines of a training's log.csv, one mapping of column to value for each epoch.

    Raises:
        InputError: naming file and line, if there is no log, it is empty, or a value is no
            number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no readable log ({error})") from error
    if len(lines) < 2:
        raise InputError(f"{path}: no finished epoch in it")
    header = lines[0].split(",")
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise InputError(f"{path}:1: no column {missing[0]}; expected a log of models-train")
    rows = []
    for number, line in enumerate(csv.reader(lines[1:]), start=2):
        try:
            values = [float(value) for value in line]
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}") from error
        if len(values) != len(header):
            raise InputError(f"{path}:{number}: {len(values)} values for {len(header)} columns")
        rows.append(dict(zip(header, values, strict=True)))
    return rows


def plot(runs: Sequence[Path], out: Path, x: str = "epoch", y: str = "val_accuracy") -> None:
    """Draws column `y` over column `x` of each run's log, one line a run, labelled by its name.

    Args:
        runs: run directories.
        out: file to write; its suffix decides the format.
        x, y: columns of the logs.

    Raises:
        InputError: if a log is missing or damaged, a column unknown, or the format unsupported.
    """
    for option, column in (("--x", x), ("--y", y)):
        if column not in COLUMNS:
            raise unknown("column", column, COLUMNS, option)
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: no directory {out.parent}")
    logs = [read_log(RunDirectory(run).log) for run in runs]

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    try:
        formats = figure.canvas.get_supported_filetypes()
        if out.suffix[1:] not in formats:
            raise InputError(f"--out {out}: the suffix must be one of .{', .'.join(formats)}")
        for label, log in zip(_names(runs), logs, strict=True):
            axes.plot([row[x] for row in log], [row[y] for row in log], ".-", label=label)
        axes.set_xlabel(LABELS[x])
        axes.set_ylabel(LABELS[y])
        if x in ("epoch", "step"):
            axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
        with replacing(out) as temporary:
            figure.savefig(temporary, dpi=150)
    finally:
        pyplot.close(figure)


def _names(runs: Sequence[Path]) -> list[str]:
    """The directories' own names, or their whole paths if two share one."""
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _run(arguments: Sequence[str] | None) -> None:
    options = parser().parse(arguments)
    plot([Path(run) for run in options.runs], Path(options.out), options.x, options.y)


if __name__ == "__main__":
    sys.exit(main())
