"""Order, shards and augmentation of images in memory."""

import numpy as np
import pytest
import tensorflow as tf

from models.data import cifar10, digits
from models.data.arrays import ArrayDataset
from models.data.dataset import Shard
from tfkfac.errors import InputError

EXAMPLES, BATCH = 50, 8


def numbered(augment=None):
    """Images whose only pixel is their number, so that an order can be read off."""
    numbers = np.arange(EXAMPLES, dtype=np.int32)
    return ArrayDataset(
        "numbered",
        x_train=numbers.reshape(-1, 1, 1, 1),
        y_train=numbers,
        x_test=numbers[:11].reshape(-1, 1, 1, 1),
        y_test=numbers[:11],
        classes=EXAMPLES,
        prepare=lambda images: tf.cast(images, tf.float32),
        augment=augment,
    )


def epochs(data, count, first_epoch=0, seed=1, shard=None):
    """For each epoch, the images' values, steps x batch, after checking them against labels."""
    steps = data.steps_per_epoch(BATCH, shard or Shard())
    batches = data.training(BATCH, seed, first_epoch, shard).take(count * steps)
    rows = []
    for images, labels in batches.as_numpy_iterator():
        assert images.dtype == np.float32
        np.testing.assert_array_equal(images.reshape(-1), labels)
        rows.append(labels)
    return np.array(rows).reshape(count, steps, BATCH)


def test_an_epoch_has_each_example_at_most_once():
    for order in epochs(numbered(), 3):
        assert len(set(order.reshape(-1))) == EXAMPLES // BATCH * BATCH


def test_order_depends_on_seed_and_epoch_alone():
    data = numbered()
    first = epochs(data, 3)
    np.testing.assert_array_equal(epochs(numbered(), 3), first)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(epochs(data, 1, seed=2)[0], first[0])


def test_a_resumed_order_is_the_uninterrupted_one():
    data = numbered()
    np.testing.assert_array_equal(epochs(data, 2, first_epoch=1), epochs(data, 3)[1:])


def test_ranks_share_an_epoch_without_overlap():
    data = numbered()
    shares = [epochs(data, 2, shard=Shard(rank, 3)) for rank in range(3)]
    assert {share.shape for share in shares} == {(2, 2, BATCH)}  # 50 // (8 * 3) steps each
    for epoch in range(2):
        seen = np.concatenate([share[epoch].reshape(-1) for share in shares])
        assert len(set(seen)) == 3 * 2 * BATCH


def test_evaluation_has_each_test_example_once_in_order():
    batches = list(numbered().evaluation(4).as_numpy_iterator())
    assert [len(labels) for _, labels in batches] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), range(11))


def test_ranks_share_the_evaluation_without_overlap():
    shares = [
        np.concatenate([y for _, y in numbered().evaluation(4, Shard(rank, 3))])
        for rank in range(3)
    ]
    assert [len(share) for share in shares] == [4, 4, 3]
    assert sorted(np.concatenate(shares)) == list(range(11))


def test_too_large_a_batch():
    with pytest.raises(InputError, match="numbered: 50 training examples do not fill one batch"):
        numbered().training(26, 1, 0, Shard(0, 2))


@pytest.mark.parametrize(("rank", "size"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_is_one_of_the_ranks(rank, size):
    with pytest.raises(ValueError, match=f"rank {rank} is not one of {size} ranks"):
        Shard(rank, size)


def test_augmentation_keys_differ_by_batch_epoch_and_rank_and_repeat_on_resume():
    def draw(images, key):
        return tf.random.stateless_uniform(tf.shape(images), key)

    def values(first_epoch, count, shard):
        steps = count * data.steps_per_epoch(BATCH, shard)
        batches = data.training(BATCH, 1, first_epoch, shard).take(steps)
        return [float(images[0, 0, 0, 0]) for images, _ in batches]

    data = numbered(draw)
    shares = [values(0, 2, Shard(rank, 2)) for rank in range(2)]
    assert len(set(shares[0] + shares[1])) == 2 * 2 * 3  # ranks x epochs x steps
    assert values(1, 1, Shard(1, 2)) == shares[1][3:]


def images(count):
    return np.random.default_rng(0).integers(1, 256, (count, 32, 32, 3), np.uint8)


def test_cifar_augmentation_is_a_crop_of_the_padded_image_perhaps_mirrored():
    originals = images(64)
    augmented = cifar10.augment(tf.constant(originals), tf.constant([3, 4])).numpy()
    assert augmented.shape == originals.shape
    padded = np.pad(originals, ((0, 0), (4, 4), (4, 4), (0, 0)))
    padded = np.concatenate([padded[..., None], padded[:, :, ::-1, :, None]], axis=-1)
    found = []
    for original, result in zip(padded, augmented, strict=True):
        pixels = result * cifar10.STANDARD_DEVIATION + cifar10.MEAN
        pixels = np.rint(pixels * 255).astype(np.uint8)
        places = [
            (top, left, mirrored)
            for top in range(9)
            for left in range(9)
            for mirrored in range(2)
            if np.array_equal(original[top : top + 32, left : left + 32, :, mirrored], pixels)
        ]
        assert len(places) == 1
        found += places
    tops, lefts, mirrored = (np.array(column) for column in zip(*found, strict=True))
    assert len(set(tops)) == len(set(lefts)) == 9  # of 64 draws
    assert 16 < mirrored.sum() < 48
    assert np.any(tops != lefts)


def test_cifar_augmentation_repeats_with_its_key():
    batch = tf.constant(images(4))
    first, again, other = (
        cifar10.augment(batch, tf.constant(key)).numpy() for key in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_cifar_normalisation():
    pixel = np.array([[[[0, 127, 255]]]], np.uint8)
    expected = [
        (0 - 0.4914) / 0.2470,
        (127 / 255 - 0.4822) / 0.2435,
        (1 - 0.4465) / 0.2616,
    ]
    np.testing.assert_allclose(cifar10.normalise(pixel)[0, 0, 0], expected, rtol=1e-5)


def test_digits_are_split_and_normalised():
    data = digits.load()
    assert data.input_shape == (8, 8, 1)
    assert data.classes == 10
    assert data.test_examples == 360
    assert data.steps_per_epoch(479, Shard()) == 3  # 1,437 examples
    batch, labels = next(data.training(1437, 0).as_numpy_iterator())
    assert abs(batch.mean()) < 0.001
    assert batch.std() == pytest.approx(1, abs=0.001)
    assert set(labels) == set(range(10))
    test = np.concatenate([x for x, _ in data.evaluation(100)])
    both = np.concatenate([batch, test]).reshape(1797, 64)
    assert len(np.unique(both, axis=0)) == len(np.unique(digits_of_sklearn(), axis=0))


def digits_of_sklearn():
    from sklearn.datasets import load_digits

    return load_digits().data
