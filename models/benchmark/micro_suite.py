"""All micro benchmarks of a machine, against a roofline that is measured beside them.

    python -m models.benchmark.micro_suite TASKFILE RESULTFILE

The roofline's roof is the fastest of many large matrix products, its slope the fastest of several
copies of arrays that no cache holds. An exchange between ranks has no roofline: nothing else
measures the links.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from models.benchmark import micro, power, record, system
from models.benchmark.micro import Operation
from models.benchmark.record import Conditions
from models.benchmark.results import Micro
from models.benchmark.suite import write_micro
from models.benchmark.threads import use
from tfkfac import ranks as processes
from tfkfac.command_line import exit_code
from tfkfac.errors import InputError
from tfkfac.ranks import Ranks

# Arguments of the operations: `tiny` for tests, `small` as `micro` has them.
SIZES: dict[str, dict[str, dict[str, int]]] = {
    "tiny": {
        "convolution_2d": {"batch": 2, "size": 8, "channels": 4, "filters": 4},
        "convolution_3d": {"batch": 1, "size": 8, "channels": 2, "filters": 4},
        "pooling": {"batch": 2, "size": 8, "channels": 4},
        "fully_connected": {"batch": 8, "inputs": 16, "outputs": 8},
        "matrix_product": {"rows": 64, "inner": 64, "columns": 64},
        "eigendecomposition": {"order": 16},
        "allreduce": {"numbers": 1000},
    },
    "small": {
        "convolution_2d": {},
        "convolution_3d": {},
        "pooling": {},
        "fully_connected": {},
        "matrix_product": {},
        "eigendecomposition": {},
        "allreduce": {},
    },
    # What fills an accelerator.
    "reference": {
        "convolution_2d": {"batch": 256},
        "convolution_3d": {"batch": 16, "size": 64},
        "pooling": {"batch": 256},
        "fully_connected": {"batch": 4096, "inputs": 4096, "outputs": 4096},
        "matrix_product": {"rows": 8192, "inner": 8192, "columns": 8192},
        "eigendecomposition": {"order": 2048},
        "allreduce": {"numbers": 100_000_000},
    },
}
PEAK_ORDERS = {"tiny": (256,), "small": (1024, 2048), "reference": (4096, 8192)}
COPIED_BYTES = {"tiny": 1 << 22, "small": 1 << 28, "reference": 1 << 30}
ALLREDUCE = "allreduce"


@dataclasses.dataclass(frozen=True)
class Task:
    """What to measure.

    Attributes:
        size: one of SIZES.
        repetitions: timed runs of each operation.
        ranks: processes; with several the exchange alone is measured.
    """

    size: str = "small"
    repetitions: int = 20
    ranks: int = 1


def measure(
    task: Task,
    conditions: Conditions,
    ranks: Ranks | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Micro]:
    """Measures what the task asks for; on several ranks, all of them call this."""
    ranks = ranks or Ranks()
    device = (*system.gpus(), "CPU")[0]
    peak = bandwidth = None
    if ranks.size == 1:
        say("roofline: matrix products, copies")
        peak = max(map(peak_flops, PEAK_ORDERS[task.size]))
        bandwidth = copy_bandwidth(COPIED_BYTES[task.size], conditions.threads or 1)
        say(f"roofline: {peak / 1e9:.1f} GFLOPS, {bandwidth / 1e9:.1f} GB/s")
    about = system.describe(system.gpus(), conditions.threads)
    found = []
    for operation in operations(task.size, ranks.size):
        meter = power.EnergyMeter()
        start = time.perf_counter()
        seconds = micro.samples(operation, task.repetitions)
        meter.update()
        energy = meter.reading()
        if energy.joules is None and conditions.watts is not None:
            energy = power.estimate(time.perf_counter() - start, conditions.watts, load=1.0)
        exchange = ranks.size > 1
        result = Micro(
            operation.name,
            device,
            tuple(seconds),
            operation.flops,
            operation.traffic,
            operation.images,
            ranks.size,
            None if exchange else peak,
            None if exchange else bandwidth,
            dataclasses.asdict(energy),
            conditions.price_per_hour,
            None if conditions.price_per_hour is None else conditions.currency,
            about,
        )
        say(f"{operation.name}: {1000 * result.median:.3f} ms")
        found.append(result)
    return found


def operations(size: str, ranks: int) -> Iterator[Operation]:
    """The operations of a size, made one after the other; on several ranks the exchange alone."""
    for name, arguments in SIZES[size].items():
        if (name == ALLREDUCE) != (ranks > 1):
            continue
        made: Any = getattr(micro, name)(**arguments)
        yield from (made if isinstance(made, tuple) else (made,))


def peak_flops(order: int, repetitions: int = 15) -> float:
    """FLOPs a second of the fastest of several products of square matrices."""
    product = micro.matrix_product(order, order, order)
    return product.flops / min(micro.samples(product, repetitions))


def copy_bandwidth(size: int, threads: int, repetitions: int = 10) -> float:
    """Bytes a second, read and written, of the fastest of several copies.

    Args:
        size: bytes of the array.
        threads: that copy a part each, on a processor.
        repetitions: copies.
    """
    if system.gpus():
        source = tf.random.uniform([size // 4])
        copy = tf.function(lambda: source * 1.5, autograph=False)  # an identity would copy nothing
        operation = Operation("copy", copy, 0.0, 2.0 * size)
        return operation.traffic / min(micro.samples(operation, repetitions))
    # TensorFlow would have the system clear new memory each time.
    source, target = np.ones(size // 4, np.float32), np.zeros(size // 4, np.float32)
    parts = [slice(n * len(source) // threads, (n + 1) * len(source) // threads)
             for n in range(threads)]  # fmt: skip

    def copy_part(part: slice) -> None:
        np.copyto(target[part], source[part])

    seconds = []
    with concurrent.futures.ThreadPoolExecutor(threads) as executor:
        for _ in range(repetitions + 1):
            start = time.perf_counter()
            list(executor.map(copy_part, parts))
            seconds.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(seconds[1:])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what a task file asks for, and writes a file of results."""
    return exit_code(lambda: _main(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: Sequence[str]) -> None:
    if len(arguments) != 2:
        raise InputError("usage: python -m models.benchmark.micro_suite TASKFILE RESULTFILE")
    values: Mapping[str, Any] = record.read(Path(arguments[0]))
    task, conditions = Task(**values["task"]), Conditions(**values["conditions"])
    ranks = processes.start(horovod=False)
    conditions = dataclasses.replace(conditions, threads=use(conditions, ranks))

    def say(line: str) -> None:
        if ranks.is_first:
            print(line, flush=True)

    found = measure(task, conditions, ranks, say)
    if ranks.is_first:
        write_micro(Path(arguments[1]), found)


if __name__ == "__main__":
    sys.exit(main())
