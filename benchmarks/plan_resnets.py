"""Predicts K-FAC's cost for ResNet-50, -101 and -152 on 16 to 256 ranks, beside SC20's and KAISA's.

Also searches, at 64 ranks, the setting with the shortest mean step among those whose decompositions
are even (longest / mean at most 1.1) and that send at most half of the bytes of SC20's factor-wise
placement, in float32 or at all, and the fastest one without such bounds. Prints the tables of
docs/planning.md.

    python benchmarks/plan_resnets.py --out planning.csv --plot planning.png
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console  # noqa: E402

from tfkfac import machine, model_trace, plan_output  # noqa: E402
from tfkfac.costs import (  # noqa: E402
    GRADIENTS,
    STAGES,
    TRAINING,
    Prediction,
    Scheme,
    predict,
)
from tfkfac.layer_costs import Workload, has_basis  # noqa: E402
from tfkfac.machine import Machine  # noqa: E402
from tfkfac.plan_command import built_in_models  # noqa: E402

NETWORKS = ("resnet50", "resnet101", "resnet152")
RANKS = (16, 32, 64, 128, 256)
SEARCHED_AT = 64
LARGEST_IMBALANCE = 1.1
BATCH = 32  # as in SC20

SC20 = Scheme(round_robin=True, triangles=False)
SETTINGS = {
    "SC20 factor-wise": SC20,
    "SC20 layer-wise": dataclasses.replace(SC20, placement="layer-wise"),
    "KAISA hybrid 1/2": Scheme("hybrid", triangles=False),
    "factor-wise, float32": Scheme(refresh_above=255),
    "factor-wise": Scheme(refresh_above=255, half=True),
    "hybrid 1/4": Scheme("hybrid", 1 / 4, refresh_above=255, half=True),
}
FRACTIONS = (1 / 2, 1 / 4, 1 / 8, 1 / 16)


def candidates(workload: Workload) -> Iterator[Scheme]:
    """All settings to choose from; `refresh_above` is just below one of the factors' orders."""
    sides = [side for layer in workload.layers for _, side in layer.sides() if has_basis(side)]
    limits = [None, *sorted({side.block_size - 1 for side in sides})]
    for half, limit in itertools.product((False, True), limits):
        common = Scheme(half=half, refresh_above=limit)
        yield common
        yield dataclasses.replace(common, placement="layer-wise")
        for fraction in FRACTIONS:
            yield dataclasses.replace(common, placement="hybrid", gradient_worker_fraction=fraction)


def search(workload: Workload, description: Machine) -> dict[str, Prediction | None]:
    """The fastest settings under each condition, by its name; None where none fulfils it."""
    allowed = predict(workload, description, SEARCHED_AT, SC20).kfac_bytes_per_step / 2
    conditions: dict[str, Callable[[Prediction], bool]] = {
        "even, half the bytes, float32": lambda p: (
            is_even(p) and not p.scheme.half and p.kfac_bytes_per_step <= allowed
        ),
        "even, half the bytes": lambda p: is_even(p) and p.kfac_bytes_per_step <= allowed,
        "even": is_even,
        "any": lambda p: True,
    }
    predictions = [
        predict(workload, description, SEARCHED_AT, scheme) for scheme in candidates(workload)
    ]
    return {
        name: min(filter(condition, predictions), key=lambda p: p.step_seconds, default=None)
        for name, condition in conditions.items()
    }


def is_even(prediction: Prediction) -> bool:
    """Whether the longest decomposition is near the mean, in n³ as well as in seconds."""
    largest = max(prediction.work_imbalance, prediction.seconds_imbalance)
    return largest <= LARGEST_IMBALANCE


