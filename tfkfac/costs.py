"""What a K-FAC training step costs on many ranks: pure Python over plain numbers.

For a layer with M = N·S rows per rank and step, an r x c gradient, and factors of orders r and c; P
ranks, of which w precondition a layer (`placement.Grid`).

    stage               when           FLOPs of a rank           numbers over each link of a ring
    training            every step     those of the traced graph -
    gradients           every step     -                         2 (P-1)/P · parameters
    factors             factor steps   2 M r² + 2 M c²           -
    factor exchange     factor steps   -                         2 (P-1)/P · Σ m
    decomposition       decompositions the machine's time for n  -
      inverse method                   n³/3 + 2 n³               -
      spread refresh                   12 n³ / w                 -
    basis exchange      decompositions -                         (w-1)/w · Σ (n² + n)
      inverse method                   -                         (w-1)/w · Σ n²
      spread refresh                   -                         (w-1)/w · Σ (2 n² + 2 n)
    preconditioning     every step     4 r² c + 4 r c²           -
      inverse method                   2 r² c + 2 r c²           -
    direction exchange  every step     -                         (P/w-1)/(P/w) · Σ r c

A number has 4 bytes, of factors in half precision 2. m is n², or with triangles ⌈n/2⌉ (n+1). The
sums over bases run over the layers of one worker group (the largest counts), that over directions
over all layers. A block-diagonal factor counts as its blocks, a diagonal one as n numbers without
decomposition; a layer with groups has a pair of factors in each. On processors the factors of
convolutions may come from the spectrum: then the FLOPs that the traced graph really holds stand for
2 M r² + 2 M c².

Stages follow one another and every rank waits for the slowest: nothing is assumed to overlap.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfkfac.layer_costs import (
    FLOAT_BYTES,
    HALF_BYTES,
    REFRESH_EXCHANGES,
    Layer,
    Workload,
    basis_numbers,
    decomposition_seconds,
    decomposition_work,
    factor_seconds,
    has_basis,
    preconditioning_seconds,
    refresh_seconds,
)
from tfkfac.machine import Machine
from tfkfac.placement import (
    FACTOR_WISE,
    HYBRID,
    Grid,
    Placement,
    Work,
    deal_in_turn,
    imbalance,
    make_grid,
    place,
)
from tfkfac.plan import Side

TRAINING, GRADIENTS = "training", "gradients"
FACTORS, FACTOR_EXCHANGE = "factors", "factor exchange"
DECOMPOSITION, BASIS_EXCHANGE = "decomposition", "basis exchange"
PRECONDITIONING, DIRECTION_EXCHANGE = "preconditioning", "direction exchange"
STAGES = (
    TRAINING,
    GRADIENTS,
    FACTORS,
    FACTOR_EXCHANGE,
    DECOMPOSITION,
    BASIS_EXCHANGE,
    PRECONDITIONING,
    DIRECTION_EXCHANGE,
)
# What travels only because of K-FAC.
KFAC_EXCHANGES = (FACTOR_EXCHANGE, BASIS_EXCHANGE, DIRECTION_EXCHANGE)


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How K-FAC's work is distributed; the defaults are those of `KFAC`.

    Attributes:
        placement: `"factor-wise"`, `"layer-wise"` or `"hybrid"`.
        gradient_worker_fraction: For `"hybrid"`, the share of ranks that precondition a layer.
        round_robin: Deal in turn, as SC20's program does, not longest first: whole layers, or
            factors one by one where placement is factor-wise and there are more ranks than layers.
        together: Keep a layer's two factors on one rank.
        balance: What to deal evenly, `"time"` or `"memory"`.
        by_seconds: Deal by the machine's seconds rather than by n³, as `KFAC` does.
        triangles: Send half of each symmetric factor.
        half: Send factors in float16 (`factor_compression="float16"`).
        refresh_above: Factors with blocks of a larger order are refreshed by the whole worker group
            rather than decomposed; None for never.
        method: `"eigen"` or `"inverse"`.
        factor_interval, eigen_interval: Steps between factor updates and between decompositions.

    Raises:
        ValueError: Two of them do not go together.
    """

    placement: str = FACTOR_WISE
    gradient_worker_fraction: float = 0.5
    round_robin: bool = False
    together: bool = False
    balance: str = "time"
    by_seconds: bool = False
    triangles: bool = True
    half: bool = False
    refresh_above: int | None = None
    method: str = "eigen"
    factor_interval: int = 10
    eigen_interval: int = 100

    def __post_init__(self) -> None:
        if self.round_robin and self.placement == HYBRID:
            raise ValueError("round-robin dealing is for factor-wise and layer-wise placement")
        if self.refresh_above is not None and self.method == "inverse":
            raise ValueError("only eigenbases can be refreshed, not inverses")

    def interval(self, stage: str) -> int:
        """Steps between two occurrences of a stage."""
        if stage in (FACTORS, FACTOR_EXCHANGE):
            return self.factor_interval
        return self.eigen_interval if stage in (DECOMPOSITION, BASIS_EXCHANGE) else 1


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a scheme costs on a number of ranks.

    Attributes:
        scheme: The scheme.
        ranks: Number of ranks.
        placement: Who does what.
        work: n³ by rank on a decomposition step; what is spread counts in equal shares.
        decomposition_seconds: The same in the machine's seconds.
        basis_bytes: Bytes of bases by rank, n² + n numbers a factor.
        first_seconds: The first decomposition, when there is nothing to refresh yet: of the slowest
            rank.
        bytes: Bytes over each link of a ring, at each occurrence, by stage.
        seconds: Of each occurrence, by stage.
    """

    scheme: Scheme
    ranks: int
    placement: Placement
    work: tuple[float, ...]
    decomposition_seconds: tuple[float, ...]
    basis_bytes: tuple[float, ...]
    first_seconds: float
    bytes: dict[str, float]
    seconds: dict[str, float]

    @property
    def work_imbalance(self) -> float:
        """Largest n³ over the mean of all ranks."""
        return imbalance(self.work)

    @property
    def seconds_imbalance(self) -> float:
        """Largest seconds of decomposition over the mean of all ranks."""
        return imbalance(self.decomposition_seconds)

    def bytes_per_step(self, stage: str) -> float:
        """Bytes over each link, averaged over the stage's interval."""
        return self.bytes.get(stage, 0.0) / self.scheme.interval(stage)

    @property
    def kfac_bytes_per_step(self) -> float:
        """What travels only because of K-FAC, averaged over the intervals."""
        return sum(self.bytes_per_step(stage) for stage in KFAC_EXCHANGES)

    def seconds_per_step(self, stage: str) -> float:
        """Seconds averaged over the stage's interval."""
        return self.seconds[stage] / self.scheme.interval(stage)

    @property
    def step_seconds(self) -> float:
        """Mean time of a step."""
        return sum(self.seconds_per_step(stage) for stage in STAGES)

    @property
    def plain_step_seconds(self) -> float:
        """Time of a step that updates neither factors nor bases."""
        rare = (FACTORS, FACTOR_EXCHANGE, DECOMPOSITION, BASIS_EXCHANGE)
        return sum(self.seconds[stage] for stage in STAGES if stage not in rare)

    @property
    def factor_step_seconds(self) -> float:
        """Time of a step that updates the factors, but not the bases."""
        return self.plain_step_seconds + self.seconds[FACTORS] + self.seconds[FACTOR_EXCHANGE]

    @property
    def longest_step_seconds(self) -> float:
        """Time of a step that does everything."""
        return sum(self.seconds.values())


