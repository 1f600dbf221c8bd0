"""A description of a machine, as far as the time of a training step depends on it.

It is a YAML file (see `machines/`), written by hand or by `tfkfac-plan calibrate`. All rates are
those that one rank reaches in float32, not what the data sheet promises.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tfkfac import options
from tfkfac.errors import InputError, unknown
from tfkfac.options import COUNT, FLAG, NOT_NEGATIVE, POSITIVE, TEXT, Kind

MACHINES = Path(__file__).parent / "machines"


@dataclasses.dataclass(frozen=True)
class Link:
    """What connects neighbours in a ring of ranks.

    Attributes:
        bandwidth: Bytes a second in one direction. Across nodes that of the whole node, which rings
            through one node share.
        latency: Seconds of one hop of a small message.
    """

    bandwidth: float
    latency: float


@dataclasses.dataclass(frozen=True)
class Machine:
    """Rates of one rank and of the links between ranks.

    Attributes:
        name: For tables and plots.
        eigh: Seconds of an eigendecomposition by order, at least one order. Where a rank has
            several cores it decomposes several factors at once; this is then the time for each.
        matmul_flops: FLOP/s of large matrix products (a multiplication and an addition are two).
        training_flops: FLOP/s reached over a forward and backward pass.
        factor_flops: FLOP/s reached over the second moments that make the factors.
        memory_bandwidth: Bytes read or written a second.
        operation_seconds: Least time of an operation, however small (on a GPU: a kernel launch).
        ranks_per_node: Ranks that share a node.
        gpu: Whether ranks compute on GPUs, where convolutions' factors come from patches.
        inside, across: Links within a node and between nodes, None where unknown.
        source: File the description comes from, for messages.
    """

    name: str
    eigh: Mapping[int, float]
    matmul_flops: float
    training_flops: float
    factor_flops: float
    memory_bandwidth: float
    operation_seconds: float
    ranks_per_node: int = 1
    gpu: bool = False
    inside: Link | None = None
    across: Link | None = None
    source: str = ""

    def eigh_seconds(self, order: int) -> float:
        """Seconds of one eigendecomposition of order `order`.

        Between two orders of the table by a power law through both; above the largest like n³;
        below the smallest as there, where overheads bind.
        """
        orders = sorted(self.eigh)
        if order <= orders[0]:
            return self.eigh[orders[0]]
        if order >= orders[-1]:
            return self.eigh[orders[-1]] * (order / orders[-1]) ** 3
        upper = bisect.bisect_left(orders, order)
        low, high = orders[upper - 1], orders[upper]
        slope = math.log(self.eigh[high] / self.eigh[low]) / math.log(high / low)
        return self.eigh[low] * (order / low) ** slope

    def compute_seconds(self, flops: float, moved: float = 0.0, operations: float = 0.0) -> float:
        """Seconds of matrix products and what goes with them.

        Args:
            flops: Of the products.
            moved: Bytes read and written besides.
            operations: How many operations there are.
        """
        return (
            flops / self.matmul_flops
            + moved / self.memory_bandwidth
            + operations * self.operation_seconds
        )

    def allreduce_seconds(self, groups: Sequence[Sequence[int]], sizes: Sequence[float]) -> float:
        """Seconds until all groups of ranks have summed their `sizes` bytes, each in a ring.

        A ring of p ranks sends 2 (p − 1)/p of the size over each link, in 2 (p − 1) hops.

        Raises:
            InputError: The description lacks the link.
        """
        return self._ring_seconds(groups, sizes, passes=2)

    def allgather_seconds(
        self, groups: Sequence[Sequence[int]], sizes: Sequence[float], operations: int = 1
    ) -> float:
        """Seconds until all groups have gathered `sizes` bytes in all, each in a ring.

        A ring of p ranks sends (p − 1)/p of the size over each link, in p − 1 hops for each of
        `operations` that the bytes are spread over.

        Raises:
            InputError: The description lacks the link.
        """
        return self._ring_seconds(groups, sizes, passes=1, operations=operations)

    def _ring_seconds(
        self,
        groups: Sequence[Sequence[int]],
        sizes: Sequence[float],
        passes: int,
        operations: int = 1,
    ) -> float:
        busy = [
            (group, size)
            for group, size in zip(groups, sizes, strict=True)
            if len(group) > 1 < size
        ]
        nodes = [{rank // self.ranks_per_node for rank in group} for group, _ in busy]
        # Rings that leave a node share its network interface.
        through: dict[int, int] = {}
        for touched in nodes:
            if len(touched) > 1:
                for node in touched:
                    through[node] = through.get(node, 0) + 1
        slowest = 0.0
        for (group, size), touched in zip(busy, nodes, strict=True):
            outside = len(touched) > 1
            link = self._link("across" if outside else "inside")
            sharing = max(through[node] for node in touched) if outside else 1
            steps = passes * (len(group) - 1)
            sent = steps * size / len(group)
            hops = operations * steps
            slowest = max(slowest, sent * sharing / link.bandwidth + hops * link.latency)
        return slowest

    def _link(self, name: str) -> Link:
        link: Link | None = getattr(self, name)
        if link is None:
            where = "nodes" if name == "across" else "ranks of one node"
            raise InputError(
                f"{self.source or self.name}: no key {name}, the link between {where}; "
                "add its bandwidth and latency, or calibrate under horovodrun"
            )
        return link


_ORDER = Kind("an order, a whole number above 0", COUNT.parse, COUNT.valid)
_LINK = {"bandwidth": POSITIVE, "latency": NOT_NEGATIVE}
_SCALARS = {
    "name": TEXT,
    "matmul_flops": POSITIVE,
    "training_flops": POSITIVE,
    "factor_flops": POSITIVE,
    "memory_bandwidth": POSITIVE,
    "operation_seconds": NOT_NEGATIVE,
    "ranks_per_node": COUNT,
    "gpu": FLAG,
}
_EIGH, _EIGH_RATE, _LINKS = "eigh", "eigh_rate", ("inside", "across")
_OPTIONAL = ("gpu", "ranks_per_node", *_LINKS)
_KEYS = (*_SCALARS, _EIGH, _EIGH_RATE, *_LINKS)


def machine_names() -> list[str]:
    """The descriptions that come with the package."""
    return options.preset_names(MACHINES)


def find(name: str) -> Path:
    """The file of a description: a path, or the name of one that comes with the package.

    Raises:
        InputError: There is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    if (shipped := MACHINES / f"{name}.yaml").is_file():
        return shipped
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"--machine: no file {name}")
    raise unknown("machine", name, machine_names(), "--machine")


