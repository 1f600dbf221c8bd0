"""FLOPs of a trial: of the network's products for an example, and of its optimizer's for a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from models.benchmark.flops import step_flops, training_flops
from tfkfac.callbacks import find_kfac
from tfkfac.engine import number
from tfkfac.layer_costs import Layer, decomposition_work, has_basis

EIGENDECOMPOSITION = 9.0  # n³ operations, see `micro.eigendecomposition`
INVERSION = 7 / 3  # Cholesky's factor and two triangular solves


def of_network(model: keras.Model, inputs: Any, targets: Any) -> float | None:
    """FLOPs of an example in training: three forward passes; None where shapes are open.

    A model with a training step of its own, such as two networks that train in turn, has no one
    forward pass: what its graph holds counts, its optimizers' products left out.

    Args:
        model: compiled, with an optimizer without products where it has its own step.
        inputs, targets: a batch of fixed shape, or `tf.TensorSpec`s of it.
    """
    own_step = type(model).train_step is not keras.Model.train_step
    count = step_flops if own_step else training_flops
    try:
        return count(model, inputs, targets) / tf.nest.flatten(inputs)[0].shape[0]
    except ValueError:  # an open shape
        return None


def of_optimizer(
    model: keras.Model, plain: Callable[[], keras.Model], inputs: Any, targets: Any
) -> float | None:
    """FLOPs of an optimizer's products in a step, beyond the network's own: a mean over steps.

    SGD and AdamW have none. K-FAC's factors and decompositions are divided by their intervals; a
    decomposition counts nominally, 9 n³. None where the graph leaves a product's shape open.

    Args:
        model: compiled and trained for a step at least.
        plain: makes the same network, compiled with an optimizer without products.
        inputs, targets: as for `of_network`.
    """
    optimizers = [model.optimizer, getattr(model, "discriminator_optimizer", None)]
    kfacs = [find_kfac(optimizer) for optimizer in optimizers if optimizer is not None]
    if any(kfac is not None for kfac in kfacs):
        try:
            in_graph = step_flops(model, inputs, targets) - step_flops(plain(), inputs, targets)
        except ValueError:  # an open shape
            return None
        return _of_kfac([kfac for kfac in kfacs if kfac is not None], in_graph)
    return sum(map(_of_muon, (o for o in optimizers if isinstance(o, keras.optimizers.Muon))))


def _of_muon(optimizer: Any) -> float:
    """Newton-Schulz's iterations: for m <= n, X Xᵀ and B X have m² n products each, A A m³."""
    total = 0.0
    for variable in optimizer._trainable_variables:
        if not optimizer._should_use_adamw(variable):
            rows, columns = math.prod(variable.shape[:-1]), variable.shape[-1]
            m, n = sorted((rows, columns))
            total += optimizer.ns_steps * (4.0 * m * m * n + 2.0 * m**3)
    return total


def _of_kfac(optimizers: list[Any], in_graph: float) -> float:
    """From what the graph holds once: directions, taken each step, and factors, at their interval.

    Args:
        optimizers: of one network, or one each of several, with equal settings.
        in_graph: FLOPs of products in the step that are the optimizers'.
    """
    directions = decompositions = 0.0
    for optimizer in optimizers:
        for state in optimizer.layers:
            plan, inverse = state.plan, state.method == "inverse"
            nominal = INVERSION if inverse else EIGENDECOMPOSITION
            layer = Layer(plan.name, plan.rows, plan.columns, plan.groups)
            directions += layer.preconditioning_flops(inverse)
            for _, side in plan.sides():
                if has_basis(side):
                    decompositions += nominal * decomposition_work(layer, side)
    factors = max(in_graph - directions, 0.0)
    first = optimizers[0]
    every, seldom = (number(value) for value in (first.factor_interval, first.eigen_interval))
    return directions + factors / every + decompositions / seldom
