"""The variables that a rank keeps of one layer, and how they come back from a checkpoint.

Every rank keeps the factors. A layer's bases (eigenvalues and eigenvectors, or damped inverses) are
kept by the ranks that precondition it. So that rank 0 can save all there is without asking others,
it keeps of every other layer what was decomposed last (the *archive*), from which the bases follow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfkfac import eigen, inverse
from tfkfac.plan import BLOCKS, DIAGONAL, LayerPlan, Side

# Entries of a layer's counter vector.
FACTOR_UPDATES, NON_FINITE, UNUSED, FAILED_DECOMPOSITIONS, DECOMPOSITIONS = range(5)

# What a rank keeps besides the factors.
BASES, ARCHIVE, NOTHING = "bases", "archive", "nothing"


@dataclasses.dataclass
class LayerState:
    """The variables of one layer on this rank.

    Attributes:
        plan: What they belong to.
        method: `"eigen"` or `"inverse"`.
        keeps: `"bases"`, `"archive"` or `"nothing"`.
        variables: Factors, bases and archive by name, see `LayerPlan`.
        weight: Sum of the running average's weights (1 unless debiased).
        counters: Factor updates, non-finite statistics, unused steps, failed decompositions,
            decompositions.
    """

    plan: LayerPlan
    method: str
    keeps: str
    variables: dict[str, tf.Variable]
    weight: tf.Variable
    counters: tf.Variable

    def named(self) -> dict[str, tf.Variable]:
        """All variables by the names under which they are saved."""
        return {**self.variables, "weight": self.weight, "counters": self.counters}

    def sides(self) -> list[tuple[str, Side]]:
        """The sides that have a factor, with their names."""
        return self.plan.sides()

    def basis(self, side: str) -> eigen.Basis:
        """Eigenvalues and eigenvectors of a side, as far as it has any."""
        variables = self.variables
        return eigen.Basis(
            variables.get(f"{side}_eigenvalues"), variables.get(f"{side}_eigenvectors")
        )

    def initial(self, debias: bool) -> dict[str, tf.Tensor]:
        """Values before the first step, by the names of `named`.

        Factors start at the identity (SC20), or at zero where they are debiased.
        """
        values: dict[str, tf.Tensor] = {}
        for name, variable in self.variables.items():
            side = self.plan.rows if name.startswith("rows") else self.plan.columns
            factor = name.endswith("_factor")
            if factor and debias:
                values[name] = tf.zeros(variable.shape, variable.dtype)
            else:
                inside_only = factor or name.endswith("_decomposed")
                values[name] = _identity(name, tuple(variable.shape), side, variable, inside_only)
        values["weight"] = tf.constant(0.0 if debias else 1.0, self.weight.dtype)
        values["counters"] = tf.zeros_like(self.counters)
        return values

    def convert(self, values: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
        """A checkpoint's values of this layer in the form that this rank keeps.

        Args:
            values: By the names of `named`, saved by a rank that kept bases or archive.

        Raises:
            KeyError: With the name of what is missing.
        """
        wanted: dict[str, tf.Tensor] = {}
        for name, variable in self.named().items():
            if name in values:
                wanted[name] = tf.constant(values[name], variable.dtype)
        for name, side in self.sides():
            if self.keeps == BASES and f"{name}_decomposed" in values:
                decomposed = tf.constant(values[f"{name}_decomposed"], self.weight.dtype)
                names = self.plan.basis_shapes(name, self.method)
                wanted.update(zip(names, decompose(decomposed, side, self.method), strict=True))
            if self.keeps == ARCHIVE and f"{name}_decomposed" not in values:
                wanted[f"{name}_decomposed"] = self._recompose(name, side, values)
        for name in self.named():
            if name not in wanted:
                raise KeyError(name)
        return wanted

    def _recompose(self, name: str, side: Side, values: Mapping[str, np.ndarray]) -> tf.Tensor:
        dtype = self.weight.dtype
        if self.method == "inverse":
            return inverse.invert(tf.constant(values[f"{name}_inverse"], dtype), side)
        eigenvalues = tf.constant(values[f"{name}_eigenvalues"], dtype)
        if side.structure == DIAGONAL:
            return eigenvalues
        vectors = tf.constant(values[f"{name}_eigenvectors"], dtype)
        return tf.matmul(vectors * tf.expand_dims(eigenvalues, -2), vectors, transpose_b=True)


def decompose(factor: tf.Tensor, side: Side, method: str) -> list[tf.Tensor]:
    """Bases of a factor in the order of `LayerPlan.basis_shapes`; of a damped one for inverses."""
    if method == "inverse":
        return [inverse.invert(factor, side)]
    basis = eigen.decompose(factor, side)
    return [basis.values] if basis.vectors is None else [basis.values, basis.vectors]


def create(plan: LayerPlan, method: str, dtype: tf.DType, debias: bool, keeps: str) -> LayerState:
    """New variables with their initial values."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, side in plan.sides():
        shape = side.shape(plan.groups)
        shapes[f"{name}_factor"] = shape
        if keeps == BASES:
            shapes.update(plan.basis_shapes(name, method))
        elif keeps == ARCHIVE:
            shapes[f"{name}_decomposed"] = shape
    variables = {
        name: tf.Variable(
            tf.zeros(shape, dtype), trainable=False, name=f"{plan.name}_{name}".replace("/", "_")
        )
        for name, shape in shapes.items()
    }
    weight = tf.Variable(tf.zeros([], dtype), trainable=False)
    counters = tf.Variable(tf.zeros([5], tf.int64), trainable=False)
    state = LayerState(plan, method, keeps, variables, weight, counters)
    for name, value in state.initial(debias).items():
        state.named()[name].assign(value)
    return state


def _identity(
    name: str, shape: tuple[int, ...], side: Side, like: tf.Variable, inside_only: bool
) -> tf.Tensor:
    if name.endswith("_eigenvalues") or side.structure == DIAGONAL:
        return tf.ones(shape, like.dtype)
    identity = tf.broadcast_to(tf.eye(shape[-1], dtype=like.dtype), shape)
    if side.structure == BLOCKS and inside_only:
        # The last block's padding has no coordinates.
        inside = np.arange(side.padded_size) < side.size
        inside = inside.reshape(1, side.blocks, side.block_size, 1)
        identity *= tf.constant(inside, like.dtype)
    return identity
