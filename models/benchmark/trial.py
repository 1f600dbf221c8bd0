"""One trial: a plan becomes a training, and what it took becomes a record.

    python -m models.benchmark.trial PLANFILE RECORDFILE

The clock's rules are MLPerf's. Before it starts: imports, the network's weights, and the making of
generated examples, which are data and no training. It starts before the trial reads its data, and
covers reading, tracing, compiling, training and evaluating, until an evaluation finds the target
reached or the epochs are over. What is measured besides (quality on training examples, FLOPs, the
time of an exchange) is left out.
"""

from __future__ import annotations

import dataclasses
import datetime
import gc
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from models import workloads
from models.benchmark import exchange, metrics, optimizers, power, products, record, system, threads
from models.benchmark.mllog import Log
from models.benchmark.observation import Observer, Speed, speed
from models.benchmark.record import Conditions, Evaluation, Plan, Record
from models.benchmark.stopwatch import Stopwatch
from models.data import generated
from models.data.dataset import Shard
from models.workloads import Size, Workload
from tfkfac import ranks as processes
from tfkfac.command_line import exit_code
from tfkfac.errors import InputError
from tfkfac.ranks import Ranks

# What TensorFlow's operations say where numbers have become too large.
_DIVERGED = ("decomposition was not successful", "is not invertible")


def run(
    plan: Plan,
    conditions: Conditions,
    ranks: Ranks | None = None,
    log: Log | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Record:
    """Trains as planned.

    Args:
        plan: what to do.
        conditions: how.
        ranks: this process among others that run the same plan.
        log: receives MLPerf's events.
        say: prints a line of progress.

    Returns:
        The record; that of the first rank is the trial's.

    Raises:
        InputError: if plan or data are wrong.
        TrainingError: if the clock went back.
    """
    ranks, log = ranks or Ranks(), log or Log(None)
    workload = workloads.get(plan.workload)
    size = workload.size(plan.size)
    if plan.batch_size % ranks.size:
        raise InputError(f"{plan.name}: {ranks.size} ranks do not divide {plan.batch_size}")
    batch, shard = plan.batch_size // ranks.size, Shard(ranks.rank, ranks.size)
    optimizers.check(plan.optimizer, plan.settings, plan.name)
    _log_plan(log, plan)
    log.start("init_start")
    keras.utils.set_random_seed(plan.seed)
    model = size.network()
    _prepare(size, plan, conditions, ranks)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    log.stop("init_stop")

    log.start("run_start")
    meter = power.EnergyMeter() if ranks.is_first else None
    watch = Stopwatch(meter, conditions.watts)
    data = _data(size, plan, conditions)
    steps = plan.steps_per_epoch or data.steps_per_epoch(batch, shard)
    build = optimizers.builder(plan.optimizer, plan.settings, steps * plan.epochs, model)
    # XLA has no Horovod operations; without it everywhere, ranks and optimizers compare.
    workload.compile(model, build, jit_compile=False)
    observer = Observer(
        workload, data, batch, plan.target, watch, ranks, log, say, epochs=plan.epochs
    )
    batches = data.training(batch, plan.seed, 0, shard)
    _fit(model, batches, steps, plan, observer)

    return _record(plan, conditions, ranks, workload, model, data, observer, started, batches)


def _fit(model: keras.Model, batches: Any, steps: int, plan: Plan, observer: Observer) -> None:
    callbacks: list[Any] = []
    if observer.ranks.size > 1:
        from tfkfac.rank_callbacks import BroadcastVariables, StallWatchdog

        callbacks += [BroadcastVariables(), StallWatchdog()]
    try:
        model.fit(
            batches,
            steps_per_epoch=steps,
            epochs=plan.epochs,
            callbacks=[*callbacks, observer],
            shuffle=False,
            verbose=0,
        )
    except tf.errors.OpError as error:
        message = " ".join(str(error.message).split())
        if (damaged := re.search(r"\bInputError: (.*?)( Traceback |$)", message)) is not None:
            raise InputError(damaged[1]) from error  # of what reads the examples
        finite = all(
            bool(tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(weight))))
            for weight in model.trainable_variables
        )
        if finite and not any(sign in message for sign in _DIVERGED):
            raise
        observer.give_up(message[:200], len(observer.history))


