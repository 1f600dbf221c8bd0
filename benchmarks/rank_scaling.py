"""Step time of K-FAC on 1, 2 and 4 ranks of this machine, by placement (weak scaling).

Every rank trains a ResNet-8 of width 32 (factors of order up to 1152) on the same number of images
a step, with one thread, so that ranks do not fight for cores: 4 ranks on 2 cores still share them,
and a step then takes twice as long for that reason alone. SGD with the same gradient averaging
stands beside it. Plain, factor and decomposition steps are timed apart.

    python benchmarks/rank_scaling.py --out docs/results

"refreshed" renews the bases of large factors by matrix products that the ranks share, instead of
decomposing them anew.
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

# Of the timed steps: factors every second, decompositions every fourth.
FACTOR_INTERVAL, EIGEN_INTERVAL = 2, 4
CONFIGURATIONS: dict[str, dict[str, object] | None] = {
    "sgd": None,
    "factor-wise": {},
    "factor-wise, refreshed": {"refresh_above": 512},
    "layer-wise": {"placement": "layer-wise"},
    "hybrid": {"placement": "hybrid"},
}


def measure(batch: int, cycles: int, out: Path) -> None:
    """On each rank: times every configuration; rank 0 writes them."""
    import keras
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    import horovod.tensorflow as hvd

    from models.resnet import cifar_resnet
    from tfkfac import KFAC

    os.environ.setdefault("HOROVOD_DYNAMIC_PROCESS_SETS", "1")
    hvd.init()
    generator = np.random.default_rng(hvd.rank())
    images = generator.normal(size=(batch, 32, 32, 3)).astype(np.float32)
    labels = generator.integers(0, 10, batch)
    results: dict[str, list[float]] = {}
    for name, settings in CONFIGURATIONS.items():
        if hvd.size() == 1 and settings is not None and "placement" in settings:
            continue  # the same as factor-wise
        if hvd.size() == 2 and name == "hybrid":
            continue  # one worker of two: the same as layer-wise
        keras.utils.set_random_seed(0)
        model = cifar_resnet(8, width=32)
        if settings is None:
            optimizer = _Averaged(keras.optimizers.SGD(0.01, momentum=0.9), hvd)
        else:
            intervals = {"factor_interval": FACTOR_INTERVAL, "eigen_interval": EIGEN_INTERVAL}
            optimizer = KFAC(0.01, damping=0.03, **intervals, **settings)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer.build(model.trainable_variables)

        @tf.function(autograph=False)
        def step(model=model, optimizer=optimizer, loss=loss):
            with tf.GradientTape() as tape:
                value = loss(labels, model(images, training=True))
            gradients = tape.gradient(value, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return value

        for _ in range(EIGEN_INTERVAL):
            step().numpy()
        seconds = []
        for _ in range(cycles * EIGEN_INTERVAL):
            hvd.allreduce(tf.zeros([1]), name="together")
            start = time.perf_counter()
            step().numpy()
            seconds.append(time.perf_counter() - start)
        results[name] = seconds
        if hvd.rank() == 0:
            print(hvd.size(), name, [round(s, 3) for s in seconds], flush=True)
    if hvd.rank() == 0:
        out.write_text(json.dumps(results))


class _Averaged:
    """SGD on averaged gradients."""

    def __init__(self, optimizer, hvd):
        self._optimizer, self._hvd = optimizer, hvd

    def build(self, variables):
        self._optimizer.build(variables)

    def apply_gradients(self, pairs):
        gradients, variables = zip(*pairs, strict=True)
        if self._hvd.size() > 1:
            gradients = self._hvd.grouped_allreduce(
                list(gradients), name="gradients", op=self._hvd.Average, ignore_name_scope=True
            )
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))


def kinds(seconds: list[float]) -> dict[str, float]:
    """Median seconds of plain, factor and decomposition steps."""
    by_kind: dict[str, list[float]] = {"plain": [], "factor": [], "decomposition": []}
    for i, value in enumerate(seconds):
        if i % EIGEN_INTERVAL == 0:
            by_kind["decomposition"].append(value)
        elif i % FACTOR_INTERVAL == 0:
            by_kind["factor"].append(value)
        else:
            by_kind["plain"].append(value)
    return {kind: statistics.median(values) for kind, values in by_kind.items()}


def amortised(by_kind: dict[str, float], factor: int = 10, eigen: int = 100) -> float:
    """Mean seconds of a step when factors and decompositions are due at these intervals."""
    extra_factor = (by_kind["factor"] - by_kind["plain"]) / factor
    extra_eigen = (by_kind["decomposition"] - by_kind["factor"]) / eigen
    return by_kind["plain"] + extra_factor + extra_eigen


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--batch", type=int, default=32, help="images a rank and step")
    parser.add_argument("--cycles", type=int, default=5, help="of four timed steps")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        measure(options.batch, options.cycles, options.out)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for ranks in options.ranks:
        file = options.out / f".ranks{ranks}.json"
        launcher = str(Path(sys.executable).with_name("horovodrun"))
        command = [launcher, "-np", str(ranks), "--gloo", sys.executable, __file__, "--worker"]
        command += ["--out", str(file), "--batch", str(options.batch)]
        command += ["--cycles", str(options.cycles)]
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1", **os.environ}
        environment["HOROVOD_DYNAMIC_PROCESS_SETS"] = "1"
        subprocess.run(command, check=True, env=environment)
        results = json.loads(file.read_text())
        file.unlink()
        sgd = statistics.median(results["sgd"])
        for name, seconds in results.items():
            by_kind = kinds(seconds)
            mean = sgd if name == "sgd" else amortised(by_kind)
            row: dict[str, object] = {"ranks": ranks, "configuration": name}
            row.update({kind: round(1000 * value) for kind, value in by_kind.items()})
            row.update({"amortised 10/100": round(1000 * mean), "over sgd": round(mean / sgd, 2)})
            rows.append(row)
            print("  ".join(f"{value}" for value in row.values()), flush=True)
    with (options.out / "rank_scaling.csv").open("w", newline="") as target:
        writer = csv.DictWriter(target, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
