"""Readers of the original formats, on small files of the same form, and what they say of others."""

import gzip

import h5py
import numpy as np
import pytest
import tensorflow as tf

from models.data import jet_images
from models.data.cosmoflow_records import CosmoFlowRecords
from models.data.dataset import Shard
from models.data.examples import ExampleDataset, InMemory, Subset
from models.data.hdf5 import Collisions, WeatherMasks, WeatherYears
from tfkfac.errors import InputError


def write(path, **parts):
    with h5py.File(path, "w") as file:
        for name, values in parts.items():
            file[name.replace("__", "/")] = values
    return path


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


# ----------------------------------------------------------------------------------- the weather


def year(path, maps, seed=0, **changes):
    random = np.random.default_rng(seed)
    parts = {
        "images": (5 + 3 * random.standard_normal((maps, 16, 6, 8))).astype(np.float32),
        "boxes": random.uniform(0, 6, (maps, 15, 5)).astype(np.float32),
    }
    parts.update(changes)
    return write(path, **{name: part for name, part in parts.items() if part is not None})


def test_years_of_weather_are_one_collection(tmp_path):
    paths = [year(tmp_path / "1979.h5", 4, seed=1), year(tmp_path / "1980.h5", 3, seed=2)]
    data = WeatherYears(paths, normalisation=(np.full(16, 5.0), np.full(16, 3.0)))
    assert len(data) == 7
    maps, boxes = data.read(np.array([5, 0, 5, 3]))
    assert maps.shape == (4, 6, 8, 16) and maps.dtype == np.float32
    for place, (path, number) in enumerate([(1, 1), (0, 0), (1, 1), (0, 3)]):
        with h5py.File(paths[path]) as file:
            expected = (file["images"][number].transpose(1, 2, 0) - 5) / 3
            np.testing.assert_allclose(maps[place], expected, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(boxes[place], file["boxes"][number])


def test_weather_is_normalised_by_its_own_statistics(tmp_path):
    maps, _ = WeatherYears([year(tmp_path / "1979.h5", 5)]).read(np.arange(5))
    np.testing.assert_allclose(maps.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(maps.std((0, 1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": None}, "has no boxes, only images"),
        (
            {"images": np.zeros((4, 6, 8, 16))},
            r"images has shape \(4, 6, 8, 16\); expected \(N, 16, N, N\)",
        ),
        (
            {"boxes": np.zeros((4, 15, 4))},
            r"boxes has shape \(4, 15, 4\); expected \(N, 15, 5\)",
        ),
        ({"boxes": np.zeros((3, 15, 5))}, "lengths differ or are 0: images 4, boxes 3"),
    ],
)
def test_weather_of_another_form(tmp_path, changes, message):
    path = year(tmp_path / "1979.h5", 4, **changes)
    with pytest.raises(InputError, match=f"1979.h5: {message}"):
        WeatherYears([path])


def test_weather_that_is_damaged_or_missing(tmp_path):
    with pytest.raises(InputError, match="a.h5: no such file"):
        WeatherYears([tmp_path / "a.h5"])
    with pytest.raises(InputError, match="b.h5: damaged or not an HDF5 file"):
        WeatherYears([truncated(year(tmp_path / "b.h5", 4))])
    with pytest.raises(InputError, match="no HDF5 files"):
        WeatherYears([])


@pytest.fixture
def masks(tmp_path):
    write(
        tmp_path / "stats.h5", climate__minval=np.full(16, -1.0), climate__maxval=np.full(16, 3.0)
    )
    for number in range(2):
        write(
            tmp_path / f"data-{number}.h5",
            climate__data=np.full((4, 6, 16), number, np.float32),
            climate__labels_0=np.full((4, 6), 2 * number),
        )
    return tmp_path


def test_weather_with_masks(masks):
    data = WeatherMasks(masks)
    maps, labels = data.read(np.array([1, 0]))
    assert len(data) == 2
    np.testing.assert_allclose(maps[:, 0, 0, 0], [0.5, 0.25])
    np.testing.assert_array_equal(labels[:, 0, 0], [2, 0])
    assert maps.shape == (2, 4, 6, 16) and labels.shape == (2, 4, 6)


def test_weather_with_wrong_masks(masks, tmp_path):
    write(
        masks / "data-1.h5",
        climate__data=np.zeros((4, 6, 16)),
        climate__labels_0=np.full((4, 6), 3),
    )
    with pytest.raises(InputError, match=r"data-1.h5: .* labels from 3 to 3; expected 0 to 2"):
        WeatherMasks(masks).read(np.array([1]))
    write(masks / "data-1.h5", climate__data=np.zeros((4, 5, 16)))
    with pytest.raises(InputError, match=r"climate/data has shape \(4, 5, 16\); .*\(4, 6, 16\)"):
        WeatherMasks(masks).read(np.array([1]))
    with pytest.raises(InputError, match="no files data-"):
        WeatherMasks(tmp_path / "nothing")


# -------------------------------------------------------------------------------- the collisions


def test_collisions_as_histograms(tmp_path):
    random = np.random.default_rng(0)
    parts = {name: random.random((5, 4, 4)) for name in ("hist", "histEM", "histtrack")}
    path = write(
        tmp_path / "events.h5",
        **{f"all_events__{name}": part for name, part in parts.items()},
        all_events__y=np.array([0, 1, 1, 0, 1.0]),
    )
    images, labels = Collisions(path).read(np.array([4, 0]))
    for channel, name in enumerate(parts):
        np.testing.assert_allclose(images[..., channel], parts[name][[4, 0]], rtol=1e-6)
    assert list(labels) == [1, 0] and labels.dtype == np.int32


@pytest.mark.parametrize("channels_first", [True, False])
def test_collisions_as_images(tmp_path, channels_first):
    images = np.random.default_rng(0).random((3, 4, 4, 3))
    stored = images.transpose(0, 3, 1, 2) if channels_first else images
    path = write(
        tmp_path / "events.h5", all_events__images=stored, all_events__labels=np.ones(3, int)
    )
    np.testing.assert_allclose(Collisions(path).read(np.array([2]))[0], images[2:], rtol=1e-6)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"other": [1]}, "has no group all_events, only other"),
        ({"all_events__hist": np.zeros((2, 4, 4))}, "has no histEM, only hist"),
        (
            {"all_events__images": np.zeros((2, 4, 4, 2)), "all_events__labels": [0, 1]},
            r"images has shape \(2, 4, 4, 2\); expected",
        ),
        ({"all_events__images": np.zeros((2, 4, 4, 3))}, "all_events has no labels, only images"),
        (
            {"all_events__images": np.zeros((2, 4, 4, 3)), "all_events__labels": [1]},
            "lengths differ or are 0: images 2, labels 1",
        ),
    ],
)
def test_collisions_of_another_form(tmp_path, parts, message):
    with pytest.raises(InputError, match=f"events.h5: {message}"):
        Collisions(write(tmp_path / "events.h5", **parts))


