"""KFAC as an optimizer of Keras 2.15: where in its update K-FAC has its part."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.optimizers.optimizer import CallableList

from tfkfac.base_optimizer import BaseKFAC
from tfkfac.communication import outside_trace
from tfkfac.gradient_terms import Gradient

_Schedule = keras.optimizers.schedules.LearningRateSchedule


@keras.saving.register_keras_serializable(package="tfkfac")
class KFAC(BaseKFAC, keras.optimizers.Optimizer):
    """K-FAC: natural-gradient preconditioning in front of any Keras 2 optimizer."""

    # Arguments of Keras 3's optimizers that those of Keras 2 do not know.
    loss_scale_factor = gradient_accumulation_steps = None

    def _start(self, **arguments: Any) -> None:
        for option in ("loss_scale_factor", "gradient_accumulation_steps"):
            if arguments.pop(option) is not None:
                raise ValueError(f"KFAC: {option} needs Keras 3, and this is Keras 2")
        keras.optimizers.Optimizer.__init__(self, jit_compile=False, **arguments)
        self.built = False
        self._known: list[tf.Variable] = []

    def _create_iteration_variable(self) -> None:
        # Not named as the inner optimizer's: HDF5 files of Keras 2 know variables by their names.
        with tf.init_scope():
            self._iterations = tf.Variable(
                0, name="kfac_iteration", dtype=tf.int64, trainable=False
            )
        self._variables.append(self._iterations)

    def _check_inner_optimizer(self, optimizer: Any) -> None:
        if isinstance(optimizer, (KFAC, keras.mixed_precision.LossScaleOptimizer)):
            raise ValueError(
                f"KFAC: optimizer={type(optimizer).__name__} cannot be the inner optimizer; "
                "wrap it around KFAC instead, or pass what it wraps"
            )
        if not hasattr(optimizer, "learning_rate"):
            raise ValueError(
                f"KFAC: {type(optimizer).__name__} cannot be the inner optimizer: it has no "
                "learning rate of its own, which the KL clip and schedules refer to"
            )

    def _add_scalar(self, option: str, value: Any) -> tf.Variable:
        dtype, number = (tf.float32, value) if option == "damping" else (tf.int64, int(value))
        return self.add_variable((), dtype, keras.initializers.Constant(number), name=option)

    def _index(self, variable: tf.Variable) -> int:
        return self._index_dict[self._var_key(variable)]

    def _built_for(self) -> Sequence[tf.Variable]:
        return self._known

    def _inner_variables(self) -> list[tf.Variable]:
        inner = self.inner_optimizer
        return list(inner.weights if _is_legacy(inner) else inner.variables)

    @property
    def variables(self) -> CallableList:
        """Variables of this optimizer and of the inner one, see `BaseKFAC`.

        It may be called, too, as Horovod's callbacks do.
        """
        return CallableList(super().variables)

    @property
    def learning_rate(self) -> tf.Variable | tf.Tensor:
        """The inner optimizer's learning rate: the one of now, if it follows a schedule."""
        inner = self.inner_optimizer
        rate = inner.learning_rate if _is_legacy(inner) else inner._learning_rate
        return tf.convert_to_tensor(rate(self.iterations)) if isinstance(rate, _Schedule) else rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: float | Callable[..., Any]) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Creates the inner optimizer's state for `var_list`."""
        if self.built:
            return
        super().build(var_list)
        self._known = list(var_list)
        inner = self.inner_optimizer
        if _is_legacy(inner):
            inner._create_all_weights(self._known)
        else:
            inner.build(self._known)
        self.built = self._built = True

    @tf.autograph.experimental.do_not_convert
    def apply_gradients(
        self,
        grads_and_vars: Iterable[tuple[Gradient, tf.Variable]],
        name: str | None = None,
        skip_gradients_aggregation: bool = False,
        **kwargs: Any,
    ) -> tf.Variable:
        """One step: statistics from the graph of the gradients, then the update.

        Args:
            grads_and_vars: Symbolic gradients and their variables.
            name: Not used.
            skip_gradients_aggregation: Not used: there is one replica.
            kwargs: Likewise.

        Returns:
            The counter of updates.

        Raises:
            RuntimeError: The gradients are not symbolic, so that there is no graph to read.
            ValueError: The optimizer was built for other variables.
        """
        pairs = list(grads_and_vars)
        if not pairs:
            return self.iterations
        with tf.init_scope():
            self.build([variable for _, variable in pairs])
        for _, variable in pairs:
            if self._var_key(variable) not in self._index_dict:
                raise ValueError(
                    f"Unknown variable: {variable.name}. This optimizer was built for other "
                    "variables; a changed set of them needs a new optimizer."
                )
        with tf.name_scope(self.name):
            self._discover([gradient for gradient, _ in pairs], [variable for _, variable in pairs])
            updates = tf.convert_to_tensor(self.iterations)
            # Statistics come from the raw gradients; only then may they become dense, be averaged
            # and clipped.
            self._engine.update_factors(updates)
            self._update([pair for pair in _without_empty(pairs)], updates)
        return self.iterations

    def _update(self, pairs: Sequence[tuple[tf.Tensor, tf.Variable]], updates: tf.Tensor) -> None:
        variables = [variable for _, variable in pairs]
        grads = [tf.convert_to_tensor(gradient) for gradient, _ in pairs]
        grads = self._clip_gradients(self._engine.average(grads))
        self._apply_weight_decay(variables)
        indices = [self._index(variable) for variable in variables]
        inner = self.inner_optimizer
        rate = tf.convert_to_tensor(self.learning_rate)
        rate /= 1 + _decay(inner) * tf.cast(updates, rate.dtype)
        directions = self._engine.directions(grads, indices, updates, rate)
        # A loss scale that overflowed counts as an update here, as it does for other optimizers.
        inner.iterations.assign(updates)
        inner.apply_gradients(list(zip(directions, variables, strict=True)))
        if self.use_ema:
            self._update_model_variables_moving_average(variables)
            if self.ema_overwrite_frequency:
                tf.cond(
                    tf.equal((updates + 1) % self.ema_overwrite_frequency, 0),
                    lambda: self._overwrite_model_variables_with_average_value(variables),
                    lambda: None,
                )
        self.iterations.assign_add(1)

    def _discover(self, grads: Sequence[Gradient], variables: Sequence[tf.Variable]) -> None:
        super()._discover(grads, variables)
        outside_trace(self._track_state)

    def _track_state(self) -> None:
        """Makes factors and bases part of `tf.train.Checkpoint`s, on which Keras 2 relies.

        What a checkpoint restored before they existed, they receive here.
        """
        for name, variable in self.state_variables.items():
            if self._lookup_dependency(name) is None:
                self._track_trackable(variable, name)

    @staticmethod
    def _deserialize(option: str, config: dict[str, Any], custom_objects: dict | None) -> Any:
        try:
            return BaseKFAC._deserialize(option, config, custom_objects)
        except ValueError:
            # HDF5 files and SavedModels: there Keras finds its own classes through these functions
            # only. They lack some of what `.keras` files may hold, AdamW for one.
            kinds = keras.optimizers if option == "optimizer" else keras.optimizers.schedules
            return kinds.deserialize(dict(config), custom_objects=custom_objects)

    def load_own_variables(self, store: Mapping[str, np.ndarray]) -> None:
        """Restores what `save_own_variables` wrote, see `BaseKFAC`."""
        super().load_own_variables(store)
        self._track_state()

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Not used: the inner optimizer updates the variables."""
        raise NotImplementedError

    def finalize_variable_values(self, var_list: Sequence[tf.Variable]) -> None:
        """Writes averaged weights (`use_ema`) of this or of the inner optimizer."""
        super().finalize_variable_values(var_list)
        if not _is_legacy(self.inner_optimizer):
            self.inner_optimizer.finalize_variable_values(var_list)


KFAC.__doc__ = BaseKFAC.__doc__


def _is_legacy(optimizer: Any) -> bool:
    """Whether it is one of the older kind, as all of tensorflow-addons are."""
    return isinstance(optimizer, keras.optimizers.legacy.Optimizer)


def _decay(optimizer: Any) -> float:
    """The argument `decay` of the older kind, also inside a wrapper."""
    return getattr(getattr(optimizer, "_optimizer", optimizer), "_initial_decay", 0.0)


def _without_empty(
    pairs: Sequence[tuple[Gradient, tf.Variable]],
) -> list[tuple[tf.Tensor | tf.IndexedSlices, tf.Variable]]:
    """Pairs that have a gradient; warns of the others, as every Keras optimizer does."""
    missing = [variable.name for gradient, variable in pairs if gradient is None]
    if missing:
        warnings.warn(f"Gradients do not exist for variables {missing}.", stacklevel=4)
    return [pair for pair in pairs if pair[0] is not None]
