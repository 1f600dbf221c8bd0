"""Which rank does what: pure Python over plain numbers.

The ranks form a grid (KAISA, SC21). Each layer belongs to one *worker group*: its members hold the
layer's eigenbases and precondition its gradient. Each rank is also in one *receiver group*, which
has exactly one member of every worker group; in it the preconditioned gradients are shared.

    placement      worker group      shared on decomposition steps    shared on every step
    factor-wise    all ranks         bases, among all                 nothing
    layer-wise     one rank          nothing                          directions, among all
    hybrid         w ranks           bases, in the worker group       directions, in receiver groups

The first two are K-FAC-opt and K-FAC-lw of Pauloski et al. (SC20). Receiver groups are consecutive
ranks, which usually share a node, since they exchange more often.

Within these groups work is dealt longest-processing-time-first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

FACTOR_WISE, LAYER_WISE, HYBRID = "factor-wise", "layer-wise", "hybrid"
PLACEMENTS = (FACTOR_WISE, LAYER_WISE, HYBRID)


@dataclasses.dataclass(frozen=True)
class Work:
    """One factor to decompose.

    Attributes:
        layer: Its layer, any number.
        side: `"rows"` or `"columns"`.
        cost: Time of the decomposition in any unit, such as n³.
        memory: Bytes of the basis.
        spread: All of the worker group refresh this basis together, after its first decomposition.
    """

    layer: int
    side: str
    cost: float
    memory: float = 0.0
    spread: bool = False


@dataclasses.dataclass(frozen=True)
class Grid:
    """`ranks` ranks, of which `workers` precondition any one layer; `workers` divides `ranks`."""

    ranks: int
    workers: int

    @property
    def groups(self) -> int:
        """Number of worker groups, and size of a receiver group."""
        return self.ranks // self.workers

    def group_of(self, rank: int) -> int:
        """The worker group that a rank is in."""
        return rank % self.groups

    def members(self, group: int) -> list[int]:
        """Ranks of a worker group."""
        return list(range(group, self.ranks, self.groups))

    def receivers(self, rank: int) -> list[int]:
        """Ranks of the receiver group that a rank is in."""
        first = rank - rank % self.groups
        return list(range(first, first + self.groups))


def make_grid(placement: str, ranks: int, worker_fraction: float = 0.5) -> Grid:
    """The grid of a placement.

    Args:
        placement: One of `PLACEMENTS`.
        ranks: Number of ranks.
        worker_fraction: For `"hybrid"`, the share of ranks that precondition a layer, in (0, 1];
            rounded down to the nearest divisor of `ranks`.

    Raises:
        ValueError: An argument is out of its range.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"placement must be one of {', '.join(PLACEMENTS)}; got {placement!r}")
    if not 0 < worker_fraction <= 1:
        raise ValueError(f"gradient_worker_fraction must be in (0, 1]; got {worker_fraction}")
    if placement == FACTOR_WISE:
        return Grid(ranks, ranks)
    if placement == LAYER_WISE:
        return Grid(ranks, 1)
    wanted = worker_fraction * ranks + 1e-9
    return Grid(
        ranks, max([w for w in range(1, ranks + 1) if ranks % w == 0 and w <= wanted] + [1])
    )


@dataclasses.dataclass(frozen=True)
class Placement:
    """Who decomposes and who preconditions.

    Attributes:
        grid: The ranks.
        groups: Worker group of each layer.
        owners: Rank that decomposes each (layer, side).
        works: What was placed.
    """

    grid: Grid
    groups: Mapping[int, int]
    owners: Mapping[tuple[int, str], int]
    works: tuple[Work, ...]

    def is_worker(self, rank: int, layer: int) -> bool:
        """Whether `rank` holds the layer's bases and preconditions it."""
        return self.grid.group_of(rank) == self.groups[layer]

    def decomposition_loads(self) -> list[float]:
        """Cost of decompositions by rank, as on every interval: without what is spread."""
        loads = [0.0] * self.grid.ranks
        for work in self.works:
            if not work.spread:
                loads[self.owners[work.layer, work.side]] += work.cost
        return loads

    def memory(self) -> list[float]:
        """Bytes of bases by rank."""
        loads = [0.0] * self.grid.ranks
        for work in self.works:
            for rank in self.grid.members(self.groups[work.layer]):
                loads[rank] += work.memory
        return loads


def place(
    works: Sequence[Work],
    grid: Grid,
    together: bool = False,
    balance: str = "time",
    previous: Placement | None = None,
) -> Placement:
    """Deals layers to worker groups and their factors to the groups' members.

    Both by longest processing time first. The same works in the same order give the same placement
    on every rank.

    Args:
        works: Factors to decompose.
        grid: The ranks.
        together: Keep a layer's two factors on one rank.
        balance: What to deal evenly: `"time"` of decomposition, or `"memory"` of bases.
        previous: A placement that stays, with `works` added to it.

    Raises:
        ValueError: `balance` is neither.
    """
    if balance not in ("time", "memory"):
        raise ValueError(f'balance must be "time" or "memory"; got {balance!r}')
    weight = {work: work.cost if balance == "time" else work.memory for work in works}
    groups = dict(previous.groups) if previous else {}
    owners = dict(previous.owners) if previous else {}
    old = previous.works if previous else ()

    group_loads = [0.0] * grid.groups
    for work in old:
        group_loads[groups[work.layer]] += work.cost if balance == "time" else work.memory
    layers: dict[int, list[Work]] = {}
    for work in works:
        layers.setdefault(work.layer, []).append(work)
    totals = {layer: sum(weight[work] for work in own) for layer, own in layers.items()}
    groups.update(deal(totals, group_loads))

    # What is spread burdens its owner only once, at the first decomposition: it is dealt apart.
    for spread in (False, True):
        for group in range(grid.groups):
            members = grid.members(group)
            loads = [0.0] * len(members)
            for work in old:
                if work.spread is spread and groups[work.layer] == group:
                    position = members.index(owners[work.layer, work.side])
                    loads[position] += work.cost if balance == "time" else work.memory
            bundles: dict[tuple[int, str], list[Work]] = {}
            for work in works:
                if work.spread is spread and groups[work.layer] == group:
                    key = (work.layer, "" if together else work.side)
                    bundles.setdefault(key, []).append(work)
            costs = {key: sum(weight[work] for work in own) for key, own in bundles.items()}
            for key, position in deal(costs, loads).items():
                for work in bundles[key]:
                    owners[work.layer, work.side] = members[position]
    return Placement(grid, groups, owners, (*old, *works))


def deal(costs: Mapping[Key, float], loads: Sequence[float]) -> dict[Key, int]:
    """Longest processing time first: the costliest next, each to the least loaded place.

    Args:
        costs: By key. Equal costs keep their order.
        loads: What the places carry already.

    Returns:
        Place of each key.
    """
    current = list(loads)
    places = {}
    for key in sorted(costs, key=lambda key: -costs[key]):
        place = min(range(len(current)), key=current.__getitem__)
        places[key] = place
        current[place] += costs[key]
    return places


def deal_in_turn(costs: Mapping[Key, float], count: int) -> dict[Key, int]:
    """Round-robin in the given order: the baseline that `deal` improves on."""
    return {key: i % count for i, key in enumerate(costs)}


def imbalance(loads: Sequence[float]) -> float:
    """Largest load over the mean: 1 where all carry the same."""
    total = sum(loads)
    return max(loads) * len(loads) / total if total else 1.0