def test_collisions_with_unknown_labels(tmp_path):
    path = write(
        tmp_path / "events.h5",
        all_events__images=np.zeros((2, 4, 4, 3)),
        all_events__labels=[0, 7],
    )
    with pytest.raises(InputError, match="label 7; expected 0 or 1"):
        Collisions(path).read(np.array([0, 1]))


# --------------------------------------------------------------------------------- the universes

SHAPE = (4, 4, 4, 2)


def universe(number, size=None, parameters=4, key="x"):
    counts = np.full(size or int(np.prod(SHAPE)), number, "<i2")
    features = {
        key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[counts.tobytes()])),
        "y": tf.train.Feature(
            float_list=tf.train.FloatList(value=np.arange(parameters) / 4 - number)
        ),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_records(path, records, compression=None):
    with tf.io.TFRecordWriter(str(path), options=compression) as writer:
        for record in records:
            writer.write(record)


def test_universes_plain_and_compressed(tmp_path):
    write_records(tmp_path / "a.tfrecord", [universe(0), universe(3)])
    write_records(tmp_path / "b.tfrecord", [universe(7)], "GZIP")
    data = CosmoFlowRecords(tmp_path, SHAPE)
    assert len(data) == 3
    inputs, parameters = data.read(np.array([2, 0, 1]))
    assert inputs.shape == (3, *SHAPE)
    np.testing.assert_allclose(inputs[:, 0, 0, 0, 0], np.log([8, 1, 4]), rtol=1e-6)
    np.testing.assert_allclose(parameters[:, 1], [-6.75, 0.25, -2.75])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (universe(1, size=9), r"x has 18 bytes; expected 256, int16 of shape \(4, 4, 4, 2\)"),
        (universe(1, parameters=3), "y has 3 numbers; expected 4"),
        (universe(1, key="z"), "examples have no x, only y, z"),
        (b"\xff\xff\xff", "records are no tf.train.Example"),
    ],
    ids=["size", "parameters", "key", "no record"],
)
def test_universes_of_another_form(tmp_path, record, message):
    write_records(tmp_path / "a.tfrecord", [record])
    with pytest.raises(InputError, match=f"a.tfrecord: {message}"):
        CosmoFlowRecords(tmp_path, SHAPE).read(np.array([0]))