def _data(size: Size, plan: Plan, conditions: Conditions) -> Any:
    cache = Path(conditions.cache) if conditions.cache else generated.default_directory()
    try:
        return size.data(None if plan.data is None else Path(plan.data), cache)
    except OSError as error:
        raise InputError(f"{plan.data or plan.workload}: {error}") from error


def _prepare(size: Size, plan: Plan, conditions: Conditions, ranks: Ranks) -> None:
    """Has generated examples made and kept, by one rank. Original files are left alone."""
    if plan.data is None and ranks.is_first:
        _data(size, plan, conditions)
        gc.collect()
    ranks.from_first(0)  # the others wait


def _record(
    plan: Plan,
    conditions: Conditions,
    ranks: Ranks,
    workload: Workload,
    model: keras.Model,
    data: Any,
    observer: Observer,
    started: str,
    batches: Any,
) -> Record:
    """Reckons what follows from what was observed. All ranks call this."""
    peak, gpu_peak = _largest(system.peak_memory(), ranks), _largest(_gpu_memory(), ranks)
    measured = speed(observer.seconds, plan.batch_size)
    energy = observer.energy
    target_entry = first_reaching(observer.history, observer.reached)
    status = record.NO_TARGET
    if plan.target is not None:
        status = record.MISSED if target_entry is None else record.REACHED
    inputs, targets = batches.element_spec

    def plain() -> keras.Model:
        """The network anew, with an optimizer without products and without exchange."""
        other = workload.size(plan.size).network()
        workload.compile(other, keras.optimizers.SGD, jit_compile=False)
        return other

    flops = products.of_network(plain(), inputs, targets)
    # On several ranks a trace would differ from rank to rank: each has its part of the work.
    own = None if ranks.size > 1 else products.of_optimizer(model, plain, inputs, targets)
    return dataclasses.replace(
        derived(
            Record(
                plan,
                status,
                workload.metric,
                workload.higher_is_better,
                tuple(observer.history),
                note=observer.diverged or _incomplete_cycle(plan, measured),
                time_to_quality=None if target_entry is None else target_entry.seconds,
                seconds=observer.history[-1].seconds,
                started=started,
                parameters=sum(math.prod(v.shape) for v in model.trainable_variables),
                flops_per_sample=flops,
                optimizer_flops_per_step=own,
                energy=None if energy is None else dataclasses.asdict(energy),
                energy_to_quality=None if target_entry is None else target_entry.joules,
            ),
            measured,
            conditions,
        ),
        peak_memory=peak,
        peak_gpu_memory=gpu_peak,
        allreduce_share=_exchange_share(model, measured, plan.batch_size, ranks),
        configuration_hash=plan.configuration_hash,
        data_hash=data_hash(data, plan.data),
        system=system.describe(system.gpus(), threads.count(conditions, ranks)),
    )


