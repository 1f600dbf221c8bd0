"""What one layer costs: FLOPs, numbers and seconds of its factors, bases and directions."""

from __future__ import annotations

import dataclasses

from tfkfac.machine import Machine
from tfkfac.plan import DIAGONAL, IDENTITY, Side

FLOAT_BYTES, HALF_BYTES = 4, 2
REFRESH_FLOPS = 12  # times n³: six products of n x n matrices, see `refresh`
REFRESH_EXCHANGES = 4
# Operations that a side of a layer starts, roughly; they count where it is small.
FACTOR_OPERATIONS, REFRESH_OPERATIONS, PRECONDITIONING_OPERATIONS = 6, 65, 4
# Passes through memory besides the products, over factors or gradients: running average and
# folding; power iterations; scaling, division and inner product.
FACTOR_PASSES, REFRESH_PASSES, PRECONDITIONING_PASSES = 6, 20, 8


@dataclasses.dataclass(frozen=True)
class Layer:
    """One preconditioned weight with its bias.

    Attributes:
        name: For messages.
        rows, columns: Its factors' orders and structures.
        groups: Independent groups, each with a pair of factors.
        positions: M, the rows of the flattened input per step on one rank, over all uses.
    """

    name: str
    rows: Side
    columns: Side
    groups: int = 1
    positions: int = 0

    def sides(self) -> tuple[tuple[str, Side], tuple[str, Side]]:
        """Both sides by name."""
        return ("rows", self.rows), ("columns", self.columns)

    @property
    def parameters(self) -> int:
        """Numbers in its gradient."""
        return self.groups * self.rows.size * self.columns.size

    def factor_flops(self) -> float:
        """Of both second moments, from extracted patches where it is a convolution."""
        total = 0
        for _, side in self.sides():
            width = {DIAGONAL: 1, IDENTITY: 0}.get(side.structure, side.block_size)
            total += 2 * self.positions * self.groups * side.size * width
        return total

    def factor_numbers(self, triangles: bool) -> int:
        """Numbers of both factors that travel."""
        return sum(self.groups * factor_numbers(side, triangles) for _, side in self.sides())

    def preconditioning_flops(self, inverse: bool) -> float:
        """Of rotating the gradient into both bases and back, or multiplying by both inverses."""
        total = 0
        for (_, side), (_, other) in (self.sides(), self.sides()[::-1]):
            if has_basis(side):
                total += 2 * side.size * side.block_size * other.size
        return total * self.groups * (1 if inverse else 2)


@dataclasses.dataclass(frozen=True)
class Workload:
    """What one rank computes in a step.

    Attributes:
        layers: What K-FAC preconditions.
        parameters: Numbers in all gradients, those of layers that it leaves alone included.
        training_flops: Of forward and backward pass.
        factor_flops: Of the factors as this host would compute them, None if it was not counted.
    """

    layers: tuple[Layer, ...]
    parameters: int
    training_flops: float
    factor_flops: float | None = None


def has_basis(side: Side) -> bool:
    """Whether a side has something to decompose."""
    return side.structure not in (DIAGONAL, IDENTITY)


def factor_numbers(side: Side, triangles: bool) -> int:
    """Numbers of one factor that travel when it is averaged, for one group.

    A triangle of odd order holds its middle row twice, see `triangle`.
    """
    if side.structure == IDENTITY:
        return 0
    if side.structure == DIAGONAL:
        return side.size
    n = side.block_size
    return side.blocks * ((n + 1) // 2 * (n + 1) if triangles else n * n)


def basis_numbers(side: Side, inverse: bool = False) -> int:
    """Numbers of one factor's basis (or inverse), for one group.

    A diagonal side's are kept by every rank and never travel.
    """
    if not has_basis(side):
        return side.size if side.structure == DIAGONAL else 0
    n = side.block_size
    return side.blocks * (n * n if inverse else n * n + n)


def decomposition_work(layer: Layer, side: Side) -> float:
    """n³ of all blocks in all groups."""
    return float(layer.groups * side.blocks * side.block_size**3)


def decomposition_seconds(layer: Layer, side: Side, machine: Machine, inverse: bool) -> float:
    """Seconds of decomposing (or inverting) a factor on one rank."""
    matrices, n = layer.groups * side.blocks, side.block_size
    if inverse:
        return machine.compute_seconds(matrices * 7 / 3 * n**3, operations=2)
    return matrices * machine.eigh_seconds(n)


def refresh_seconds(layer: Layer, side: Side, machine: Machine, workers: int) -> float:
    """Seconds of a rank's share in refreshing a basis. Not all of it shrinks with the ranks."""
    flops = REFRESH_FLOPS * decomposition_work(layer, side) / workers
    moved = REFRESH_PASSES * FLOAT_BYTES * layer.groups * basis_numbers(side)
    return machine.compute_seconds(flops, moved, REFRESH_OPERATIONS)


def preconditioning_seconds(layer: Layer, machine: Machine, inverse: bool) -> float:
    """Seconds of preconditioning a layer's gradient on one rank."""
    bases = sum(has_basis(side) for _, side in layer.sides())
    return machine.compute_seconds(
        layer.preconditioning_flops(inverse),
        moved=PRECONDITIONING_PASSES * FLOAT_BYTES * layer.parameters,
        operations=PRECONDITIONING_OPERATIONS * (1 + bases),
    )


def factor_seconds(workload: Workload, machine: Machine) -> float:
    """Seconds of computing all factors and their running averages, on every rank."""
    layers = workload.layers
    flops = sum(layer.factor_flops() for layer in layers)
    if workload.factor_flops is not None and not machine.gpu:
        flops = workload.factor_flops
    numbers = sum(layer.factor_numbers(triangles=False) for layer in layers)
    moved = FACTOR_PASSES * FLOAT_BYTES * numbers
    sides = [side for layer in layers for _, side in layer.sides()]
    operations = FACTOR_OPERATIONS * sum(side.structure != IDENTITY for side in sides)
    return flops / machine.factor_flops + machine.compute_seconds(0, moved, operations)
