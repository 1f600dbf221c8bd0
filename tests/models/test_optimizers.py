"""What a configuration makes of the optimizer and its learning rate."""

import keras
import numpy as np
import pytest

from models import optimizers
from models.config import TrainingConfig
from models.muon import ConvolutionMuon
from models.resnet import CLASSIFIER_NAME, resnet8
from models.schedules import WarmupStepDecay


def test_learning_rate_scales_with_ranks_and_warms_up_from_one_ranks():
    config = TrainingConfig(learning_rate=0.1, schedule="constant", warmup_epochs=1)
    rate = optimizers.learning_rate(config, steps_per_epoch=3, ranks=4)
    assert [float(rate(step)) for step in range(4)] == pytest.approx([0.2, 0.3, 0.4, 0.4])


def test_learning_rate_without_scaling():
    config = TrainingConfig(learning_rate=0.1, schedule="constant", scale_learning_rate=False)
    assert float(optimizers.learning_rate(config, 3, ranks=4)(5)) == pytest.approx(0.1)


def test_decay_epochs_become_steps():
    config = TrainingConfig(schedule="step", decay_epochs=(2.0, 3.5), learning_rate=1.0)
    rate = optimizers.learning_rate(config, steps_per_epoch=10, ranks=1)
    got = [float(rate(step)) for step in (19, 20, 34, 35)]
    assert got == pytest.approx([1.0, 0.1, 0.1, 0.01])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_decay_ends_with_the_last_epoch(schedule):
    config = TrainingConfig(schedule=schedule, epochs=4, learning_rate=1.0)
    rate = optimizers.learning_rate(config, steps_per_epoch=5, ranks=1)
    assert float(rate(19)) > 0
    assert float(rate(20)) == 0


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon", "kfac"])
def test_weight_decay_is_decoupled(name):
    """With zero gradients, a step multiplies every weight by 1 - rate * decay."""
    config = TrainingConfig(
        optimizer=name, learning_rate=0.5, weight_decay=0.1, schedule="constant"
    )
    rate = optimizers.learning_rate(config, 1, 1)
    optimizer = optimizers.build(config, rate, steps_per_epoch=1)
    variables = [keras.Variable(np.ones(shape, np.float32)) for shape in ((3, 3, 2, 4), (4,))]
    optimizer.build(variables)
    if name == "kfac":  # its step needs a training graph: test what the step calls
        assert optimizer.weight_decay == 0.1
        return
    optimizer.apply([keras.ops.zeros_like(variable) for variable in variables], variables)
    for variable in variables:
        np.testing.assert_allclose(variable, 0.95, rtol=1e-6)


def test_sgd_has_plain_momentum():
    config = TrainingConfig(momentum=0.8)
    optimizer = optimizers.build(config, optimizers.learning_rate(config, 1, 1), 1)
    assert (optimizer.momentum, optimizer.nesterov) == (0.8, False)


def test_kfac_gets_its_options():
    config = TrainingConfig(
        optimizer="kfac",
        momentum=0.7,
        damping=0.02,
        damping_decay_epochs=(2.0,),
        factor_interval=3,
        eigen_interval=12,
        interval_change_epochs=(1.0, 2.0),
        interval_change_factor=0.5,
        factor_decay=0.9,
        kl_clip=0.01,
        kl_clip_learning_rate=0.3,
        method="inverse",
        elementwise="plain",
        debias=True,
        weight_sharing="reduce",
        placement="hybrid",
        gradient_worker_fraction=0.25,
        half_precision_exchange=True,
        schedule="constant",
    )
    rate = optimizers.learning_rate(config, 10, 1)
    settings = optimizers.build(config, rate, steps_per_epoch=10).get_config()
    assert settings["optimizer"]["config"]["momentum"] == 0.7
    expected = {"factor_decay": 0.9, "kl_clip": 0.01, "method": "inverse", "elementwise": "plain"}
    expected |= {"debias": True, "weight_sharing": "reduce", "kl_clip_learning_rate": 0.3}
    expected |= {"placement": "hybrid", "gradient_worker_fraction": 0.25, "refresh_above": None}
    expected |= {"gradient_compression": "float16", "factor_compression": "float16"}
    assert {name: settings[name] for name in expected} == expected
    by_step = {
        name: keras.saving.deserialize_keras_object(settings[name])
        for name in ("damping", "factor_interval", "eigen_interval")
    }
    assert all(isinstance(schedule, WarmupStepDecay) for schedule in by_step.values())
    steps = (9, 10, 20)
    assert [float(by_step["damping"](s)) for s in steps] == pytest.approx([0.02, 0.02, 0.01])
    assert [float(by_step["eigen_interval"](s)) for s in steps] == [12, 6, 3]
    assert [float(by_step["factor_interval"](s)) for s in steps] == [3, 1.5, 0.75]


def test_kfac_without_decay_gets_numbers():
    config = TrainingConfig(optimizer="kfac", damping=0.02, factor_interval=3)
    optimizer = optimizers.build(config, optimizers.learning_rate(config, 10, 1), 10)
    assert float(optimizer.damping) == pytest.approx(0.02)
    assert int(optimizer.factor_interval) == 3


def test_muon_treats_convolution_kernels_as_matrices():
    optimizer = ConvolutionMuon()
    update = np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype(np.float32)
    result = np.asarray(optimizer.zeropower_via_newtonschulz5(keras.ops.array(update), 5))
    assert result.shape == update.shape
    # Newton-Schulz with Muon's coefficients brings all singular values near 1.
    values = np.linalg.svd(result.reshape(36, 8), compute_uv=False)
    assert values.min() > 0.6
    assert values.max() < 1.3
    left, _, right = np.linalg.svd(update.reshape(36, 8), full_matrices=False)
    cosine = np.sum((left @ right) * result.reshape(36, 8)) / np.linalg.norm(result) / np.sqrt(8)
    assert cosine > 0.97
    scaled = np.asarray(optimizer.lr_adjust(keras.ops.array(update)))
    np.testing.assert_allclose(scaled, update * 0.2 * np.sqrt(36), rtol=1e-5)


def test_muon_leaves_vectors_and_the_classifier_to_adamw():
    model = resnet8()
    config = TrainingConfig(optimizer="muon")
    optimizer = optimizers.build(config, optimizers.learning_rate(config, 1, 1), 1)
    optimizer.build(model.trainable_variables)
    for variable, velocity in zip(
        model.trainable_variables, optimizer.adam_velocities, strict=True
    ):
        is_convolution = "conv" in variable.path
        assert (velocity is None) == is_convolution, variable.path
    assert any(CLASSIFIER_NAME in variable.path for variable in model.trainable_variables)