def derived(result: Record, measured: Speed, conditions: Conditions) -> Record:
    """The record with speed, FLOPS, VFLOPS and cost, which follow from others.

    Args:
        result: with history, quality, FLOPs of an example and times.
        measured: speed of its steps.
        conditions: exponent, cap and price.
    """
    rate, flops, quality = measured.samples_per_second, result.flops_per_sample, result.quality
    flops_per_second = None if rate is None or flops is None else rate * flops
    valid = None
    if flops_per_second is not None and quality is not None and result.plan.target is not None:
        try:
            valid = metrics.vflops(
                flops_per_second,
                quality,
                result.plan.target,
                conditions.vflops_exponent,
                result.higher_is_better,
                conditions.vflops_cap,
            )
        except ValueError:  # no ratio
            valid = None
    price, time = conditions.price_per_hour, result.time_to_quality
    return dataclasses.replace(
        result,
        samples_per_second=rate,
        step_seconds=measured.median,
        longest_step_seconds=measured.longest,
        warm_up_steps=measured.warm_up_steps,
        timed_steps=measured.timed_steps,
        flops_per_second=flops_per_second,
        vflops=valid,
        vflops_exponent=conditions.vflops_exponent,
        vflops_cap=conditions.vflops_cap,
        price_per_hour=price,
        currency=None if price is None else conditions.currency,
        cost_to_quality=None if price is None or time is None else metrics.cost(time, price),
    )


def first_reaching(
    history: Sequence[Evaluation], reached: Callable[[float | None], bool]
) -> Evaluation | None:
    """The first evaluation whose quality is good enough."""
    return next((entry for entry in history if reached(entry.quality)), None)


def data_hash(data: Any, path: str | None) -> str | None:
    """Of generated examples, or of the names and sizes of original files; None for others.

    Args:
        data: what was trained on.
        path: a file or folder; None for generated examples.
    """
    if path is None:
        return data.digest() if hasattr(data, "digest") else None
    root = Path(path)
    files = [root] if root.is_file() else sorted(f for f in root.rglob("*") if f.is_file())
    return record.digest([[str(file.relative_to(root)), file.stat().st_size] for file in files])


def _incomplete_cycle(plan: Plan, measured: Speed) -> str | None:
    """What is to be said of K-FAC's speed if no decomposition may be among the steps it is of."""
    interval = optimizers.setting(plan.optimizer, plan.settings, "eigen_interval")
    if interval is None or measured.timed_steps >= interval:
        return None
    return f"speed is of {measured.timed_steps} steps, fewer than eigen_interval {interval}"


def _exchange_share(
    model: keras.Model, measured: Speed, batch_size: int, ranks: Ranks
) -> float | None:
    if ranks.size == 1 or measured.samples_per_second is None:
        return None
    step = batch_size / measured.samples_per_second
    return exchange.seconds_per_step(model) / step


def _largest(value: int | None, ranks: Ranks) -> int | None:
    if ranks.size == 1:
        return value
    import horovod.tensorflow as hvd

    values = [v for v in hvd.allgather_object(value) if v is not None]
    return max(values, default=None)


def _gpu_memory() -> int | None:
    if not tf.config.get_visible_devices("GPU"):
        return None
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])


def _log_plan(log: Log, plan: Plan) -> None:
    log.point("submission_benchmark", plan.workload, size=plan.size)
    log.point("seed", plan.seed)
    log.point("global_batch_size", plan.batch_size)
    log.point("opt_name", plan.optimizer)
    for name, value in plan.settings.items():
        log.point("opt_base_learning_rate" if name == "learning_rate" else f"opt_{name}", value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the trial of a plan file and writes its record; the log lies beside it."""
    return exit_code(lambda: _main(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: Sequence[str]) -> None:
    if len(arguments) != 2:
        raise InputError("usage: python -m models.benchmark.trial PLANFILE RECORDFILE")
    plan_file, target = map(Path, arguments)
    plan, conditions = record.read_task(plan_file)
    ranks = processes.start(horovod=False)
    if ranks.size != plan.ranks:
        raise InputError(f"{plan_file}: is for {plan.ranks} ranks, and {ranks.size} run")
    threads.use(conditions, ranks)
    path = target.with_suffix(".mllog") if ranks.is_first else None

    def say(line: str) -> None:
        if ranks.is_first:
            print(line, flush=True)

    with Log(path) as log:
        result = run(plan, conditions, ranks, log, say)
    if ranks.is_first:
        record.write(target, record.to_json(result))


if __name__ == "__main__":
    sys.exit(main())