def test_universes_that_are_damaged_or_missing(tmp_path):
    with pytest.raises(InputError, match=r"no files \*.tfrecord"):
        CosmoFlowRecords(tmp_path)
    write_records(tmp_path / "a.tfrecord", [universe(0)])
    whole = (tmp_path / "a.tfrecord").read_bytes()
    (tmp_path / "a.tfrecord").write_bytes(whole[:-10])
    with pytest.raises(InputError, match="a.tfrecord: cut short"):
        CosmoFlowRecords(tmp_path, SHAPE)
    (tmp_path / "a.tfrecord").write_bytes(whole[:40] + b"!" + whole[41:])
    data = CosmoFlowRecords(tmp_path, SHAPE)
    with pytest.raises(InputError, match="a.tfrecord: damaged: the record at byte 0"):
        data.read(np.array([0]))
    (tmp_path / "a.tfrecord").write_bytes(gzip.compress(whole)[:-30])
    with pytest.raises(InputError, match="a.tfrecord: damaged"):
        CosmoFlowRecords(tmp_path, SHAPE).read(np.array([0]))


# -------------------------------------------------------------------------------------- the jets


def jets(path, **changes):
    parts = {
        "classes": np.array(["bbbb", "zbb", "ttbar"]),
        "x_fixedr": np.linspace(0, 0.01, 10 * 24 * 24, dtype=np.float32).reshape(10, 24, 24),
        "y_fixedr": np.arange(10, dtype=np.uint8) % 3,
    }
    np.savez(path, **{k: v for k, v in {**parts, **changes}.items() if v is not None})
    return path


def test_jet_images(tmp_path):
    data = jet_images.load(jets(tmp_path / "jets.npz"))
    assert data.input_shape == (24, 24, 1)
    assert (len(data.train), data.test_examples) == (8, 2)
    images, labels = data.test.read(np.array([1]))
    assert list(labels) == [0]
    assert np.max(np.asarray(images)) == pytest.approx(np.log10(1001), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_fixedr": None}, "has no y_fixedr, only classes, x_fixedr"),
        ({"x_fixedr": np.zeros((10, 24))}, r"x_fixedr is float64 of shape \(10, 24\); expected"),
        ({"y_fixedr": np.arange(9)}, r"y_fixedr is int64 of shape \(9,\); .* \(10,\)"),
        ({"y_fixedr": np.arange(10)}, "y_fixedr has labels from 0 to 9; expected 0 to 2"),
    ],
)
def test_jet_images_of_another_form(tmp_path, changes, message):
    with pytest.raises(InputError, match=f"jets.npz: {message}"):
        jet_images.load(jets(tmp_path / "jets.npz", **changes))


def test_jet_images_that_are_damaged_or_missing(tmp_path):
    with pytest.raises(InputError, match="jets.npz: damaged"):
        jet_images.load(truncated(jets(tmp_path / "jets.npz")))
    with pytest.raises(InputError, match="no such file"):
        jet_images.load(tmp_path / "other.npz")


# ------------------------------------------------------------------------------------ the epochs


def numbered(count, augment=None):
    inputs = np.arange(count)[:, None] * np.ones((1, 2))
    targets = {"b": np.arange(count), "a": -np.arange(count)}
    examples = InMemory(inputs, targets)
    return ExampleDataset("numbers", Subset(examples, range(count)), examples, augment)


def order(batches):
    found = []
    for inputs, targets in batches.as_numpy_iterator():
        np.testing.assert_array_equal(targets["b"], inputs[:, 0])
        np.testing.assert_array_equal(targets["a"], -inputs[:, 0])
        found += list(targets["b"])
    return found


def test_epochs_of_examples_depend_on_seed_and_epoch_alone():
    data = numbered(13)
    assert data.steps_per_epoch(4) == 3
    first = order(data.training(4, seed=1).take(6))
    assert len(set(first[:12])) == 12 and first[:12] != first[12:]
    assert order(data.training(4, seed=1, first_epoch=1).take(3)) == first[12:]
    assert order(data.training(4, seed=2).take(3)) != first[:12]
    element = data.training(4, seed=1).element_spec
    assert element[0].shape == (4, 2) and element[1]["a"].shape == (4,)


def test_ranks_share_the_examples():
    data = numbered(13)
    shares = [order(data.training(3, 1, shard=Shard(rank, 2)).take(2)) for rank in range(2)]
    assert len(set(shares[0]) | set(shares[1])) == 12
    tests = [order(data.evaluation(4, Shard(rank, 2))) for rank in range(2)]
    assert tests == [list(range(0, 13, 2)), list(range(1, 13, 2))]
    with pytest.raises(InputError, match="numbers: 13 training examples do not fill one batch"):
        data.steps_per_epoch(7, Shard(0, 2))


def test_augmentation_has_a_generator_for_each_batch():
    def replaced(inputs, targets, random):
        return random.random(inputs.shape).astype(np.float32), targets

    data = numbered(8, replaced)
    epochs = [
        np.concatenate([inputs for inputs, _ in data.training(4, seed).take(4).as_numpy_iterator()])
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(epochs[0], epochs[1])
    assert len(np.unique(np.concatenate([epochs[0], epochs[2]]))) == 64
