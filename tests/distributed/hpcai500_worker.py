"""A rank of hpcai500's test: what optimizers do with gradients, a trial, and an exchange."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from models import workloads
from models.benchmark import micro_suite, optimizers, record, trial
from models.benchmark.mllog import Log
from models.benchmark.observation import Observer
from models.benchmark.record import Conditions, Plan
from models.benchmark.stopwatch import Stopwatch
from tfkfac import ranks as processes
from tfkfac.ranks import Ranks

PLAN = Plan(
    "image-classification",
    "tiny",
    "muon",
    {"learning_rate": 0.02},
    batch_size=64,
    epochs=1,
    ranks=2,
    steps_per_epoch=8,
    target=0.3,
)


def gradients(rank: int) -> list[np.ndarray]:
    """Different ones on each rank."""
    random = np.random.default_rng(rank)
    return [random.normal(size=shape).astype(np.float32) for shape in ((3, 4), (4, 2))]


def weights_after(name: str, own: list[np.ndarray]) -> list[np.ndarray]:
    """Of a small network after one step with these gradients."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, use_bias=False), keras.layers.Dense(2, use_bias=False)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    optimizer = optimizers.builder(name, {"learning_rate": 0.1}, 10, model)()
    optimizer.build(model.trainable_variables)
    optimizer.apply(list(map(tf.constant, own)), model.trainable_variables)
    return [np.asarray(variable) for variable in model.trainable_variables]


def untrained_quality(ranks: Ranks) -> float | None:
    """Of a fixed network, evaluated by all ranks together."""
    keras.utils.set_random_seed(0)
    workload = workloads.get(PLAN.workload)
    size = workload.size(PLAN.size)
    observer = Observer(
        workload, size.data(None, None), 32, None, Stopwatch(), ranks, Log(None), print, 1
    )
    observer.set_model(size.network())
    return observer._quality(observer.data)


def main(out: Path) -> None:
    ranks = processes.start(horovod=False)
    own = gradients(ranks.rank)
    after = {name: weights_after(name, own) for name in ("sgd", "adamw", "muon")}
    arrays = {f"{name}{i}": v for name, values in after.items() for i, v in enumerate(values)}
    np.savez(out / f"rank{ranks.rank}.npz", **arrays)  # type: ignore[arg-type]
    with Log(out / "log" if ranks.is_first else None) as log:
        result = trial.run(PLAN, Conditions(threads=1), ranks, log)
    (found,) = micro_suite.measure(micro_suite.Task("tiny", 3, 2), Conditions(), ranks)
    values = {
        "untrained": untrained_quality(ranks),
        "record": record.to_json(result),
        "exchange": [found.name, found.ranks, found.traffic, len(found.seconds)],
    }
    (out / f"rank{ranks.rank}.json").write_text(json.dumps(values))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
