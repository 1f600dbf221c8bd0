"""Reading photographs from folders and TFRecord files made here."""

import re

import numpy as np
import pytest
import tensorflow as tf

from models.data import imagenet, jpeg
from models.data.dataset import Shard
from models.data.imagenet import ImageFolders, ImageRecords, count_records
from tfkfac.errors import InputError

CLASSES = ("ant", "bee", "cat")
SIZE = 16


def encoded(label, number, height=20, width=30):
    """A JPEG of one grey, so that a crop shows which image it is from."""
    grey = 10 + 80 * label + 5 * number
    pixels = np.full((height, width, 3), grey, np.uint8)
    return tf.io.encode_jpeg(pixels, quality=100).numpy()


def grey_of(image):
    """The grey value of a normalised image of one grey."""
    pixels = np.rint((image * jpeg.STANDARD_DEVIATION + jpeg.MEAN) * 255)
    assert pixels.min() == pixels.max()
    return int(pixels.min())


@pytest.fixture
def folders(tmp_path):
    """8 training and 2 test images in each of three classes."""
    for part, count in (("train", 8), ("val", 2)):
        for label, name in enumerate(CLASSES):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number}.JPEG").write_bytes(encoded(label, number))
    return tmp_path


def example(label, number, **changes):
    features = {
        "image/encoded": tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[encoded(label, number)])
        ),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label + 1])),
    }
    features.update(changes)
    kept = {name: feature for name, feature in features.items() if feature is not None}
    return tf.train.Example(features=tf.train.Features(feature=kept)).SerializeToString()


def write_records(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


@pytest.fixture
def records(tmp_path):
    """The same images in two training files, of 11 and 13, and one test file."""
    images = [(label, number) for label in range(3) for number in range(8)]
    write_records(tmp_path / "train-00000-of-00002", [example(*image) for image in images[:11]])
    write_records(tmp_path / "train-00001-of-00002", [example(*image) for image in images[11:]])
    write_records(
        tmp_path / "validation-00000-of-00001",
        [example(label, number) for label in range(3) for number in range(2)],
    )
    return tmp_path


def open_folders(root):
    return ImageFolders(root, SIZE)


def open_records(root):
    return ImageRecords(root, SIZE, classes=3)


@pytest.fixture(params=["folders", "records"])
def data(request):
    root = request.getfixturevalue(request.param)
    return {"folders": open_folders, "records": open_records}[request.param](root)


def greys(batches):
    """Grey values of all images, after checking each against its label."""
    found = []
    for images, labels in batches.as_numpy_iterator():
        assert images.dtype == np.float32
        assert images.shape[1:] == (SIZE, SIZE, 3)
        for image, label in zip(images, labels, strict=True):
            grey = grey_of(image)
            assert (grey - 10) // 80 == label
            found.append(grey)
    return found


ALL_TRAINING = {10 + 80 * label + 5 * number for label in range(3) for number in range(8)}
ALL_TEST = {10 + 80 * label + 5 * number for label in range(3) for number in range(2)}


def test_an_epoch_has_every_image_once(data):
    assert (data.input_shape, data.classes, data.test_examples) == ((SIZE, SIZE, 3), 3, 6)
    assert data.steps_per_epoch(8, Shard()) == 3
    found = greys(data.training(8, seed=1).take(3))
    assert sorted(found) == sorted(ALL_TRAINING)


def test_order_depends_on_seed_and_epoch_alone(data):
    first = greys(data.training(8, seed=1).take(6))
    assert greys(data.training(8, seed=1).take(6)) == first
    assert first[:24] != first[24:]
    assert sorted(first[24:]) == sorted(ALL_TRAINING)
    assert greys(data.training(8, seed=1, first_epoch=1).take(3)) == first[24:]
    assert greys(data.training(8, seed=2).take(3)) != first[:24]
    tf.random.set_seed(0)  # the process's own seed has no part in it
    assert greys(data.training(8, seed=1).take(6)) == first


def test_ranks_do_not_overlap(data):
    assert data.steps_per_epoch(5, Shard(0, 2)) == 2
    shares = [greys(data.training(5, 1, 0, Shard(rank, 2)).take(2)) for rank in range(2)]
    assert len(set(shares[0]) | set(shares[1])) == 20
    tests = [greys(data.evaluation(2, Shard(rank, 2))) for rank in range(2)]
    assert len(tests[0]) == len(tests[1]) == 3
    assert set(tests[0]) | set(tests[1]) == ALL_TEST


def test_a_rank_with_too_few_records_repeats_its_own(records):
    """24 examples give 2 ranks 12 steps of 1, but one of the files has 11."""
    data = open_records(records)
    shares = [greys(data.training(1, 1, 0, Shard(rank, 2)).take(12)) for rank in range(2)]
    assert sorted(len(set(share)) for share in shares) == [11, 12]
    assert not set(shares[0]) & set(shares[1])


def test_evaluation_crops_the_centre():
    """224 of 256 pixels: with a shorter side of 256 and a size of 224 nothing is resized."""
    pixels = np.random.default_rng(0).integers(0, 256, (256, 300, 3), np.uint8)
    contents = tf.io.encode_jpeg(pixels, quality=95, chroma_downsampling=False)
    decoded = tf.io.decode_jpeg(contents).numpy()[16:240, 38:262]
    expected = (decoded / 255 - jpeg.MEAN) / jpeg.STANDARD_DEVIATION
    np.testing.assert_allclose(jpeg.evaluation_input(contents, 224), expected, atol=1e-5)


def test_training_crops_are_parts_of_the_image():
    """In an image whose red rises downwards and green rightwards, a crop's corners tell it."""
    rows, columns = np.meshgrid(np.arange(200), np.arange(250), indexing="ij")
    pixels = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    contents = tf.io.encode_jpeg(pixels, quality=100, chroma_downsampling=False)
    heights, widths, mirrored = [], [], []
    for number in range(60):
        image = jpeg.training_input(contents, tf.constant([7, number], tf.int64), 32).numpy()
        image = (image * jpeg.STANDARD_DEVIATION + jpeg.MEAN) * 255
        height = (image[-1, 16, 0] - image[0, 16, 0]) * 32 / 31
        width = (image[16, -1, 1] - image[16, 0, 1]) * 32 / 31
        heights.append(height)
        widths.append(abs(width))
        mirrored.append(width < 0)
    area = np.array(heights) * np.array(widths) / (200 * 250)
    ratio = np.array(widths) / np.array(heights)
    assert area.min() > 0.06
    assert area.min() < 0.3
    assert 0.6 < area.max() < 1.03
    assert ratio.min() > 0.7
    assert ratio.min() < 0.9
    assert 1.1 < ratio.max() < 1.42
    assert 15 < sum(mirrored) < 45


def test_reads_cmyk_and_png(tmp_path):
    """ImageNet holds a PNG and some CMYK images, all named JPEG."""
    from PIL import Image

    path = tmp_path / "image"
    Image.new("CMYK", (30, 20), (0, 0, 0, 155)).save(path, "JPEG", quality=100)
    png = tf.io.encode_png(np.full((20, 30, 3), 100, np.uint8))
    for contents in (path.read_bytes(), png):
        assert grey_of(jpeg.evaluation_input(jpeg.as_jpeg(contents, "image"), SIZE).numpy()) == 100


def test_load_tells_the_layouts_apart(folders, tmp_path_factory):
    assert isinstance(imagenet.load(folders), ImageFolders)
    other = tmp_path_factory.mktemp("records")
    write_records(other / "train-0", [example(0, 0)])
    write_records(other / "validation-0", [example(0, 0)])
    assert isinstance(imagenet.load(other), ImageRecords)


def test_nothing_to_load(tmp_path):
    with pytest.raises(InputError, match="needs --data DIRECTORY holding train/CLASS"):
        imagenet.load(None)
    with pytest.raises(InputError, match="absent: no such directory"):
        imagenet.load(tmp_path / "absent")
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match=f"{tmp_path}: expected train/CLASS"):
        imagenet.load(tmp_path)
    (tmp_path / "val").mkdir()
    with pytest.raises(InputError, match="train: no class folders"):
        imagenet.load(tmp_path)


