"""K-FAC's state and what happens to it: factor updates, decompositions, preconditioning.

The steps are those of Pauloski et al. (SC20):

    every factor step         F ← α F + (1 − α) F_new     for the factors A and G of each layer
    every decomposition step  Q, d ← eigendecomposition   (or damped inverses)
    every step                V ← preconditioned gradient, ν V with the KL clip ν

On several ranks each of them does its share, see `placement`. This module is independent of Keras:
it sees TensorFlow tensors and keeps `tf.Variable`s.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfkfac import eigen, inverse, layer_state, placement, triangle
from tfkfac.communication import Communication, outside_trace
from tfkfac.decomposition import Decomposer, Key
from tfkfac.factors import combine, second_moments
from tfkfac.layer_state import ARCHIVE, BASES, NOTHING, LayerState
from tfkfac.plan import DIAGONAL, LayerPlan
from tfkfac.structure import from_matrix, to_matrix
from tfkfac.uses import Use

Layers = Sequence[tuple[LayerPlan, tuple[Use, ...]]]


@dataclasses.dataclass(frozen=True)
class Distribution:
    """How the work is spread over ranks.

    Attributes:
        grid: Worker and receiver groups.
        balance: `"time"` or `"memory"`, see `placement.place`.
        cost: Time of decomposing a matrix of order n, in any unit.
        refresh_above: Order above which bases are refreshed instead of decomposed anew, or None.
        half_factors: Send factors in half precision.
    """

    grid: placement.Grid
    balance: str = "time"
    cost: Callable[[int], float] = lambda n: float(n) ** 3
    refresh_above: int | None = None
    half_factors: bool = False


class Preconditioner:
    """State of all layers, and the operations on it.

    Args:
        method: `"eigen"` or `"inverse"`.
        factor_decay: α of the running average, in [0, 1).
        debias: Start the average at zero and divide by its weights instead of starting at the
            identity.
        weight_sharing: `"expand"` or `"reduce"`, see `factors`.
        dtype: Precision of factors and decompositions.
        communication: The ranks.
        distribution: Their work.
    """

    def __init__(
        self,
        method: str,
        factor_decay: float,
        debias: bool,
        weight_sharing: str,
        dtype: tf.DType,
        communication: Communication,
        distribution: Distribution,
    ):
        self.method, self.factor_decay, self.debias = method, factor_decay, debias
        self.weight_sharing, self.dtype = weight_sharing, dtype
        self.communication, self.distribution = communication, distribution
        self.placement = placement.place([], distribution.grid)
        self.layers: dict[int, LayerState] = {}
        self._token, self.last_kl_clip, self.non_finite_steps = outside_trace(
            lambda: (
                tf.Variable(1.0, trainable=False, dtype=dtype, name="token"),
                tf.Variable(1.0, trainable=False, name="kl_clip"),
                tf.Variable(0, trainable=False, dtype=tf.int64, name="non_finite_steps"),
            )
        )
        self._is_prepared = False

    # --- plans ---

    def prepare(
        self, plans: Sequence[LayerPlan], describe: Callable[[], Mapping[str, str]]
    ) -> None:
        """Before the first step: makes sure that all ranks are about to do the same.

        Args:
            plans: Layers of the first trace.
            describe: Gives what else must be the same on all ranks: texts by name.

        Raises:
            RuntimeError: They are not, or Horovod lacks process sets.
        """
        if self._is_prepared or self.communication.size == 1:
            return
        # By number: Keras counts a process's layers in their names.
        layers = {f"the layer of variable {plan.weight}": str(plan.signature()) for plan in plans}
        known = sorted(str(state.plan.signature()) for state in self.layers.values())
        restored = hashlib.sha256("".join(known).encode()).hexdigest()[:12] if known else "none"
        self.communication.require_agreement({**describe(), **layers, "restored layers": restored})
        grid = self.distribution.grid
        members = [grid.members(group) for group in range(grid.groups)]
        receivers = [grid.receivers(first) for first in range(0, grid.ranks, grid.groups)]
        self.communication.prepare_groups([*members, *receivers])
        self._is_prepared = True

    def adopt(self, plans: Sequence[LayerPlan]) -> None:
        """Creates the state of plans that are new; checks the others against their state.

        Raises:
            ValueError: A weight is used otherwise than in an earlier trace or in the checkpoint.
        """
        new = [plan for plan in plans if plan.weight not in self.layers]
        self._place(new)
        created = outside_trace(lambda: [self._create(plan) for plan in new])
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

    def _place(self, plans: Sequence[LayerPlan]) -> None:
        distribution, works = self.distribution, []
        for plan in plans:
            for name, side in plan.sides():
                if side.structure == DIAGONAL:
                    continue
                count, order = plan.groups * side.blocks, side.block_size
                limit = distribution.refresh_above
                works.append(
                    placement.Work(
                        plan.weight,
                        name,
                        cost=count * distribution.cost(order),
                        memory=float(count * order * (order + 1) * self.dtype.size),
                        spread=limit is not None and order > limit,
                    )
                )
        self.placement = placement.place(
            works, distribution.grid, balance=distribution.balance, previous=self.placement
        )

    def _is_placed(self, plan: LayerPlan) -> bool:
        """Whether the layer belongs to one worker group. Diagonal ones belong to every rank."""
        return plan.weight in self.placement.groups

    def _is_worker(self, plan: LayerPlan) -> bool:
        rank = self.communication.rank
        return not self._is_placed(plan) or self.placement.is_worker(rank, plan.weight)

    def _create(self, plan: LayerPlan) -> LayerState:
        keeps = NOTHING
        if self._is_worker(plan):
            keeps = BASES
        elif self.communication.rank == 0:
            keeps = ARCHIVE
        return layer_state.create(plan, self.method, self.dtype, self.debias, keeps)

    def state(self) -> dict[str, tf.Variable]:
        """All variables of all layers on this rank by the names under which they are saved."""
        named: dict[str, tf.Variable] = {
            "kl_clip": self.last_kl_clip,
            "non_finite_steps": self.non_finite_steps,
        }
        for index, state in sorted(self.layers.items()):
            for name, variable in state.named().items():
                named[f"{index}_{name}"] = variable
        return named

    def is_complete(self) -> bool:
        """Whether this rank's state holds all that a checkpoint needs."""
        return all(state.keeps != NOTHING for state in self.layers.values())

    def restore(self, plans: Sequence[LayerPlan], values: Mapping[str, np.ndarray]) -> None:
        """Makes the state that of a checkpoint: values by the names of `state`.

        The checkpoint may come from any number of ranks and any placement. Layers that it does not
        hold start afresh.

        Raises:
            ValueError: The checkpoint does not fit, or lacks values of its own layers.
        """
        self.adopt(plans)
        restored: dict[int, Mapping[str, tf.Tensor]] = {}
        for plan in plans:
            prefix = f"{plan.weight}_"
            own = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
            try:
                restored[plan.weight] = self.layers[plan.weight].convert(own)
            except KeyError as missing:
                raise ValueError(
                    f"KFAC: the checkpoint lacks {missing.args[0]} of layer '{plan.name}': it was "
                    f"not saved with method={self.method!r}."
                ) from None
        self.last_kl_clip.assign(values.get("kl_clip", 1.0))
        self.non_finite_steps.assign(values.get("non_finite_steps", 0))
        for index, state in self.layers.items():
            for name, value in restored.get(index, state.initial(self.debias)).items():
                state.named()[name].assign(value)

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
        moments = [
            second_moments(plan, uses, self.dtype, self.weight_sharing) for plan, uses in layers
        ]
        flat = [m for pairs in moments for pair in pairs for m in pair if m is not None]
        averaged = iter(self._average_factors(flat))
        new: list[dict[str, tf.Tensor]] = []
        for (plan, _), pairs in zip(layers, moments, strict=True):
            pairs = [
                (next(averaged), None if columns is None else next(averaged))
                for _, columns in pairs
            ]
            rows, columns = combine(pairs, plan.rows, plan.columns)
            new.append({"rows": rows} if columns is None else {"rows": rows, "columns": columns})
        states = [self.layers[plan.weight] for plan, _ in layers]
        self._accumulate(states, new, decay, share, held)

    def _average_factors(self, moments: list[tf.Tensor]) -> list[tf.Tensor]:
        """Means over ranks. Of symmetric matrices one triangle travels."""
        if self.communication.size == 1:
            return moments
        symmetric = [moment.shape.rank > 2 for moment in moments]
        sent = [triangle.fold(m) if s else m for m, s in zip(moments, symmetric, strict=True)]
        if self.distribution.half_factors:
            # Entries of a positive semidefinite matrix are at most the largest on its diagonal: in
            # this unit nothing overflows.
            largest = [
                tf.reduce_max(tf.linalg.diag_part(m) if s else m)
                for m, s in zip(moments, symmetric, strict=True)
            ]
            [units] = self.communication.average([tf.stack(largest)], "factor_units")
            units = tf.unstack(tf.where(units > 0, units, tf.ones_like(units)))
            size = self.communication.size
            sent = [tensor / (unit * size) for tensor, unit in zip(sent, units, strict=True)]
            sent = self.communication.average(sent, "factors", half=True)
            sent = [tensor * unit * size for tensor, unit in zip(sent, units, strict=True)]
        else:
            sent = self.communication.average(sent, "factors")
        return [triangle.unfold(m) if s else m for m, s in zip(sent, symmetric, strict=True)]

    def _accumulate(
        self,
        states: Sequence[LayerState],
        new: Sequence[Mapping[str, tf.Tensor]],
        decay: tf.Tensor,
        share: tf.Tensor,
        held: tf.Tensor,
    ) -> None:
        # What is a number per layer is reckoned for all layers at once: a graph of a thousand
        # scalar operations takes longer to trace than to run.
        finite = _finite([list(factors.values()) for factors in new])
        # A positive semidefinite matrix has its largest entry on the diagonal.
        largest = [tf.reduce_max(factors.get("columns", factors["rows"])) for factors in new]
        used = tf.stack(largest) > 0
        usable = finite & used
        kept = tf.unstack(tf.where(usable, decay, decay + share / held))
        added = tf.unstack(tf.where(usable, share, tf.zeros_like(share)))
        zero = tf.zeros([], self.dtype)
        for state, factors, ok, keep, add in zip(
            states, new, tf.unstack(usable), kept, added, strict=True
        ):
            for name, moment in factors.items():
                factor = state.variables[f"{name}_factor"]
                new_factor = keep * factor + share * tf.where(ok, moment, zero)
                factor.assign(new_factor, read_value=False)
            if self.debias:
                state.weight.assign(keep * state.weight + add, read_value=False)
        no = tf.zeros_like(usable)
        _count(states, [usable, ~finite, finite & ~used, no, no])

    def decompose(self, layers: Layers, damping: tf.Tensor) -> None:
        """New eigenbases (or damped inverses) from the current factors.

        Where a factor or a result is not finite the last good basis stays, and is counted.
        """
        states = [self.layers[plan.weight] for plan, _ in layers]
        factors, sound = self._read_factors(states, damping)
        workers = {s.plan.weight: s for s in states if s.keeps == BASES}
        decomposer = Decomposer(
            workers, self.placement, self.communication, self.method, self._token
        )
        bases = decomposer.run(factors, damping)
        results = [
            [t for name, _ in state.sides() for t in bases.get((state.plan.weight, name), [])]
            for state in states
        ]
        usable = self._agree_on_failures(sound & _finite(results))
        for state, ok in zip(states, tf.unstack(usable), strict=True):
            index = state.plan.weight
            new: dict[str, tf.Tensor] = {}
            for name, _ in state.sides():
                if state.keeps == BASES:
                    names = state.plan.basis_shapes(name, self.method)
                    new.update(zip(names, bases[index, name], strict=True))
                elif state.keeps == ARCHIVE:
                    new[f"{name}_decomposed"] = factors[index, name]
            for name, value in new.items():
                variable = state.variables[name]
                variable.assign(tf.where(ok, value, variable), read_value=False)
        no = tf.zeros_like(usable)
        _count(states, [no, no, no, ~usable, usable])

    def _read_factors(
        self, states: Sequence[LayerState], damping: tf.Tensor
    ) -> tuple[dict[Key, tf.Tensor], tf.Tensor]:
        """What is to be decomposed, and which layers' factors are finite; zeros for the others."""
        read: list[dict[str, tf.Tensor]] = []
        for state in states:
            own = {
                n: tf.convert_to_tensor(state.variables[f"{n}_factor"]) for n, _ in state.sides()
            }
            if self.debias:
                weight = tf.convert_to_tensor(state.weight)
                own = {name: factor / weight for name, factor in own.items()}
            read.append(own)
        sound = _finite([list(own.values()) for own in read])
        factors: dict[Key, tf.Tensor] = {}
        zero = tf.zeros([], self.dtype)
        for state, own, ok in zip(states, read, tf.unstack(sound), strict=True):
            plan, tensors = state.plan, [tf.where(ok, factor, zero) for factor in own.values()]
            if self.method == "inverse":
                damped = inverse.damp(plan, tensors[0], (*tensors, None)[1], damping)
                tensors = [tensor for tensor in damped if tensor is not None]
            factors.update({(plan.weight, n): t for n, t in zip(own, tensors, strict=True)})
        return factors, sound

    def _agree_on_failures(self, usable: tf.Tensor) -> tf.Tensor:
        """Which layers' bases are usable, [layers], also where only other worker groups know."""
        grid = self.distribution.grid
        if grid.groups == 1:
            return usable
        failed = tf.cast(~usable, tf.float32)
        [share] = self.communication.average([failed], "failed_decompositions")
        return share < 0.5 / grid.ranks

    def precondition(
        self,
        layers: Layers,
        gradients: Mapping[int, tf.Tensor],
        damping: tf.Tensor,
        learning_rate: tf.Tensor,
        kl_clip: float | None,
    ) -> dict[int, tf.Tensor]:
        """Preconditioned, KL-clipped gradients of the weights and biases in `layers`.

        ν = min(1, sqrt(κ / |lr² Σ V ⊙ ∇W|)), one ν for all layers (SC20).

        Args:
            layers: Of this trace.
            gradients: Averaged gradients by index of the variable.
            damping: λ.
            learning_rate: lr of the clip.
            kl_clip: κ, or None for no clip.
        """
        matrices = {}
        for plan, _ in layers:
            bias = None if plan.bias is None else tf.cast(gradients[plan.bias], self.dtype)
            weight = tf.cast(gradients[plan.weight], self.dtype)
            matrices[plan.weight] = to_matrix(plan, weight, bias)
        plans = [plan for plan, _ in layers]
        directions = self._share_directions(
            plans,
            {
                plan.weight: self._precondition_matrix(matrices[plan.weight], plan, damping)
                for plan in plans
                if self._is_worker(plan)
            },
        )
        inner_products = [tf.reduce_sum(directions[i] * matrices[i]) for i in matrices]
        scale = self._kl_clip(inner_products, learning_rate, kl_clip)
        preconditioned: dict[int, tf.Tensor] = {}
        for plan in plans:
            bias_shape = None if plan.bias is None else tuple(gradients[plan.bias].shape)
            new_weight, new_bias = from_matrix(plan, directions[plan.weight] * scale, bias_shape)
            preconditioned[plan.weight] = tf.cast(new_weight, gradients[plan.weight].dtype)
            if plan.bias is not None:
                preconditioned[plan.bias] = tf.cast(new_bias, gradients[plan.bias].dtype)
        return preconditioned

    def _share_directions(
        self, plans: Sequence[LayerPlan], own: Mapping[int, tf.Tensor]
    ) -> dict[int, tf.Tensor]:
        """Preconditioned gradients of all layers: the own ones and the receiver group's."""
        grid, rank = self.distribution.grid, self.communication.rank
        placed = [plan for plan in plans if self._is_placed(plan)]
        if grid.groups == 1 or not placed:
            return dict(own)
        by_rank = {
            other: [plan for plan in placed if self.placement.is_worker(other, plan.weight)]
            for other in grid.receivers(rank)
        }
        shapes = {
            other: [(plan.groups, plan.rows.size, plan.columns.size) for plan in theirs]
            for other, theirs in by_rank.items()
        }
        received = self.communication.share(
            [own[plan.weight] for plan in by_rank[rank]], shapes, self._token, "directions"
        )
        directions = dict(own)
        for other, tensors in received.items():
            for plan, tensor in zip(by_rank[other], tensors, strict=True):
                directions[plan.weight] = tensor
        return directions

    def _precondition_matrix(
        self, matrix: tf.Tensor, plan: LayerPlan, damping: tf.Tensor
    ) -> tf.Tensor:
        state = self.layers[plan.weight]
        if self.method == "inverse":
            variables = state.variables
            return inverse.precondition(
                matrix, plan, variables["rows_inverse"], variables.get("columns_inverse")
            )
        return eigen.precondition(
            matrix, plan, state.basis("rows"), state.basis("columns"), damping
        )

    def _kl_clip(
        self,
        inner_products: list[tf.Tensor],
        learning_rate: tf.Tensor,
        kl_clip: float | None,
    ) -> tf.Tensor:
        total = tf.add_n(inner_products)
        self.non_finite_steps.assign_add(tf.cast(~tf.math.is_finite(total), tf.int64))
        if kl_clip is None:
            return tf.ones([], self.dtype)
        change = tf.abs(tf.square(tf.cast(learning_rate, self.dtype)) * total)
        one = tf.ones_like(change)
        # Nothing to clip where the sum is zero; NaN passes through, so that a run that diverges
        # shows it.
        ratio = tf.sqrt(kl_clip / tf.where(change > 0, change, one))
        scale = tf.where(tf.equal(change, 0), one, tf.minimum(one, ratio))
        scale = tf.where(tf.math.is_nan(change), change, scale)
        self.last_kl_clip.assign(tf.cast(scale, tf.float32))
        return scale


def _finite(tensors: Sequence[Sequence[tf.Tensor]]) -> tf.Tensor:
    """Whether all tensors of each layer are finite, [layers]; True for a layer without any.

    By their sums, in which no infinity and no NaN gets lost.
    """
    sums = [[tf.reduce_sum(tensor) for tensor in own] for own in tensors]
    return tf.stack(
        [tf.math.is_finite(tf.add_n(own)) if own else tf.constant(True) for own in sums]
    )


def _count(states: Sequence[LayerState], events: Sequence[tf.Tensor]) -> None:
    """Adds to the layers' counters; `events` are [layers] each, in the order of the counters."""
    counted = tf.unstack(tf.cast(tf.stack(events, axis=1), tf.int64))
    for state, counts in zip(states, counted, strict=True):
        state.counters.assign_add(counts, read_value=False)
