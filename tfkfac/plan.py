"""What K-FAC decided about each layer: frozen, printable, comparable, and saved with the state.

Layer kinds are known only when a training step is traced, but a saved optimizer is restored before
that. The plan is therefore plain data: it says which factors exist, in which shapes, without any
tensor in it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

DENSE, BLOCKS, DIAGONAL, IDENTITY = "dense", "block-diagonal", "diagonal", "identity"


@dataclasses.dataclass(frozen=True)
class Side:
    """One Kronecker factor of a layer: the row side or the column side of its gradient matrix.

    Attributes:
        size: Order n of the factor (bias coordinate included).
        structure: `"dense"` (n x n), `"block-diagonal"` (equal blocks, the last one padded with
            zeros), `"diagonal"` (n numbers) or `"identity"` (this side has no factor).
        blocks: Number of diagonal blocks, 1 unless block-diagonal.
    """

    size: int
    structure: str = DENSE
    blocks: int = 1

    @property
    def block_size(self) -> int:
        """Order of one block."""
        return math.ceil(self.size / self.blocks)

    @property
    def padded_size(self) -> int:
        """`size`, rounded up to whole blocks."""
        return self.blocks * self.block_size

    def shape(self, groups: int) -> tuple[int, ...]:
        """Shape of the stored factor; a side that has none must not be asked."""
        assert self.structure != IDENTITY
        if self.structure == DIAGONAL:
            return (groups, self.size)
        if self.structure == BLOCKS:
            return (groups, self.blocks, self.block_size, self.block_size)
        return (groups, self.size, self.size)

    def __str__(self) -> str:
        if self.structure == BLOCKS:
            return f"{self.blocks}x{self.block_size}"
        return {DENSE: f"{self.size}", DIAGONAL: f"diag {self.size}", IDENTITY: "-"}[self.structure]


def bounded_side(size: int, limit: int | None, oversized: str) -> Side:
    """A dense side, or the cheaper structure `oversized` where `size` exceeds `limit`."""
    if limit is None or size <= limit:
        return Side(size)
    if oversized == DIAGONAL:
        return Side(size, DIAGONAL)
    return Side(size, BLOCKS, math.ceil(size / limit))


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """How one weight (and its bias) is preconditioned.

    The gradient of the weight is brought into the form [groups, rows, columns]; `rows` and
    `columns` describe the two Kronecker factors.

    Attributes:
        name: Path of the weight variable.
        kind: `"dense"`, `"convolution"`, `"depthwise convolution"`, `"embedding"` or
            `"elementwise"`.
        weight: Index of the weight among the optimizer's variables.
        bias: Index of the bias handled as the last row of the gradient matrix, or None.
        uses: How often the training step uses the weight.
        groups: Number of independent groups, each with its own pair of factors.
        rows: The row side (the input's side, unless `transposed`).
        columns: The column side (the output gradient's side, unless `transposed`).
        steps: Reshapes `("reshape", shape before, shape after)` and transpositions
            `("transpose", permutation)` that turn the contraction's result into the variable's
            gradient.
        contraction_shape: Shape of the contraction's result.
        transposed: True where every use multiplies with the transpose of the weight; None where
            uses differ (tied embeddings).
    """

    name: str
    kind: str
    weight: int
    bias: int | None
    uses: int
    groups: int
    rows: Side
    columns: Side
    steps: tuple[tuple[Any, ...], ...]
    contraction_shape: tuple[int, ...]
    transposed: bool | None = False

    def signature(self) -> tuple[Any, ...]:
        """What two traces of one training step must agree on."""
        return (self.kind, self.weight, self.bias, self.groups, self.rows, self.columns)

    def difference(self, other: LayerPlan) -> str:
        """One line that says how two plans for one weight differ."""
        names = ("kind", "weight", "bias", "groups", "row factor", "column factor")
        pairs = zip(names, self.signature(), other.signature(), strict=True)
        return ", ".join(f"{name} {a} became {b}" for name, a, b in pairs if a != b)

    def sides(self) -> list[tuple[str, Side]]:
        """The sides that have a factor, `"rows"` and `"columns"`."""
        sides = (("rows", self.rows), ("columns", self.columns))
        return [(name, side) for name, side in sides if side.structure != IDENTITY]

    def basis_shapes(self, name: str, method: str) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what a decomposition of side `name` gives, per `method`."""
        side = dict(self.sides())[name]
        shape = side.shape(self.groups)
        if method == "inverse":
            return {f"{name}_inverse": shape}
        if side.structure == DIAGONAL:
            return {f"{name}_eigenvalues": shape}
        return {f"{name}_eigenvalues": shape[:-1], f"{name}_eigenvectors": shape}


def to_json(plans: list[LayerPlan]) -> str:
    """Plans as text for a checkpoint."""
    return json.dumps([dataclasses.asdict(plan) for plan in plans])


def from_json(text: str) -> list[LayerPlan]:
    """The plans that `to_json` wrote."""
    plans = []
    for fields in json.loads(text):
        fields["rows"] = Side(**fields["rows"])
        fields["columns"] = Side(**fields["columns"])
        fields["steps"] = tuple(_as_tuples(step) for step in fields["steps"])
        fields["contraction_shape"] = tuple(fields["contraction_shape"])
        plans.append(LayerPlan(**fields))
    return plans


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(v) for v in value) if isinstance(value, list) else value
