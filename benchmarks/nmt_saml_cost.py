"""What an update costs with samples in it: SAML and scheduled sampling beside maximum likelihood.

    python benchmarks/nmt_saml_cost.py
    python benchmarks/nmt_saml_cost.py --rounds 20 --csv docs/results/saml_cost.csv

Models have the sizes of the presets small-rnn and small-transformer with 8,000 subwords; batches of
made-up sentences have 2,048 target positions, in three shapes. An update is everything: both
passes, gradients, Adam. All objectives are compiled in one process and take turns, round by round;
the table has the median over the rounds, and the ratio to the median of maximum likelihood.
Processor time is that of all threads. Peak memory is the resident set's, of a process of its own
for each objective, whose only work it is; the part that any process with TensorFlow and this model
needs is in all of them.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY, TOKENS, END = 8000, 2048, 3
SHAPES = [(15, 16), (12, 12), (19, 20)]  # source and target, END included
# What differs from the presets' loss options.
OBJECTIVES: dict[str, dict[str, Any]] = {
    "mle": {"objective": "mle"},
    "saml": {"objective": "saml"},
    "saml, relaxed samples": {"objective": "saml", "sampler": "gumbel-softmax"},
    "saml, no noise": {"objective": "saml", "sampler": "st-softmax"},
    "saml, samples constant": {"objective": "saml", "differentiable": False},
    "saml, hard-aligned": {"objective": "saml-hard"},
    "scheduled sampling": {"objective": "scheduled-sampling"},
    "differentiable scheduled sampling": {"objective": "differentiable-scheduled-sampling"},
}
COLUMNS = (
    "architecture", "objective", "milliseconds", "ratio", "cpu_milliseconds", "cpu_ratio",
    "peak_mib", "peak_ratio", "rounds", "threads", "tokens",
)  # fmt: skip


def batches(seed: int = 0) -> list[dict[str, Any]]:
    """Batches of several lengths."""
    import tensorflow as tf

    generator = np.random.default_rng(seed)

    def ids(rows: int, length: int) -> Any:
        words = generator.integers(4, VOCABULARY, (rows, length), dtype=np.int32)
        words[:, -1] = END
        return tf.constant(words)

    sizes = [(TOKENS // max(shape), shape) for shape in SHAPES]
    return [{"source": ids(n, s), "target": ids(n, t)} for n, (s, t) in sizes]


class Contestant:
    """A model, its optimizer and one objective.

    Args:
        architecture: rnn or transformer.
        objective: one of `OBJECTIVES`.
        jit: compile with XLA.
    """

    def __init__(self, architecture: str, objective: str, jit: bool = False) -> None:
        import keras

        from nmt import config_files
        from nmt.config import Loss
        from nmt.models import build_model
        from nmt.training import objectives, optimizers
        from nmt.training.step import TrainingStep
        from tfkfac.ranks import Ranks

        keras.utils.set_random_seed(1)
        config = config_files.read(config_files.find(f"small-{architecture}")).config()
        model = build_model(config.model_config(VOCABULARY, VOCABULARY))
        optimizer = optimizers.build(config.optimization)
        optimizer.build(model.trainable_variables)
        options = Loss(label_smoothing=config.loss.label_smoothing, **OBJECTIVES[objective])
        self._step = TrainingStep(
            model, optimizer, objectives.build(model, options), Ranks(), jit=jit
        )
        self._update = 0

    def round(self, data: list[dict[str, Any]]) -> tuple[float, float]:
        """Wall-clock and processor milliseconds of an update, a mean over the batches."""
        wall, processor = time.perf_counter(), time.process_time()
        for batch in data:
            self._update += 1
            self._step(batch, self._update, 1e-4).numpy()
        done = time.perf_counter() - wall, time.process_time() - processor
        return tuple(1000 * seconds / len(data) for seconds in done)


def begin(threads: int) -> None:
    """TensorFlow with so many threads."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def peak_memory(architecture: str, objective: str, options: argparse.Namespace) -> float:
    """Peak resident MiB of a process that does nothing else."""
    worker = [sys.executable, __file__, "--threads", str(options.threads)]
    worker += ["--jit"] * options.jit
    result = subprocess.run(
        [*worker, "--worker", json.dumps([architecture, objective])],
        capture_output=True,
        text=True,
    )
    if result.returncode:
        sys.exit(f"nmt_saml_cost: {objective}: {result.stderr}")
    return float(result.stdout.splitlines()[-1])


def run_worker(architecture: str, objective: str, jit: bool) -> None:
    """Prints the peak resident MiB after some updates."""
    contestant, data = Contestant(architecture, objective, jit), batches()
    for _ in range(3):
        contestant.round(data)
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    print(int(line.split()[1]) / 1024)


def measure(architecture: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row of the table for each objective."""
    names = [name for name in OBJECTIVES if name in ("mle", *options.objectives)]
    data = batches()
    contestants = {name: Contestant(architecture, name, options.jit) for name in names}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for turn in range(options.rounds + 2):
        for name, contestant in contestants.items():
            measurement = contestant.round(data)
            if turn >= 2:  # the first ones compile and warm up
                found[name].append(measurement)
        print(f"{architecture}: round {turn} of {options.rounds + 1}", file=sys.stderr)
    rows = []
    for name in names:
        wall, processor = (statistics.median(column) for column in zip(*found[name], strict=True))
        memory = peak_memory(architecture, name, options) if options.memory else None
        reference = rows[0] if rows else None
        rows.append(
            {
                "architecture": architecture,
                "objective": name,
                "milliseconds": round(wall, 1),
                "ratio": round(wall / reference["milliseconds"], 2) if reference else 1.0,
                "cpu_milliseconds": round(processor, 1),
                "cpu_ratio": (
                    round(processor / reference["cpu_milliseconds"], 2) if reference else 1.0
                ),
                "peak_mib": memory and round(memory),
                "peak_ratio": (
                    memory and (round(memory / reference["peak_mib"], 2) if reference else 1.0)
                ),
                "rounds": options.rounds,
                "threads": options.threads,
                "tokens": TOKENS,
            }
        )
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    architectures = ("rnn", "transformer")
    parser.add_argument("--architectures", nargs="+", choices=architectures, default=architectures)
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--rounds", type=int, default=10, help="of three updates (default: 10)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="(default: all)")
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--csv", type=Path, help="also write the table there")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    begin(options.threads)
    if options.worker:
        run_worker(*options.worker, options.jit)
        return
    rows = []
    for name in options.architectures:
        rows += measure(name, options)
        if options.csv:
            with options.csv.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)

    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"an update of {TOKENS} target positions, {options.threads} threads")
    for column in COLUMNS[:8]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in COLUMNS[:8]))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
