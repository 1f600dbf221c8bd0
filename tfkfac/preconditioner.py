"""K-FAC's state and what happens to it: factor updates, decompositions, preconditioning.

The steps are those of Pauloski et al. (SC20):

    every factor step         F ← α F + (1 − α) F_new     for the factors A and G of each layer
    every decomposition step  Q, d ← eigendecomposition   (or damped inverses)
    every step                V ← preconditioned gradient, ν V with the KL clip ν

This module is independent of Keras: it sees TensorFlow tensors and keeps `tf.Variable`s.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import tensorflow as tf

from tfkfac import eigen, inverse
from tfkfac.communication import Communication
from tfkfac.factors import Moments, combine, second_moments, trace
from tfkfac.plan import BLOCKS, DIAGONAL, LayerPlan, Side
from tfkfac.structure import from_matrix, to_matrix
from tfkfac.uses import Use

T = TypeVar("T")

# Entries of a layer's counter vector.
FACTOR_UPDATES, NON_FINITE, UNUSED, FAILED_DECOMPOSITIONS = range(4)

Layers = Sequence[tuple[LayerPlan, tuple[Use, ...]]]


@dataclasses.dataclass
class LayerState:
    """The variables of one layer.

    Attributes:
        plan: What they belong to.
        variables: By name, see `LayerPlan.state_shapes`.
        weight: Sum of the running average's weights (1 unless debiased).
        counters: Factor updates, non-finite statistics, unused steps, failed decompositions.
    """

    plan: LayerPlan
    variables: dict[str, tf.Variable]
    weight: tf.Variable
    counters: tf.Variable

    def named(self) -> dict[str, tf.Variable]:
        """All variables by the names under which they are saved."""
        return {**self.variables, "weight": self.weight, "counters": self.counters}

    def sides(self) -> list[tuple[str, Side]]:
        """The sides that have a factor, with their names."""
        sides = (("rows", self.plan.rows), ("columns", self.plan.columns))
        return [(name, side) for name, side in sides if f"{name}_factor" in self.variables]


class Preconditioner:
    """State of all layers, and the operations on it.

    Args:
        method: `"eigen"` or `"inverse"`.
        factor_decay: α of the running average, in [0, 1).
        debias: Start the average at zero and divide by its weights instead of starting at the
            identity.
        kl_clip: κ, or None for no clip.
        dtype: Precision of factors and decompositions.
        communication: Averages over ranks.
    """

    def __init__(
        self,
        method: str,
        factor_decay: float,
        debias: bool,
        kl_clip: float | None,
        dtype: tf.DType,
        communication: Communication,
    ):
        self.method, self.factor_decay, self.debias = method, factor_decay, debias
        self.kl_clip, self.dtype, self.communication = kl_clip, dtype, communication
        self.layers: dict[int, LayerState] = {}
        self.last_kl_clip, self.non_finite_steps = _outside_trace(
            lambda: (
                tf.Variable(1.0, trainable=False, name="kl_clip"),
                tf.Variable(0, trainable=False, dtype=tf.int64, name="non_finite_steps"),
            )
        )

    # --- plans ---

    def adopt(self, plans: Sequence[LayerPlan]) -> None:
        """Creates the state of plans that are new; checks the others against their state.

        Raises:
            ValueError: A weight is used otherwise than in an earlier trace or in the checkpoint.
        """
        new = [plan for plan in plans if plan.weight not in self.layers]
        created = _outside_trace(lambda: [self._create(plan) for plan in new])
        self.layers.update({state.plan.weight: state for state in created})
        for plan in plans:
            state = self.layers[plan.weight]
            if state.plan.signature() != plan.signature():
                raise ValueError(
                    f"KFAC: layer '{plan.name}' is not what the optimizer's state was made for: "
                    f"{state.plan.difference(plan)}. The training step was traced with another use "
                    "of it, or the state comes from another model; use a new KFAC for the changed "
                    "step."
                )
            state.plan = plan

    def _create(self, plan: LayerPlan) -> LayerState:
        variables = {}
        for name, shape in plan.state_shapes(self.method).items():
            variables[name] = tf.Variable(
                self._initial(name, shape, plan),
                trainable=False,
                dtype=self.dtype,
                name=f"{plan.name}_{name}".replace("/", "_"),
            )
        weight = tf.Variable(self._initial_weight, trainable=False, dtype=self.dtype)
        counters = tf.Variable(tf.zeros([4], tf.int64), trainable=False)
        return LayerState(plan, variables, weight, counters)

    @property
    def _initial_weight(self) -> float:
        return 0.0 if self.debias else 1.0

    def _initial(self, name: str, shape: tuple[int, ...], plan: LayerPlan) -> tf.Tensor:
        side = plan.rows if name.startswith("rows") else plan.columns
        if name.endswith("_eigenvalues"):
            return tf.ones(shape, self.dtype)
        if name.endswith("_factor") and self.debias:
            return tf.zeros(shape, self.dtype)
        if side.structure == DIAGONAL:
            return tf.ones(shape, self.dtype)
        identity = tf.broadcast_to(tf.eye(shape[-1], dtype=self.dtype), shape)
        if name.endswith("_factor") and side.structure == BLOCKS:
            return identity * _inside_blocks(side, self.dtype)
        return identity

    def state(self) -> dict[str, tf.Variable]:
        """All variables of all layers by the names under which they are saved."""
        named: dict[str, tf.Variable] = {
            "kl_clip": self.last_kl_clip,
            "non_finite_steps": self.non_finite_steps,
        }
        for index, state in sorted(self.layers.items()):
            for name, variable in state.named().items():
                named[f"{index}_{name}"] = variable
        return named

    def restore(self, plans: Sequence[LayerPlan], values: Mapping[str, np.ndarray]) -> None:
        """Makes the state that of a checkpoint: values by the names of `state`.

        Layers that the checkpoint does not hold start afresh.

        Raises:
            ValueError: The checkpoint does not fit, or lacks values of its own layers.
        """
        self.adopt(plans)
        for plan in plans:
            for name in self.layers[plan.weight].named():
                if f"{plan.weight}_{name}" not in values:
                    raise ValueError(
                        f"KFAC: the checkpoint lacks {name} of layer '{plan.name}': it was not "
                        f"saved with method={self.method!r}."
                    )
        self._reset()
        variables = self.state()
        for name, value in values.items():
            variables[name].assign(value)

    def _reset(self) -> None:
        self.last_kl_clip.assign(1.0)
        self.non_finite_steps.assign(0)
        for state in self.layers.values():
            for name, variable in state.variables.items():
                variable.assign(self._initial(name, tuple(variable.shape), state.plan))
            state.weight.assign(self._initial_weight)
            state.counters.assign(tf.zeros_like(state.counters))

    # --- steps ---

    def update_factors(
        self, layers: Layers, decay: tf.Tensor, share: tf.Tensor, held: tf.Tensor
    ) -> None:
        """F ← decay · F + share · F_new for every layer of this trace.

        With a plain step, decay = α, share = 1 − α and held = 1. With gradient accumulation over k
        micro-batches, share = (1 − α)/k, only the first micro-batch decays, and `held` is the sum
        of weights in F at that moment: 1, then α + share, α + 2 share, ...

        A layer whose new statistics are not finite, or all zero because the step did not use it,
        contributes its old factors F / held instead, and is counted.
        """
        moments = [second_moments(plan, uses, self.dtype) for plan, uses in layers]
        flat = [m for pairs in moments for pair in pairs for m in pair if m is not None]
        averaged = iter(self.communication.average(flat, "kfac_factors"))
        for (plan, _), pairs in zip(layers, moments, strict=True):
            pairs = [
                (next(averaged), None if columns is None else next(averaged))
                for _, columns in pairs
            ]
            self._accumulate(self.layers[plan.weight], pairs, decay, share, held)

    def _accumulate(
        self,
        state: LayerState,
        moments: Moments,
        decay: tf.Tensor,
        share: tf.Tensor,
        held: tf.Tensor,
    ) -> None:
        plan = state.plan
        rows, columns = combine(moments, plan.rows, plan.columns)
        new = {"rows": rows, "columns": columns}
        finite = tf.reduce_all([_all_finite(t) for t in (rows, columns) if t is not None])
        used = (trace(rows, plan.rows) if columns is None else trace(columns, plan.columns)) > 0
        usable = finite & used
        for name, _ in state.sides():
            factor = state.variables[f"{name}_factor"]
            contribution = tf.where(usable, new[name], factor / held)
            factor.assign(decay * factor + share * contribution)
        if self.debias:
            one = tf.where(usable, tf.ones([], self.dtype), state.weight / held)
            state.weight.assign(decay * state.weight + share * one)
        counted = tf.stack([usable, ~finite, finite & ~used, tf.constant(False)])
        state.counters.assign_add(tf.cast(counted, tf.int64))

    def decompose(self, layers: Layers, damping: tf.Tensor) -> None:
        """New eigenbases (or damped inverses) from the current factors.

        Where a factor or a result is not finite the last good basis stays, and is counted.
        """
        for plan, _ in layers:
            self._decompose_layer(self.layers[plan.weight], damping)

    def _decompose_layer(self, state: LayerState, damping: tf.Tensor) -> None:
        plan = state.plan
        sound, factors = [], {}
        for name, side in state.sides():
            factor = tf.identity(state.variables[f"{name}_factor"])
            if self.debias:
                factor /= state.weight
            finite = _all_finite(factor)
            sound.append(finite)
            factors[name] = tf.where(finite, factor, self._identity_like(factor, side))
        results: dict[str, tf.Tensor] = {}
        if self.method == "inverse":
            inverses = inverse.invert(plan, factors["rows"], factors.get("columns"), damping)
            for name, value in zip(("rows", "columns"), inverses, strict=True):
                if value is not None:
                    results[f"{name}_inverse"] = value
        else:
            for name, side in state.sides():
                basis = eigen.decompose(factors[name], side)
                results[f"{name}_eigenvalues"] = basis.values
                if basis.vectors is not None:
                    results[f"{name}_eigenvectors"] = basis.vectors
        sound += [_all_finite(value) for value in results.values()]
        usable = tf.reduce_all(sound)
        for name, value in results.items():
            variable = state.variables[name]
            variable.assign(tf.where(usable, value, variable))
        failed = tf.cast(~usable, tf.int64)  # FAILED_DECOMPOSITIONS is the last entry
        state.counters.assign_add(tf.stack([0, 0, 0, failed]))

    def _identity_like(self, factor: tf.Tensor, side: Side) -> tf.Tensor:
        if side.structure == DIAGONAL:
            return tf.ones_like(factor)
        return tf.broadcast_to(tf.eye(factor.shape[-1], dtype=self.dtype), tf.shape(factor))

    def precondition(
        self,
        layers: Layers,
        gradients: Mapping[int, tf.Tensor],
        damping: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> dict[int, tf.Tensor]:
        """Preconditioned, KL-clipped gradients of the weights and biases in `layers`.

        ν = min(1, sqrt(κ / |lr² Σ V ⊙ ∇W|)), one ν for all layers (SC20).
        """
        results, inner_products = [], []
        for plan, _ in layers:
            weight = gradients[plan.weight]
            bias = None if plan.bias is None else gradients[plan.bias]
            matrix = to_matrix(
                plan,
                tf.cast(weight, self.dtype),
                None if bias is None else tf.cast(bias, self.dtype),
            )
            direction = self._precondition_matrix(matrix, plan, damping)
            inner_products.append(tf.reduce_sum(direction * matrix))
            results.append((plan, weight, bias, direction))
        scale = self._kl_clip(inner_products, learning_rate)
        preconditioned: dict[int, tf.Tensor] = {}
        for plan, weight, bias, direction in results:
            bias_shape = None if bias is None else tuple(bias.shape)
            new_weight, new_bias = from_matrix(plan, direction * scale, bias_shape)
            preconditioned[plan.weight] = tf.cast(new_weight, weight.dtype)
            if plan.bias is not None and bias is not None:
                preconditioned[plan.bias] = tf.cast(new_bias, bias.dtype)
        return preconditioned

    def _precondition_matrix(
        self, matrix: tf.Tensor, plan: LayerPlan, damping: tf.Tensor
    ) -> tf.Tensor:
        variables = self.layers[plan.weight].variables
        if self.method == "inverse":
            return inverse.precondition(
                matrix, plan, variables["rows_inverse"], variables.get("columns_inverse")
            )
        rows, columns = (
            eigen.Basis(variables.get(f"{name}_eigenvalues"), variables.get(f"{name}_eigenvectors"))
            for name in ("rows", "columns")
        )
        return eigen.precondition(matrix, plan, rows, columns, damping)

    def _kl_clip(self, inner_products: list[tf.Tensor], learning_rate: tf.Tensor) -> tf.Tensor:
        total = tf.add_n(inner_products)
        self.non_finite_steps.assign_add(tf.cast(~tf.math.is_finite(total), tf.int64))
        if self.kl_clip is None:
            return tf.ones([], self.dtype)
        change = tf.abs(tf.square(tf.cast(learning_rate, self.dtype)) * total)
        one = tf.ones_like(change)
        # Nothing to clip where the sum is zero; NaN passes through, so that a run that diverges
        # shows it.
        ratio = tf.sqrt(self.kl_clip / tf.where(change > 0, change, one))
        scale = tf.where(tf.equal(change, 0), one, tf.minimum(one, ratio))
        scale = tf.where(tf.math.is_nan(change), change, scale)
        self.last_kl_clip.assign(tf.cast(scale, tf.float32))
        return scale


def _outside_trace(create: Callable[[], T]) -> T:
    """Creates variables while a training step is being traced, but not as part of it.

    `tf.function` traces a step twice when the first trace creates variables, also under
    `tf.init_scope`. It does not see those that another thread creates.
    """
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(create).result()


def _inside_blocks(side: Side, dtype: tf.DType) -> tf.Tensor:
    """[1, blocks, s, 1]: 1 on coordinates that exist, 0 on the last block's padding."""
    inside = np.arange(side.padded_size) < side.size
    return tf.constant(inside.reshape(1, side.blocks, side.block_size, 1), dtype)


def _all_finite(tensor: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(tf.math.is_finite(tensor))