def is_spread(side: Side, scheme: Scheme) -> bool:
    """Whether the worker group refreshes a factor's basis together."""
    return scheme.refresh_above is not None and side.block_size > scheme.refresh_above


def make_placement(
    layers: Sequence[Layer], machine: Machine, ranks: int, scheme: Scheme
) -> Placement:
    """Who decomposes and preconditions which layer.

    Layers without anything to decompose are preconditioned by every rank and not in it.

    Raises:
        ValueError: The worker fraction is out of range.
    """
    grid = make_grid(scheme.placement, ranks, scheme.gradient_worker_fraction)
    inverse = scheme.method == "inverse"
    works = []
    for number, layer in enumerate(layers):
        for name, side in layer.sides():
            if not has_basis(side):
                continue
            cost = decomposition_work(layer, side)
            if scheme.by_seconds:
                cost = decomposition_seconds(layer, side, machine, inverse)
            memory = float(FLOAT_BYTES * layer.groups * basis_numbers(side))
            works.append(Work(number, name, cost, memory, is_spread(side, scheme)))
    if scheme.round_robin:
        return _place_in_turn(works, grid)
    return place(works, grid, together=scheme.together, balance=scheme.balance)


def _place_in_turn(works: Sequence[Work], grid: Grid) -> Placement:
    """SC20: layers in the network's order, one rank after the other."""
    layers = {work.layer: work.cost for work in works}
    ranks = deal_in_turn(layers, grid.ranks)
    owners = {(work.layer, work.side): ranks[work.layer] for work in works}
    if grid.workers == grid.ranks > len(layers):
        owners = deal_in_turn({(work.layer, work.side): 0 for work in works}, grid.ranks)
    groups = {layer: grid.group_of(rank) for layer, rank in ranks.items()}
    return Placement(grid, groups, owners, tuple(works))


