"""The optimizer and the learning rate that a configuration asks for."""

from __future__ import annotations

from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule

from models.config import TrainingConfig
from models.resnet import CLASSIFIER_NAME
from models.schedules import (
    WarmupCosineDecay,
    WarmupLinearDecay,
    WarmupStepDecay,
    epochs_to_steps,
)


def learning_rate(config: TrainingConfig, steps_per_epoch: int, ranks: int) -> LearningRateSchedule:
    """The learning rate by step, scaled with the number of ranks if the configuration says so."""
    config = config.resolved()
    assert config.learning_rate is not None  # resolved() fills it in
    base = config.learning_rate * (ranks if config.scale_learning_rate else 1)
    start = config.warmup_start
    if start is None:
        start = 0.0 if ranks == 1 else 1 / ranks
    warmup_steps = epochs_to_steps(config.warmup_epochs, steps_per_epoch)
    warmup: dict[str, Any] = {"warmup_steps": warmup_steps, "warmup_start": start}
    if config.schedule in ("step", "constant"):
        boundaries = [epochs_to_steps(epoch, steps_per_epoch) for epoch in config.decay_epochs]
        return WarmupStepDecay(base, boundaries, config.decay_factor, **warmup)
    decays = {"linear": WarmupLinearDecay, "cosine": WarmupCosineDecay}
    return decays[config.schedule](base, config.epochs * steps_per_epoch, **warmup)


def build(config: TrainingConfig, rate: LearningRateSchedule, steps_per_epoch: int) -> Any:
    """The optimizer, a `keras.optimizers.Optimizer`.

    Weight decay is decoupled in all of them: it is no part of the gradient, so neither momentum
    nor preconditioning sees it.
    """
    decay = config.weight_decay or None
    if config.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=config.momentum, weight_decay=decay)
    if config.optimizer == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=config.weight_decay)
    if config.optimizer == "muon":
        from models.muon import ConvolutionMuon

        return ConvolutionMuon(
            rate,
            weight_decay=decay,
            adam_weight_decay=decay,
            exclude_layers=[CLASSIFIER_NAME],
        )
    from tfkfac import KFAC  # here, so that the other optimizers do without it

    def changing(
        value: float, epochs: tuple[float, ...], factor: float
    ) -> float | LearningRateSchedule:
        if not epochs:
            return value
        boundaries = [epochs_to_steps(epoch, steps_per_epoch) for epoch in epochs]
        return WarmupStepDecay(value, boundaries, factor)

    intervals = config.interval_change_epochs, config.interval_change_factor
    return KFAC(
        learning_rate=rate,
        momentum=config.momentum,
        damping=changing(config.damping, config.damping_decay_epochs, config.damping_decay_factor),
        factor_interval=changing(config.factor_interval, *intervals),
        eigen_interval=changing(config.eigen_interval, *intervals),
        factor_decay=config.factor_decay,
        kl_clip=config.kl_clip,
        kl_clip_learning_rate=config.kl_clip_learning_rate,
        method=config.method,
        elementwise=config.elementwise,
        debias=config.debias,
        weight_sharing=config.weight_sharing,
        placement=config.placement,
        gradient_worker_fraction=config.gradient_worker_fraction,
        refresh_above=config.refresh_above,
        gradient_compression="float16" if config.half_precision_exchange else None,
        factor_compression="float16" if config.half_precision_exchange else None,
        weight_decay=decay,
    )
