"""K-FAC in numpy: explicit Kronecker products, solved as linear systems."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tests.tfkfac.ground_truth import Observation, observe
from tfkfac.plan import BLOCKS, DIAGONAL, LayerPlan, Side


@dataclasses.dataclass
class _Layer:
    """Running averages of the factors (dense, with zeros outside a structure), and those in use."""

    plan: LayerPlan
    rows: np.ndarray
    columns: np.ndarray
    weight: float
    used: Callable[[np.ndarray, float], np.ndarray] | None = None


class Reference:
    """Trains `model` step by step; arguments as for `KFAC` with its default inner optimizer.

    `plans` says which variables form a layer and which structure its factors have; everything else
    is computed here.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        plans: Sequence[LayerPlan],
        *,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        damping: float = 0.003,
        factor_interval: int = 10,
        eigen_interval: int = 100,
        factor_decay: float = 0.95,
        kl_clip: float | None = 0.001,
        method: str = "eigen",
        debias: bool = False,
        weight_sharing: str = "expand",
    ):
        self.model, self.loss = model, loss
        self.learning_rate, self.momentum, self.damping = learning_rate, momentum, damping
        self.factor_interval, self.eigen_interval = factor_interval, eigen_interval
        self.factor_decay, self.kl_clip = factor_decay, kl_clip
        self.method, self.debias = method, debias
        self.reduced = weight_sharing == "reduce"
        self.steps = 0
        self.clips: list[float] = []
        self.velocities = [np.zeros(v.shape) for v in model.trainable_variables]
        self.layers = [self._new_layer(plan) for plan in plans]

    def _new_layer(self, plan: LayerPlan) -> _Layer:
        scale = 0.0 if self.debias else 1.0
        if plan.kind == "elementwise":
            return _Layer(plan, scale * np.ones(plan.rows.size), np.ones(1), scale)
        rows, columns = (
            scale * np.stack([np.eye(side.size)] * plan.groups)
            for side in (plan.rows, plan.columns)
        )
        return _Layer(plan, rows, columns, scale)

    def step(self, inputs: np.ndarray, targets: np.ndarray) -> None:
        """One update with a batch."""
        observation = observe(
            self.model,
            inputs,
            lambda outputs: tf.reduce_mean(self.loss(tf.constant(targets), outputs)),
            lambda n, outputs: tf.reduce_mean(self.loss(tf.constant(targets[n : n + 1]), outputs)),
        )
        if self.steps % self.factor_interval == 0:
            for layer in self.layers:
                self._update_factors(layer, observation)
        if self.steps % self.eigen_interval == 0:
            for layer in self.layers:
                layer.used = self._solver(layer)
        self._update_weights(self._directions(observation.gradients))
        self.steps += 1

    def _update_factors(self, layer: _Layer, observation: Observation) -> None:
        plan, decay = layer.plan, self.factor_decay
        if plan.kind == "elementwise":
            new = observation.elementwise_factor(plan.weight)
            layer.rows = decay * layer.rows + (1 - decay) * new
        else:
            reduced = self.reduced and plan.kind != "embedding"
            rows, columns = observation.factors(
                plan.weight, plan.bias is not None, bool(plan.transposed), reduced
            )
            rows, columns = rows * _mask(plan.rows), columns * _mask(plan.columns)
            layer.rows = decay * layer.rows + (1 - decay) * rows
            layer.columns = decay * layer.columns + (1 - decay) * columns
        layer.weight = decay * layer.weight + (1 - decay)

    def _solver(self, layer: _Layer) -> Callable[[np.ndarray, float], np.ndarray]:
        """(gradient [groups, rows, columns], damping) -> direction, with the factors of now."""
        rows, columns = layer.rows / layer.weight, layer.columns / layer.weight
        frozen_damping = self.damping
        if layer.plan.kind == "elementwise":
            if self.method == "inverse":
                return lambda gradient, _: gradient / (rows + frozen_damping)
            return lambda gradient, damping: gradient / (_cut(rows) + damping)
        pairs = list(zip(rows, columns, strict=True))
        if self.method == "inverse":
            return lambda gradient, _: np.stack(
                [
                    _explicit_inverses(a, g, frozen_damping, matrix)
                    for (a, g), matrix in zip(pairs, gradient, strict=True)
                ]
            )
        cut = [(_cut_matrix(a), _cut_matrix(g)) for a, g in pairs]

        def solve(gradient, damping):
            directions = []
            for (a, g), matrix in zip(cut, gradient, strict=True):
                system = np.kron(a, g) + damping * np.eye(matrix.size)
                directions.append(np.linalg.solve(system, matrix.ravel()).reshape(matrix.shape))
            return np.stack(directions)

        return solve

    def _directions(self, gradients: list[np.ndarray]) -> list[np.ndarray]:
        directions, total = list(gradients), 0.0
        for layer in self.layers:
            plan = layer.plan
            weight = gradients[plan.weight]
            matrix: np.ndarray = weight.ravel()
            if plan.kind != "elementwise":
                columns = layer.columns.shape[-1]
                matrix = weight.reshape(-1, plan.groups, columns).transpose(1, 0, 2)
                if plan.bias is not None:
                    bias = gradients[plan.bias].reshape(plan.groups, 1, columns)
                    matrix = np.concatenate([matrix, bias], axis=1)
            assert layer.used is not None
            direction = layer.used(matrix, self.damping)
            total += np.sum(direction * matrix)
            if plan.bias is not None:
                directions[plan.bias] = direction[:, -1].reshape(gradients[plan.bias].shape)
                direction = direction[:, :-1]
            if plan.kind != "elementwise":
                direction = direction.transpose(1, 0, 2)
            directions[plan.weight] = direction.reshape(weight.shape)
        if self.kl_clip is not None:
            clip = min(1.0, np.sqrt(self.kl_clip / abs(self.learning_rate**2 * total)))
            self.clips.append(clip)
            for layer in self.layers:
                for index in (layer.plan.weight, layer.plan.bias):
                    if index is not None:
                        directions[index] = directions[index] * clip
        return directions

    def _update_weights(self, directions: list[np.ndarray]) -> None:
        for i, variable in enumerate(self.model.trainable_variables):
            self.velocities[i] = (
                self.momentum * self.velocities[i] - self.learning_rate * directions[i]
            )
            variable.assign(variable.numpy() + self.velocities[i])


def _mask(side: Side) -> np.ndarray:
    if side.structure == DIAGONAL:
        return np.eye(side.size)
    if side.structure == BLOCKS:
        block = np.arange(side.size) // side.block_size
        return (block[:, None] == block[None, :]).astype(float)
    return np.ones([side.size, side.size])


def _cut(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 1e-10, 0.0, values)


def _cut_matrix(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(_cut(values)) @ vectors.T


def _explicit_inverses(a, g, damping, matrix):
    pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(g) / len(g)))
    left = np.linalg.inv(a + pi * np.sqrt(damping) * np.eye(len(a)))
    right = np.linalg.inv(g + np.sqrt(damping) / pi * np.eye(len(g)))
    return left @ matrix @ right
