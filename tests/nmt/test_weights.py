"""Weight files: what they hold, what is refused, and a disk that is full."""

import shutil
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest

from nmt import weights
from tfkfac.errors import InputError


def make_model(seed=0, units=3):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(units), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile(keras.optimizers.Adam(), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def train(model, steps):
    generator = np.random.default_rng(0)
    inputs, targets = generator.normal(size=(8, 4)), generator.normal(size=(8, 2))
    for _ in range(steps):
        model.train_on_batch(inputs, targets)


def values(model):
    return [np.asarray(v) for v in (*model.variables, *model.optimizer.variables)]


def test_a_training_goes_on_as_if_it_had_not_been_interrupted(tmp_path):
    """Dropout included, whose random numbers Keras does not save."""
    whole, broken = make_model(), make_model()
    train(broken, 2)
    weights.save(broken, tmp_path / "last.weights.h5", {"update": 2})
    other = make_model(seed=1)
    assert weights.restore(other, tmp_path / "last.weights.h5") == {"update": 2}
    train(other, 2)
    train(whole, 4)
    for ours, theirs in zip(values(other), values(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [file.name for file in tmp_path.iterdir()] == ["last.weights.h5"]


def test_a_copy_holds_weights_alone(tmp_path):
    model = make_model()
    train(model, 1)
    weights.save(model, tmp_path / "last.weights.h5", copies=[tmp_path / "best.weights.h5"])
    with h5py.File(tmp_path / "best.weights.h5") as file:
        assert not {"optimizer", "training"} & set(file)
    with pytest.raises(InputError, match="best.weights.h5: holds no training's state"):
        weights.read_progress(tmp_path / "best.weights.h5")
    with pytest.raises(InputError, match="best.weights.h5: does not fit"):
        weights.restore(make_model(), tmp_path / "best.weights.h5")
    other = make_model(seed=1)
    weights.load(other, tmp_path / "best.weights.h5")
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_average_is_the_mean_of_each_number(tmp_path):
    models = [make_model(seed) for seed in range(3)]
    paths = [tmp_path / f"{seed}.weights.h5" for seed in range(3)]
    for model, path in zip(models, paths, strict=True):
        weights.save(model, path)
    weights.average(paths, tmp_path / "average.weights.h5")
    result = keras.Sequential([keras.Input((4,)), *make_model(seed=9).layers])
    weights.load(result, tmp_path / "average.weights.h5")
    for number, mean in enumerate(result.get_weights()):
        expected = np.mean([model.get_weights()[number] for model in models], axis=0)
        np.testing.assert_allclose(mean, expected, rtol=1e-6)


def test_files_that_do_not_fit(tmp_path):
    path = tmp_path / "a.weights.h5"
    weights.save(make_model(), path)
    weights.save(make_model(units=5), tmp_path / "b.weights.h5")
    with pytest.raises(InputError, match="b.weights.h5: does not fit the model"):
        weights.load(make_model(), tmp_path / "b.weights.h5")
    with pytest.raises(InputError, match="b.weights.h5: not of the same model as"):
        weights.average([path, tmp_path / "b.weights.h5"], tmp_path / "c.weights.h5")
    sgd = make_model()
    sgd.compile(keras.optimizers.SGD(momentum=0.9), "mse")
    sgd.optimizer.build(sgd.trainable_variables)
    with pytest.raises(InputError, match="a.weights.h5: does not fit"):
        weights.restore(sgd, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="a.weights.h5: no weight file, or a damaged one"):
        weights.load(make_model(), path)
    path.write_text("text")
    with pytest.raises(InputError, match="a.weights.h5: no weight file, or a damaged one"):
        weights.read_progress(path)
    with pytest.raises(InputError, match="absent.weights.h5: no such file"):
        weights.load(make_model(), tmp_path / "absent.weights.h5")
    assert not (tmp_path / "c.weights.h5").exists()


def test_a_disk_that_is_too_small_is_noticed_beforehand(tmp_path, monkeypatch):
    model = make_model()
    needed = sum(value.nbytes for value in values(model))
    for free, refused in ((needed, False), (needed - 1, True)):
        usage = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr(weights.shutil, "disk_usage", lambda path, usage=usage: usage)
        if not refused:
            weights.check_room(model, tmp_path / "not" / "there")
            continue
        with pytest.raises(InputError, match="there: a checkpoint takes 0.0 MB, but the disk has"):
            weights.check_room(model, tmp_path / "not" / "there")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """Played by a limit on the size of files, in a process of its own."""
    path = tmp_path / "last.weights.h5"
    weights.save(make_model(), path, {"update": 1})
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from tests.nmt.test_weights import make_model\n"
        "from nmt import weights\n"
        "from tfkfac.command_line import exit_code\n"
        "model = make_model(units=1000)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        f"sys.exit(exit_code(lambda: weights.save(model, Path({str(path)!r}))))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    last_line = result.stderr.splitlines()[-1]
    assert last_line == f"error: {path}: cannot be written (File too large)"
    assert result.returncode == 2
    assert weights.read_progress(path) == {"update": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.weights.h5"]
