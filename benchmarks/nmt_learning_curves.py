"""Table and picture of what trainings of nmt-train logged: BLEU on validation text against time.

    python benchmarks/nmt_learning_curves.py Transformer=runs/transformer RNN=runs/rnn \\
        --title "Multi30k de-en" --out docs/results/multi30k

Writes OUT.csv and OUT.png. Time is processor time of the training updates, which other programs on
the machine disturb less than wall-clock; validations are not in it.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

COLUMNS = ("update", "epoch", "cpu_seconds", "tokens", "validation_loss", "bleu", "chrf")


def main() -> int:
    """Reads the logs, writes table and picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", nargs="+", metavar="NAME=DIR", help="model directories")
    parser.add_argument("--title", default="")
    parser.add_argument("--out", type=Path, required=True, help="without the endings")
    options = parser.parse_args()
    curves: dict[str, list[dict[str, str]]] = {}
    for item in options.models:
        name, separator, folder = item.partition("=")
        log = Path(folder) / "log.csv"
        if not separator or not log.is_file():
            print(f"error: {item}: expected NAME=DIR with a log.csv in it", file=sys.stderr)
            return 2
        with log.open(encoding="utf-8") as file:
            curves[name] = [row for row in csv.DictReader(file) if row.get("bleu")]

    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["model", *COLUMNS])
        for name, rows in curves.items():
            for row in rows:
                numbers = [float(row[column]) for column in COLUMNS]
                writer.writerow([name, *(f"{number:.6g}" for number in numbers)])
    _plot(curves, options.title, options.out.with_suffix(".png"))
    return 0


def _plot(curves: dict[str, list[dict[str, str]]], title: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, rows in curves.items():
        minutes = [float(row["cpu_seconds"]) / 60 for row in rows]
        axes.plot(minutes, [float(row["bleu"]) for row in rows], ".-", label=name)
    axes.set(xlabel="minutes of processor time", ylabel="BLEU, validation text, beam 5")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
