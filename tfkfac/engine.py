"""One training step of K-FAC, from symbolic gradients to directions, for whichever optimizer.

The optimizer faces call, while a step is being traced: `discover`, `update_factors`,
`average` and `directions`, in this order. Nothing here knows of Keras.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfkfac.communication import detect
from tfkfac.gradient_terms import Gradient
from tfkfac.placement import make_grid
from tfkfac.planning import Discovery, Layout, Weight, discover
from tfkfac.preconditioner import Distribution, Layers, Preconditioner
from tfkfac.schedules import Schedulable, as_interval
from tfkfac.settings import Settings


class Engine:
    """State of K-FAC, and what a step does with it.

    Args:
        settings: What stays as it is.
        base_values: Damping and intervals as given to the optimizer.
        scheduled: The same by name, as schedules or as scalar variables.
    """

    def __init__(
        self,
        settings: Settings,
        base_values: Mapping[str, Schedulable],
        scheduled: Mapping[str, Any],
    ):
        self.settings, self.base_values = settings, dict(base_values)
        self._scheduled = dict(scheduled)
        self.preconditioner: Preconditioner | None = None
        self.plain: dict[int, str] = {}
        self._discovery = Discovery([], {})  # of the step that is being traced

    # --- schedules ---

    def current(self, option: str, updates: Any) -> tf.Tensor:
        """The value of damping or of an interval after `updates` updates."""
        value = self._scheduled[option]
        value = tf.convert_to_tensor(value(updates) if callable(value) else value)
        return value if option == "damping" else as_interval(value)

    def assign(self, option: str, value: Any) -> None:
        """Sets damping or an interval.

        Raises:
            TypeError: It follows a schedule.
        """
        if callable(self._scheduled[option]):
            raise TypeError(
                f"KFAC: {option} follows the schedule given to the constructor and cannot be set"
            )
        self._scheduled[option].assign(value)

    # --- the update ---

    def existing_preconditioner(self) -> Preconditioner:
        """The preconditioner.

        Raises:
            RuntimeError: There was no training step yet.
        """
        if self.preconditioner is None:
            raise RuntimeError("KFAC: nothing is known before the first training step")
        return self.preconditioner

    def create_preconditioner(self, dtypes: Sequence[tf.DType]) -> Preconditioner:
        """Creates the preconditioner for variables of these dtypes."""
        settings = self.settings
        dtype = settings.factor_dtype
        if dtype is None:
            dtype = "float64" if tf.float64 in dtypes else "float32"
        communication = detect(settings.communication)
        grid = make_grid(settings.placement, communication.size, settings.gradient_worker_fraction)
        self.preconditioner = Preconditioner(
            settings.method,
            settings.factor_decay,
            settings.debias,
            settings.weight_sharing,
            tf.as_dtype(dtype),
            communication,
            Distribution(
                grid,
                settings.balance,
                refresh_above=settings.refresh_above,
                half_factors=settings.factor_compression is not None,
            ),
        )
        return self.preconditioner

    def discover(
        self,
        grads: Sequence[Gradient],
        weights: Sequence[Weight],
        dtypes: Sequence[tf.DType],
        describe: Callable[[], Mapping[str, str]],
        inner_name: str,
    ) -> None:
        """Finds out from the graph of `grads` which weights form layers.

        Args:
            grads: Symbolic gradients.
            weights: Their variables.
            dtypes: Likewise.
            describe: Gives what, besides settings and layers, ranks must have in common.
            inner_name: Name of the optimizer that gets what is not preconditioned.

        Raises:
            RuntimeError: There is no graph, or several replicas share it.
            ValueError: A weight is used otherwise than in an earlier trace.
        """
        _require_graph(grads)
        settings = self.settings
        preconditioner = self.preconditioner or self.create_preconditioner(dtypes)
        layout = Layout(settings.max_factor_size, settings.oversized, settings.elementwise)
        self._discovery = discovery = discover(grads, weights, layout)
        plans = [layer for layer, _ in discovery.layers]
        preconditioner.prepare(plans, lambda: self._description(weights, describe()))
        preconditioner.adopt(plans)
        for index, reason in discovery.plain.items():
            if index not in preconditioner.layers:
                self.plain[index] = reason
        if not discovery.layers:
            reasons = "; ".join(sorted(set(discovery.plain.values())))
            warnings.warn(
                "KFAC found nothing to precondition in this training step: every variable gets the "
                f"plain update of {inner_name} ({reasons}).",
                stacklevel=4,
            )

    def _description(self, weights: Sequence[Weight], more: Mapping[str, str]) -> dict[str, str]:
        """What all ranks must have in common besides the layers."""
        description = {f"variable {i}": str(weight.shape) for i, weight in enumerate(weights)}
        for option, value in dataclasses.asdict(self.settings).items():
            description[option] = repr(value)
        for option in ("factor_interval", "eigen_interval"):
            value = self._scheduled[option]
            described = self.base_values[option] if callable(value) else number(value)
            description[option] = str(described)
        return {**description, **more}

    def update_factors(
        self,
        updates: tf.Tensor,
        micro_step: tf.Tensor | int = 0,
        micro_steps: int = 1,
        loss_scale_factor: float | None = None,
    ) -> None:
        """On a factor step, takes this batch's statistics into the running averages.

        Args:
            updates: Number of updates so far.
            micro_step: Number of micro-batches already accumulated for the next update.
            micro_steps: Micro-batches per update.
            loss_scale_factor: What the gradients are still multiplied with.
        """
        discovery, preconditioner = self._discovery, self.existing_preconditioner()
        if not discovery.layers:
            return
        decay = preconditioner.factor_decay
        dtype = preconditioner.dtype
        first = tf.equal(micro_step, 0)
        one, kept = tf.ones([], dtype), tf.constant(decay, dtype)
        share = tf.constant((1.0 - decay) / micro_steps, dtype)
        held = tf.where(first, one, kept + tf.cast(micro_step, dtype) * share)
        _when(
            _is_due(updates, self.current("factor_interval", updates)),
            lambda: preconditioner.update_factors(
                _with_loss_scale(discovery.layers, loss_scale_factor),
                tf.where(first, kept, one),
                share,
                held,
            ),
        )

    def average(self, grads: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Means of the accumulated gradients over ranks."""
        half = self.settings.gradient_compression is not None
        return self.existing_preconditioner().communication.average(grads, "gradients", half)

    def directions(
        self,
        grads: Sequence[tf.Tensor],
        indices: Sequence[int],
        updates: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> list[tf.Tensor]:
        """What the inner optimizer gets in place of the averaged gradients.

        Args:
            grads: Averaged and clipped gradients.
            indices: Of their variables.
            updates: Number of updates so far.
            learning_rate: The inner optimizer's.
        """
        discovery, preconditioner = self._discovery, self.existing_preconditioner()
        if not discovery.layers:
            return list(grads)
        damping = self.current("damping", updates)
        _when(
            _is_due(updates, self.current("eigen_interval", updates)),
            lambda: preconditioner.decompose(discovery.layers, damping),
        )
        directions = preconditioner.precondition(
            discovery.layers,
            dict(zip(indices, grads, strict=True)),
            damping,
            tf.convert_to_tensor(self.settings.kl_clip_learning_rate or learning_rate),
            self.settings.kl_clip,
        )
        return [directions.get(index, grad) for index, grad in zip(indices, grads, strict=True)]


def _require_graph(grads: Sequence[Gradient]) -> None:
    if tf.executing_eagerly() and any(g is not None for g in grads):
        raise RuntimeError(
            "KFAC reads its statistics from the graph of the training step, and there is none "
            "in eager execution. Compile without run_eagerly=True, or decorate your own "
            "training step with @tf.function."
        )
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync > 1:
        raise RuntimeError(
            f"KFAC does not run on the {strategy.num_replicas_in_sync} replicas of a "
            "tf.distribute strategy: start one process per device with horovodrun instead."
        )


def _is_due(updates: tf.Tensor, interval: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.cast(updates, tf.int64) % interval, 0)


def _with_loss_scale(layers: Layers, loss_scale_factor: float | None) -> Layers:
    """`loss_scale_factor` divides gradients only later, in `apply` of the base class."""
    if loss_scale_factor is not None:
        for _, uses in layers:
            for use in uses:
                use.multipliers = (*use.multipliers, lambda: tf.constant(1 / loss_scale_factor))
    return layers


def _when(predicate: tf.Tensor, action: Callable[[], None]) -> None:
    def act() -> tf.Tensor:
        action()
        return tf.constant(True)

    tf.cond(predicate, act, lambda: tf.constant(False))


def number(variable: Any) -> int:
    """A variable's current value, also while a training step is being traced."""
    with tf.init_scope():
        return int(tf.convert_to_tensor(variable).numpy())