def described(prediction: Prediction) -> str:
    """A setting in the words of `KFAC`'s arguments, and what it gives."""
    scheme = prediction.scheme
    words = [scheme.placement]
    if scheme.placement == "hybrid":
        words.append(f"gradient_worker_fraction={scheme.gradient_worker_fraction:g}")
    if scheme.refresh_above is not None:
        words.append(f"refresh_above={scheme.refresh_above}")
    if scheme.half:
        words.append('factor_compression="float16"')
    return (
        f"{', '.join(words)}: {1000 * prediction.step_seconds:.1f} ms, longest / mean "
        f"{prediction.work_imbalance:.2f} (n³) {prediction.seconds_imbalance:.2f} (seconds), "
        f"{prediction.kfac_bytes_per_step / 1e6:.1f} MB"
    )


COLUMNS = {
    "n³": "longest / mean n³",
    "s": "longest / mean seconds",
    "MB": "K-FAC MB a step",
    "longest": "longest step ms",
    "mean": "mean step ms",
}


def row(network: str, name: str, prediction: Prediction) -> dict[str, str | float]:
    """One line of the CSV file."""
    values: dict[str, str | float] = {
        "network": network,
        "ranks": prediction.ranks,
        "setting": name,
        COLUMNS["n³"]: round(prediction.work_imbalance, 2),
        COLUMNS["s"]: round(prediction.seconds_imbalance, 2),
        "first decomposition s": round(prediction.first_seconds, 2),
        "bases MB": round(max(prediction.basis_bytes) / 1e6),
    }
    for stage in plan_output.TRAFFIC:
        values[f"{stage} MB a step"] = round(prediction.bytes_per_step(stage) / 1e6, 1)
    values[COLUMNS["MB"]] = round(prediction.kfac_bytes_per_step / 1e6, 1)
    for stage in STAGES:
        values[f"{stage} ms"] = round(1000 * prediction.seconds_per_step(stage), 2)
    values[COLUMNS["mean"]] = round(1000 * prediction.step_seconds, 1)
    values[COLUMNS["longest"]] = round(1000 * prediction.longest_step_seconds)
    return values


def markdown(rows: list[dict[str, str | float]]) -> str:
    """The rows of one network as a table."""
    stages = [stage for stage in STAGES if stage not in (TRAINING, GRADIENTS)]
    headings = ["ranks", "setting", "n³", "seconds", "MB", *stages, "mean step", "longest"]
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    for line in rows:
        columns = [COLUMNS[key] for key in ("n³", "s", "MB")]
        columns += [f"{stage} ms" for stage in stages] + [COLUMNS["mean"], COLUMNS["longest"]]
        cells = [str(line["ranks"]), str(line["setting"])]
        cells += [_cell(float(line[column])) for column in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float) -> str:
    if value == 0:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--machine", default="v100-cluster")
    parser.add_argument("--out", type=Path, help="CSV file to write")
    parser.add_argument("--plot", type=Path, help="picture of the first network to write")
    options = parser.parse_args()
    description = machine.read(machine.find(options.machine))
    rows: list[dict[str, str | float]] = []
    for network in options.networks:
        with Console(stderr=True).status(f"tracing {network}"):
            subject = model_trace.load(network, built_in_models())
            workload = model_trace.trace(subject, BATCH, count_factors=not description.gpu)
        predictions = [
            (name, predict(workload, description, ranks, scheme))
            for ranks in RANKS
            for name, scheme in SETTINGS.items()
        ]
        own = [row(network, name, prediction) for name, prediction in predictions]
        rows += own
        times = predictions[0][1].seconds
        gradients = [p.seconds[GRADIENTS] for _, p in predictions]
        print(f"\n### {network}\n")
        print(
            f"Training takes {1000 * times[TRAINING]:.0f} ms, averaging gradients "
            f"{1000 * min(gradients):.0f} to {1000 * max(gradients):.0f} ms.\n"
        )
        print(markdown(own))
        print(f"\nFastest at {SEARCHED_AT} ranks:\n")
        for name, best in search(workload, description).items():
            print(f"- {name}: {'none' if best is None else described(best)}")
        if options.plot and network == options.networks[0]:
            title = f"{network}, {BATCH} images a rank, {description.name}"
            plan_output.plot(title, predictions, options.plot)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