def predict(
    workload: Workload,
    machine: Machine,
    ranks: int,
    scheme: Scheme,
    training_seconds: float | None = None,
) -> Prediction:
    """Loads, bytes and times of a training step.

    Args:
        workload: What one rank computes, from `model_trace.trace` or by hand.
        machine: Rates, from `machine.read`.
        ranks: Number of ranks.
        scheme: How the work is distributed.
        training_seconds: Measured time of forward and backward pass and the inner optimizer on one
            rank, instead of the one that follows from FLOPs.

    Raises:
        ValueError: `ranks` or the worker fraction is out of range.
        InputError: The machine's description lacks a link that is needed.
    """
    if ranks < 1:
        raise ValueError(f"the number of ranks must be at least 1, not {ranks}")
    layers, inverse = workload.layers, scheme.method == "inverse"
    placement = make_placement(layers, machine, ranks, scheme)
    grid = placement.grid
    work, seconds, first = [0.0] * ranks, [0.0] * ranks, [0.0] * ranks
    shared = [0.0] * grid.groups  # bytes of bases
    for number, layer in enumerate(layers):
        for name, side in layer.sides():
            if not has_basis(side):
                continue
            group, owner = placement.groups[number], placement.owners[number, name]
            cubes = decomposition_work(layer, side)
            alone = decomposition_seconds(layer, side, machine, inverse)
            first[owner] += alone
            spread = is_spread(side, scheme)
            numbers = layer.groups * basis_numbers(side, inverse) * (2 if spread else 1)
            shared[group] += FLOAT_BYTES * numbers
            if not spread:
                work[owner] += cubes
                seconds[owner] += alone
                continue
            for rank in grid.members(group):
                work[rank] += cubes / grid.workers
                seconds[rank] += refresh_seconds(layer, side, machine, grid.workers)

    everyone = [list(range(ranks))]
    worker_groups = [grid.members(group) for group in range(grid.groups)]
    receiver_groups = [grid.receivers(rank) for rank in range(0, ranks, grid.groups)]
    gradients = FLOAT_BYTES * workload.parameters
    factors = sum(layer.factor_numbers(scheme.triangles) for layer in layers)
    factor_bytes = (HALF_BYTES if scheme.half else FLOAT_BYTES) * factors
    directions = FLOAT_BYTES * sum(
        layer.parameters for number, layer in enumerate(layers) if number in placement.groups
    )
    if training_seconds is None:
        training_seconds = workload.training_flops / machine.training_flops
    return Prediction(
        scheme=scheme,
        ranks=ranks,
        placement=placement,
        work=tuple(work),
        decomposition_seconds=tuple(seconds),
        basis_bytes=tuple(placement.memory()),
        first_seconds=max(first),
        bytes={
            GRADIENTS: _sent(ranks, gradients, passes=2),
            FACTOR_EXCHANGE: _sent(ranks, factor_bytes, passes=2),
            BASIS_EXCHANGE: _sent(grid.workers, max(shared, default=0.0)),
            DIRECTION_EXCHANGE: _sent(grid.groups, directions),
        },
        seconds={
            TRAINING: training_seconds,
            GRADIENTS: machine.allreduce_seconds(everyone, [gradients]),
            FACTORS: factor_seconds(workload, machine),
            FACTOR_EXCHANGE: machine.allreduce_seconds(everyone, [factor_bytes]),
            DECOMPOSITION: max(seconds),
            BASIS_EXCHANGE: machine.allgather_seconds(
                worker_groups, shared, operations=_basis_exchanges(placement)
            ),
            PRECONDITIONING: max(_preconditioning_seconds(layers, placement, machine, inverse)),
            DIRECTION_EXCHANGE: machine.allgather_seconds(
                receiver_groups, [directions] * len(receiver_groups)
            ),
        },
    )


def _basis_exchanges(placement: Placement) -> int:
    """Operations that share bases: one for all decompositions, some for all refreshes."""
    kinds = {work.spread for work in placement.works}
    return (REFRESH_EXCHANGES if True in kinds else 0) + (False in kinds)


def _sent(ranks: int, size: float, passes: int = 1) -> float:
    """Bytes over each link of a ring of `ranks`."""
    return passes * (ranks - 1) / ranks * size


def _preconditioning_seconds(
    layers: Sequence[Layer], placement: Placement, machine: Machine, inverse: bool
) -> list[float]:
    """By rank."""
    by_group = [0.0] * placement.grid.groups
    by_all = 0.0
    for number, layer in enumerate(layers):
        seconds = preconditioning_seconds(layer, machine, inverse)
        if number in placement.groups:
            by_group[placement.groups[number]] += seconds
        else:
            by_all += seconds
    return [seconds + by_all for seconds in by_group]
