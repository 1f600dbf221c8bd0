"""What a K-FAC step costs beside an SGD step: one process, optimizers interleaved.

Measures plain, factor and decomposition steps apart, and the amortised cost at the intervals 10/100
and 1/10 (factor updates / decompositions), as ratios to SGD with momentum on the same batch. First
steps, tracing included, are in seconds. "Reduced" are factors with weight_sharing="reduce".

    python benchmarks/step_cost.py --networks resnet20 resnet32 --out docs/results/step_cost.csv

Ratios are of medians; the columns with `min` are ratios of minima, which a busy machine disturbs
less.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as models-train sets it

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import track  # noqa: E402
from rich.table import Table  # noqa: E402

from models import resnet  # noqa: E402
from tfkfac import KFAC  # noqa: E402

NEVER = 10**9


def make_step(network: str, optimizer: keras.optimizers.Optimizer):
    """A compiled training step of `network` with its own weights."""
    keras.utils.set_random_seed(0)
    model = getattr(resnet, network)()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    variables = model.trainable_variables
    optimizer.build(variables)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        optimizer.apply(tape.gradient(value, variables), variables)
        return value

    return step


def seconds(step, images, labels) -> float:
    """Wall-clock of one step."""
    start = time.perf_counter()
    float(step(images, labels))
    return time.perf_counter() - start


def measure(
    network: str, batch: int, repeats: int
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Seconds of each optimizer's first step, and of each kind of step, taken in turns."""
    generator = tf.random.Generator.from_seed(0)
    images = generator.normal((batch, 32, 32, 3))
    labels = generator.uniform((batch,), 0, 10, tf.int32)
    kfac = {"kfac": KFAC(0.01), "reduced": KFAC(0.01, weight_sharing="reduce")}
    steps = {
        "sgd": make_step(network, keras.optimizers.SGD(0.01, momentum=0.9)),
        "adamw": make_step(network, keras.optimizers.AdamW(0.001)),
        "muon": make_step(network, keras.optimizers.Muon(0.001)),
        **{name: make_step(network, optimizer) for name, optimizer in kfac.items()},
    }

    def kfac_step(factor_interval: int, eigen_interval: int, name: str = "kfac") -> float:
        kfac[name].factor_interval, kfac[name].eigen_interval = factor_interval, eigen_interval
        kfac[name].iterations.assign(1)
        return seconds(steps[name], images, labels)

    kinds = {
        "sgd": lambda: seconds(steps["sgd"], images, labels),
        "adamw": lambda: seconds(steps["adamw"], images, labels),
        "muon": lambda: seconds(steps["muon"], images, labels),
        "plain": lambda: kfac_step(NEVER, NEVER),
        "factor": lambda: kfac_step(1, NEVER),
        "reduced factor": lambda: kfac_step(1, NEVER, "reduced"),
        "decomposition": lambda: kfac_step(NEVER, 1),
    }
    first = {name: seconds(step, images, labels) for name, step in steps.items()}
    for kind in kinds.values():  # branches that run for the first time
        kind()
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in track(range(repeats), description=network):
        for name, kind in kinds.items():
            times[name].append(kind())
    return first, {name: np.array(values) for name, values in times.items()}


def amortised(times: dict[str, float], factor_interval: int, eigen_interval: int) -> float:
    """Mean seconds of a K-FAC step at the given intervals."""
    factor = (times["factor"] - times["plain"]) / factor_interval
    decomposition = (times["decomposition"] - times["plain"]) / eigen_interval
    return times["plain"] + factor + decomposition


Row = dict[str, str | float | None]


def summarise(
    network: str, batch: int, first: dict[str, float], times: dict[str, np.ndarray]
) -> Row:
    """One row of the table: milliseconds of SGD, other steps relative to it, first steps."""
    row: Row = {"network": network, "batch": batch, "threads": os.cpu_count()}
    for label, reduce in (("", np.median), ("min ", np.min)):
        value = {name: float(reduce(values)) for name, values in times.items()}
        sgd = value["sgd"]
        row[f"{label}sgd ms"] = round(1000 * sgd, 1)
        for kind in ("adamw", "muon", "plain", "factor", "reduced factor", "decomposition"):
            row[f"{label}{kind}"] = round(value[kind] / sgd, 3)
        row[f"{label}10/100"] = round(amortised(value, 10, 100) / sgd, 3)
        row[f"{label}1/10"] = round(amortised(value, 1, 10) / sgd, 3)
    row |= {f"first step of {name}, s": round(value, 1) for name, value in first.items()}
    return row


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet32"])
    parser.add_argument("--batch", type=int, default=128, help="images (default: 128)")
    parser.add_argument("--repeats", type=int, default=15, help="of each kind (default: 15)")
    parser.add_argument("--out", type=Path, help="CSV file to write")
    options = parser.parse_args()
    rows = [
        summarise(network, options.batch, *measure(network, options.batch, options.repeats))
        for network in options.networks
    ]
    table = Table(title="Step cost relative to SGD with momentum")
    table.add_column("")
    for row in rows:
        table.add_column(str(row["network"]), justify="right")
    for name in rows[0]:
        if name != "network":
            table.add_row(name, *(str(row[name]) for row in rows))
    Console().print(table)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
