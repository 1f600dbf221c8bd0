"""Saved and restored runs go on as if they had never stopped."""

from __future__ import annotations

import shutil
import warnings
from typing import Any

import keras
import numpy as np
import pytest

from tests.tfkfac.keras_versions import reset_dtype_policy
from tests.tfkfac.training import data, dense_model, fit, flat_weights, train_step
from tfkfac import KFAC
from tfkfac.base_optimizer import variable_path
from tfkfac.callbacks import find_kfac
from tfkfac.keras_version import KERAS_3
from tfkfac.schedules import StepDecay

# Steps 4 and 5 of a run use bases of step 3 and factors of steps 2 and 4.
INTERVALS: dict[str, Any] = {"factor_interval": 2, "eigen_interval": 3}


def sgd_eigen():
    return KFAC(learning_rate=0.05, **INTERVALS)


def adamw_inverse():
    return KFAC(
        optimizer=keras.optimizers.AdamW(0.01, weight_decay=0.1),
        method="inverse",
        damping=StepDecay(0.01, [3, 6], 0.5),
        debias=True,
        use_ema=True,
        max_factor_size=4,
        oversized="block-diagonal",
        **INTERVALS,
    )


def scaled_sgd_eigen():
    # The scale grows at steps 3 and 6, and becomes too large at step 12.
    return keras.mixed_precision.LossScaleOptimizer(sgd_eigen(), dynamic_growth_steps=3)


@pytest.fixture
def policy(request):
    keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    reset_dtype_policy()


def compiled(make_optimizer) -> keras.Model:
    model = dense_model()
    model.compile(make_optimizer(), loss="mse")
    return model


def state(model: keras.Model) -> dict[str, np.ndarray]:
    kfac = find_kfac(model.optimizer)
    assert kfac is not None
    return {name: variable.numpy() for name, variable in kfac.state_variables.items()}


def assert_same_state(model: keras.Model, expected: dict[str, np.ndarray]) -> None:
    actual = state(model)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


@pytest.mark.parametrize(
    ("make_optimizer", "policy"),
    [(sgd_eigen, "float32"), (adamw_inverse, "float32"), (scaled_sgd_eigen, "mixed_float16")],
    indirect=["policy"],
)
def test_loaded_model_continues_like_the_saved_one(make_optimizer, policy, tmp_path):
    model = compiled(make_optimizer)
    fit(model)
    saved = state(model)
    assert any(name.endswith("counters") and value[0] == 2 for name, value in saved.items())
    model.save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_state(loaded, saved)
    for variable, other in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(
            variable.numpy(), other.numpy(), err_msg=variable_path(variable)
        )
    fit(model, epochs=2)
    fit(loaded, epochs=2)
    np.testing.assert_allclose(flat_weights(loaded), flat_weights(model), rtol=1e-6, atol=1e-7)
    if policy == "mixed_float16" and KERAS_3:  # Keras 2 does not save the scale
        scale = float(model.optimizer.dynamic_scale)
        assert scale == float(loaded.optimizer.dynamic_scale) != 2.0**15


class Interruption(keras.callbacks.Callback):
    """Fails in the third epoch, after two of its steps."""

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == 10:
            raise KeyboardInterrupt


def test_interrupted_run_resumes_where_it_was(tmp_path):
    uninterrupted = compiled(sgd_eigen)
    start = uninterrupted.get_weights()
    fit(uninterrupted, epochs=4)

    interrupted = compiled(sgd_eigen)
    interrupted.set_weights(start)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        fit(interrupted, epochs=4, callbacks=[backup, Interruption()])
    # Resumed by another process, and by the same one, whose step was traced already.
    for name, model in (("other", compiled(sgd_eigen)), ("same", interrupted)):
        shutil.copytree(tmp_path / "backup", tmp_path / name)
        backup = keras.callbacks.BackupAndRestore(tmp_path / name)
        history = fit(model, epochs=4, callbacks=[backup])
        assert history.epoch == [2, 3]
        np.testing.assert_allclose(
            flat_weights(model), flat_weights(uninterrupted), rtol=1e-6, atol=1e-7
        )


