"""KFAC as an optimizer of Keras 3: where in its update K-FAC has its part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfkfac.base_optimizer import BaseKFAC
from tfkfac.communication import outside_trace
from tfkfac.gradient_terms import Gradient


@keras.saving.register_keras_serializable(package="tfkfac")
class KFAC(BaseKFAC, keras.optimizers.Optimizer):
    """K-FAC: natural-gradient preconditioning in front of any Keras 3 optimizer."""

    def _start(self, **arguments: Any) -> None:
        keras.optimizers.Optimizer.__init__(self, learning_rate=0.0, **arguments)

    def _check_inner_optimizer(self, optimizer: keras.optimizers.Optimizer) -> None:
        if isinstance(optimizer, (KFAC, keras.optimizers.LossScaleOptimizer)):
            raise ValueError(
                f"KFAC: optimizer={type(optimizer).__name__} cannot be the inner optimizer; "
                "wrap it around KFAC instead, or pass what it wraps"
            )
        if optimizer.gradient_accumulation_steps:
            raise ValueError(
                "KFAC: give gradient_accumulation_steps to KFAC, not to the inner optimizer, so "
                "that the factors see every micro-batch"
            )

    def _add_scalar(self, option: str, value: Any) -> keras.Variable:
        dtype = "float32" if option == "damping" else "int64"
        return self.add_variable((), keras.initializers.Constant(value), dtype=dtype, name=option)

    def _index(self, variable: keras.Variable) -> int:
        return self._get_variable_index(variable)

    def _built_for(self) -> Sequence[keras.Variable]:
        return self._trainable_variables

    def _inner_variables(self) -> list[keras.Variable]:
        return self.inner_optimizer.variables

    @property
    def learning_rate(self) -> keras.Variable | tf.Tensor:
        """The inner optimizer's learning rate."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: float | Callable[..., Any]) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the inner optimizer's state for `variables`."""
        if self.built:
            return

        def create() -> None:
            keras.optimizers.Optimizer.build(self, variables)
            self.inner_optimizer.build(variables)

        # Keras builds optimizers while it traces the first training step.
        create() if tf.executing_eagerly() else outside_trace(create)

    @tf.autograph.experimental.do_not_convert
    def apply(
        self,
        grads: Sequence[Gradient],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """One step: statistics from the graph of `grads`, then the update.

        Raises:
            RuntimeError: `grads` are not symbolic, so that there is no graph to read.
        """
        grads = list(grads)
        if not grads:
            return
        given = list(trainable_variables) if trainable_variables is not None else None
        if not self.built and given is not None:
            self.build(given)
        variables = given if given is not None else self._trainable_variables
        self._check_variables_are_known(variables)
        self._discover(grads, variables)
        # Statistics come from the raw gradients; only then may they become dense, be averaged,
        # accumulated and clipped.
        steps = self.gradient_accumulation_steps or 1
        micro_step = tf.convert_to_tensor(self._iterations) % steps
        self._engine.update_factors(
            self._updates(), micro_step, steps, loss_scale_factor=self.loss_scale_factor
        )
        grads = [tf.convert_to_tensor(g) if isinstance(g, tf.IndexedSlices) else g for g in grads]
        super().apply(grads, variables)

    def _updates(self) -> tf.Tensor:
        return tf.convert_to_tensor(self.iterations)

    def _clip_gradients(self, grads: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        # Called once per update with the accumulated gradients: the place where the ranks' means
        # are due, before they are clipped.
        return super()._clip_gradients(self._engine.average(grads))

    def _backend_update_step(
        self,
        grads: Sequence[tf.Tensor],
        trainable_variables: Sequence[keras.Variable],
        learning_rate: tf.Tensor,
    ) -> None:
        indices = [self._index(variable) for variable in trainable_variables]
        directions = self._engine.directions(grads, indices, self._updates(), learning_rate)
        self.inner_optimizer.apply(directions, trainable_variables)

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Not used: the inner optimizer updates the variables."""
        raise NotImplementedError

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Writes averaged weights (`use_ema`) of this or of the inner optimizer."""
        super().finalize_variable_values(var_list)
        self.inner_optimizer.finalize_variable_values(var_list)


KFAC.__doc__ = BaseKFAC.__doc__