def read(path: Path) -> Machine:
    """The machine that a file describes.

    Raises:
        InputError: Naming file, line and key, if a key is missing, unknown or wrong.
    """
    values: dict[str, Any] = {}
    for entry in options.read_entries(path, "matmul_flops: 1.0e+11"):
        where = f"{entry.where}: {entry.key}"
        if entry.key in _SCALARS:
            values[entry.key] = _convert(_SCALARS[entry.key], entry.value, where)
        elif entry.key == _EIGH:
            table = {
                _convert(_ORDER, row.key, where): _convert(
                    POSITIVE, row.value, f"{where}[{row.key}]"
                )
                for row in options.entries(entry.node, path, "512: 0.1")
            }
            if not table:
                raise InputError(f"{where}: expected at least one line such as '512: 0.1'")
            values[_EIGH] = table
        elif entry.key == _EIGH_RATE:
            values[_EIGH_RATE] = _convert(POSITIVE, entry.value, where)
        elif entry.key in _LINKS:
            rows = list(options.entries(entry.node, path, "bandwidth: 1.0e+10"))
            values[entry.key] = _read_link(rows, where)
        else:
            raise unknown("key", entry.key, _KEYS, entry.where)
    if _EIGH_RATE in values:
        if _EIGH in values:
            raise InputError(f"{path}: both {_EIGH} and {_EIGH_RATE}; give one of them")
        values[_EIGH] = {1: 1 / values.pop(_EIGH_RATE)}
    for key in (*_SCALARS, _EIGH):
        if key not in values and key not in _OPTIONAL:
            also = f" or {_EIGH_RATE}" if key == _EIGH else ""
            raise InputError(f"{path}: no key {key}{also}")
    return Machine(**values, source=str(path))


def _read_link(rows: Iterable[options.Entry], where: str) -> Link:
    link = {}
    for row in rows:
        if row.key not in _LINK:
            raise unknown("key", row.key, _LINK, f"{row.where}: {where.rpartition(' ')[2]}")
        link[row.key] = _convert(_LINK[row.key], row.value, f"{where}.{row.key}")
    for key in _LINK:
        if key not in link:
            raise InputError(f"{where}: no key {key}")
    return Link(**link)


def _convert(kind: Kind, value: Any, where: str) -> Any:
    try:
        parsed = kind.parse(value)
        if kind.valid(parsed):
            return parsed
    except (TypeError, ValueError):
        pass
    raise InputError(f"{where}: expected {kind.expected}, not {value!r}")


def text(machine: Machine, comment: str = "") -> str:
    """The description as YAML that `read` accepts.

    Args:
        machine: What to describe.
        comment: Lines to put above.
    """
    values: dict[str, Any] = {
        key: _rounded(getattr(machine, key))
        for key in (*_SCALARS, *_LINKS)
        if getattr(machine, key) is not None
    }
    values[_EIGH] = {order: _rounded(seconds) for order, seconds in machine.eigh.items()}
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    return "\n".join([*lines, yaml.safe_dump(values, sort_keys=False)])


def _rounded(value: Any) -> Any:
    """Three significant digits: no measurement here has more."""
    if isinstance(value, Link):
        return {key: _rounded(number) for key, number in dataclasses.asdict(value).items()}
    return float(f"{value:.2e}") if isinstance(value, float) else value