def test_a_class_without_images(folders):
    for file in (folders / "val" / "bee").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="val/bee: no images"):
        imagenet.load(folders)


def test_a_class_in_one_part_only(folders):
    (folders / "train" / "dog").mkdir()
    with pytest.raises(InputError, match="class folder dog is in only one of train and val"):
        imagenet.load(folders)


def test_a_file_that_is_no_image_is_named(folders):
    bad = folders / "val" / "bee" / "1.JPEG"
    bad.write_text("404 not found")
    with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(str(bad))):
        list(open_folders(folders).evaluation(2))


def test_counting_records(records):
    assert count_records(str(records / "train-00000-of-00002")) == 11
    assert count_records(str(records / "train-00001-of-00002")) == 13


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (5, r"damaged .* \(at byte 0\)"),
        (-1, r"cut short: the record at byte \d+ has no end"),
        (-7, r"cut short: the record at byte \d+ has no end"),
    ],
)
def test_truncated_records(records, kept, said):
    path = records / "train-00001-of-00002"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=f"train-00001-of-00002: {said}"):
        open_records(records)


def test_empty_record_file(records):
    (records / "train-00000-of-00002").write_bytes(b"")
    with pytest.raises(InputError, match="train-00000-of-00002: holds no records"):
        open_records(records)


def test_records_without_a_key(records):
    path = records / "validation-00000-of-00001"
    write_records(path, [example(0, 0, **{"image/class/label": None})])
    with pytest.raises(InputError, match="have no image/class/label, only image/encoded"):
        open_records(records)


def test_records_that_are_no_examples(records):
    write_records(records / "train-00000-of-00002", [b"\xff\xff\xff"])
    with pytest.raises(InputError, match="train-00000-of-00002: records are no tf.train.Example"):
        open_records(records)


def test_labels_out_of_range(records):
    write_records(records / "validation-00000-of-00001", [example(3, 0)])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"label outside 1 to 3:.*\n?.*4"):
        list(open_records(records).evaluation(2))


def test_too_few_files_for_the_ranks(records):
    with pytest.raises(InputError, match=r"2 TFRecord files train-\* are too few for 3 ranks"):
        open_records(records).training(1, 1, 0, Shard(0, 3))
