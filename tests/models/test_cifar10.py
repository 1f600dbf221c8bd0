"""Reading CIFAR-10, and what is wrong with files that are not it."""

import re

import keras
import numpy as np
import pytest

from models.data import cifar10
from models.data.dataset import Shard
from tfkfac.errors import InputError


def arrays(**changes):
    random = np.random.default_rng(0)
    parts = {
        "x_train": random.integers(0, 256, (12, 32, 32, 3), np.uint8),
        "y_train": random.integers(0, 10, 12).astype(np.uint8),
        "x_test": random.integers(0, 256, (5, 32, 32, 3), np.uint8),
        "y_test": np.array([0, 9, 3, 1, 2], np.uint8),
    }
    parts.update(changes)
    return {name: value for name, value in parts.items() if value is not None}


def write(path, **changes):
    np.savez(path, **arrays(**changes))
    return path


def test_reads_a_file(tmp_path):
    data = cifar10.load(write(tmp_path / "data.npz"))
    assert (data.input_shape, data.classes, data.test_examples) == ((32, 32, 3), 10, 5)
    assert data.steps_per_epoch(6, Shard()) == 2
    (test, labels), *rest = list(data.evaluation(5))
    assert not rest
    np.testing.assert_array_equal(labels, [0, 9, 3, 1, 2])
    np.testing.assert_array_equal(test, cifar10.normalise(arrays()["x_test"]))


def test_takes_the_first_images(tmp_path):
    data = cifar10.load(write(tmp_path / "data.npz"), train=8, test=2)
    assert (data.steps_per_epoch(1, Shard()), data.test_examples) == (8, 2)
    ((test, labels),) = list(data.evaluation(5))
    np.testing.assert_array_equal(labels, [0, 9])
    np.testing.assert_array_equal(test, cifar10.normalise(arrays()["x_test"][:2]))


def test_reads_labels_as_columns(tmp_path):
    path = write(tmp_path / "data.npz", y_test=np.array([[0], [9], [3], [1], [2]]))
    (_, labels), *_ = list(cifar10.load(path).evaluation(5))
    np.testing.assert_array_equal(labels, [0, 9, 3, 1, 2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "has no y_test, only x_train, y_train, x_test; expected x_train"),
        (
            {"x_train": np.zeros((12, 3, 32, 32), np.uint8)},
            r"x_train is uint8 of shape \(12, 3, 32, 32\); expected uint8 of shape \(N, 32, 32, 3",
        ),
        ({"x_test": np.zeros((5, 32, 32, 3), np.float32)}, "x_test is float32 of shape"),
        ({"x_test": np.zeros((0, 32, 32, 3), np.uint8)}, "x_test holds no images"),
        ({"y_train": np.zeros(11, np.uint8)}, r"y_train is uint8 of shape \(11,\); .*\(12,\)"),
        ({"y_train": np.zeros(12, np.float32)}, "y_train is float32 .*; expected integers"),
        ({"y_test": np.array([0, 1, 2, 3, 10])}, "y_test has labels from 0 to 10; expected 0 to 9"),
        ({"y_test": np.array([0, 1, 2, 3, -1])}, "y_test has labels from -1 to 3"),
    ],
)
def test_wrong_contents(tmp_path, changes, message):
    path = write(tmp_path / "data.npz", **changes)
    with pytest.raises(InputError, match=f"{re.escape(str(path))}: {message}"):
        cifar10.load(path)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"absent.npz: no such file; expected an .npz file with"):
        cifar10.load(tmp_path / "absent.npz")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_file(tmp_path, share):
    path = write(tmp_path / "data.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"data.npz: damaged or not an .npz file"):
        cifar10.load(path)


def test_a_damaged_member(tmp_path):
    path = write(tmp_path / "data.npz")
    whole = bytearray(path.read_bytes())
    whole[5000] ^= 0xFF  # within x_train: its checksum no longer fits
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"data.npz: damaged or not an .npz file"):
        cifar10.load(path)


def test_a_single_array_is_no_archive(tmp_path):
    np.save(tmp_path / "data.npy", np.zeros(3))
    (tmp_path / "data.npy").rename(tmp_path / "data.npz")
    with pytest.raises(InputError, match="data.npz: damaged or not an .npz file"):
        cifar10.load(tmp_path / "data.npz")


def test_without_a_connection_it_says_what_to_give(monkeypatch):
    def fail():
        raise Exception("URL fetch failure on https://example.org: None -- unreachable")

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", fail)
    with pytest.raises(InputError, match=r"URL fetch failure .* give a file with --data FILE.npz"):
        cifar10.load()


def test_downloaded_data(monkeypatch):
    parts = arrays()
    columns = [parts[name].reshape(-1, 1) for name in ("y_train", "y_test")]
    downloaded = (parts["x_train"], columns[0]), (parts["x_test"], columns[1])
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: downloaded)
    (_, labels), *_ = list(cifar10.load().evaluation(5))
    np.testing.assert_array_equal(labels, parts["y_test"])