def test_weights_loaded_after_training_bring_their_factors_back(tmp_path):
    model = compiled(sgd_eigen)
    model.optimizer.build(model.trainable_variables)
    model.evaluate(*data(), verbose=0)  # metrics, which Keras 2 saves with the weights
    start = flat_weights(model)
    model.save_weights(tmp_path / "start.weights.h5")
    fit(model)
    after_four, saved = flat_weights(model), state(model)
    model.save_weights(tmp_path / "four.weights.h5")
    fit(model)
    after_eight = flat_weights(model)

    model.load_weights(tmp_path / "four.weights.h5")
    assert_same_state(model, saved)
    np.testing.assert_array_equal(flat_weights(model), after_four)
    fit(model)
    np.testing.assert_array_equal(flat_weights(model), after_eight)
    # A checkpoint from before the first step has no factors: they start afresh.
    model.load_weights(tmp_path / "start.weights.h5")
    np.testing.assert_array_equal(flat_weights(model), start)
    assert model.optimizer.report().rows[0].factor_updates == 0
    fit(model)
    np.testing.assert_array_equal(flat_weights(model), after_four)


@pytest.mark.skipif(KERAS_3, reason="Keras 3 writes no SavedModel to go on with")
@pytest.mark.parametrize("name", ["model.h5", "saved_model"])
def test_older_formats_keep_what_keras_2_keeps(name, tmp_path):
    """Weights and settings; of the optimizer's state HDF5 holds the variables, without factors."""
    model = compiled(sgd_eigen)
    fit(model)
    model.save(tmp_path / name)
    loaded = keras.models.load_model(tmp_path / name)
    assert isinstance(loaded.optimizer, KFAC)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    np.testing.assert_array_equal(flat_weights(loaded), flat_weights(model))
    assert int(loaded.optimizer.iterations) == (4 if name == "model.h5" else 0)
    assert loaded.optimizer.state_variables == {}
    fit(loaded)
    assert loaded.optimizer.report().rows[0].factor_updates == 2


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer .sgd")
def test_optimizers_not_yet_built_warn_as_keras_does(tmp_path):
    untrained = compiled(sgd_eigen)
    untrained.save(tmp_path / "untrained.keras")
    with pytest.warns(UserWarning, match="'kfac': the saved one had not been built"):
        loaded = keras.models.load_model(tmp_path / "untrained.keras")
    np.testing.assert_array_equal(flat_weights(loaded), flat_weights(untrained))
    fit(loaded)
    loaded.save_weights(tmp_path / "trained.weights.h5")
    with pytest.warns(UserWarning, match=r"it has not been built. Call optimizer.build\("):
        untrained.load_weights(tmp_path / "trained.weights.h5")
    np.testing.assert_array_equal(flat_weights(loaded), flat_weights(untrained))


def test_state_that_does_not_fit_is_refused():
    model = dense_model()
    optimizer = sgd_eigen()
    train_step(model, optimizer)(*data())
    store: dict[str, np.ndarray] = {}
    optimizer.save_own_variables(store)

    def built(optimizer, model=model):
        optimizer.build(model.trainable_variables)
        return optimizer

    other = built(KFAC(optimizer="adam"))
    numbers = (len(optimizer.variables), len(other.variables))
    assert numbers[0] < numbers[1]
    with pytest.raises(
        ValueError, match="holds {} optimizer variables and this .* has {}".format(*numbers)
    ):
        other.load_own_variables(store)
    wider = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(n) for n in (6, 3))])
    other = built(sgd_eigen(), wider)
    with pytest.raises(ValueError, match=r"shape \(4, 5\) for .* of shape \(4, 6\): .*model"):
        other.load_own_variables(store)
    assert int(other.iterations) == 0  # nothing was restored by halves
    other = built(KFAC(method="inverse"))
    with pytest.raises(ValueError, match="lacks rows_inverse of layer '.*first/kernel'"):
        other.load_own_variables(store)
    assert int(other.iterations) == 0
    # What the layers are shows only when a step is traced.
    other = built(KFAC(max_factor_size=4))
    other.load_own_variables(store)
    with pytest.raises(ValueError, match="layer '.*first/kernel' is not what .* row fac"):
        train_step(model, other)(*data())
