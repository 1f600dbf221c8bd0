"""Batches: every pair once, bounded and tight, in an order that resumes and is shared by ranks."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.batching import TokenBatches, padded
from nmt.corpus import EncodedPairs, Sequences
from nmt.subwords import END, PAD
from tfkfac.errors import InputError


def corpus(lengths):
    """Pairs of the given lengths, whose ids tell them apart: the first is the pair's number."""
    sides = []
    for side in range(2):
        sequences = [
            [4 + number, *range(4, 3 + pair[side])][: pair[side]]
            for number, pair in enumerate(lengths)
        ]
        sides.append(Sequences.of(sequences))
    return EncodedPairs(*sides)


def random_lengths(size, seed=0, spread=3):
    generator = np.random.default_rng(seed)
    source = 1 + generator.poisson(12, size)
    target = np.maximum(1, source + generator.integers(-spread, spread + 1, size))
    return np.stack([source, target], axis=1).tolist()


def numbers(batch):
    return [row[0] - 4 for row in batch["source"].tolist()]


LENGTHS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=120)


@settings(deadline=None)
@given(
    lengths=LENGTHS,
    extra=st.integers(0, 200),
    seed=st.integers(0, 2**64 - 1),
    shuffle=st.booleans(),
    shapes=st.integers(1, 10),
    epoch=st.integers(0, 5),
)
def test_every_pair_comes_once_within_bounds(lengths, extra, seed, shuffle, shapes, epoch):
    pairs = corpus(lengths)
    tokens = max(itertools.chain(*lengths)) + 1 + extra
    batches = TokenBatches(pairs, tokens, seed, shuffle, shapes)
    seen: list[int] = []
    occurring = set()
    positions = used = 0
    steps = list(batches.batches(epoch))
    assert len(steps) == len(batches)
    for step, batch in enumerate(steps):
        rows = batches.rows(epoch, step).tolist()
        assert numbers(batch) == rows
        seen += rows
        for name, side in (("source", pairs.source), ("target", pairs.target)):
            array = batch[name]
            assert array.dtype == np.int32 and array.size <= tokens
            positions += array.size
            for row, number in zip(array.tolist(), rows, strict=True):
                ids = list(side[number])
                assert row == ids + [END] + [PAD] * (len(row) - len(ids) - 1)
                used += len(ids) + 1
        occurring.add((batch["source"].shape[1], batch["target"].shape[1]))
    assert sorted(seen) == list(range(len(lengths)))
    assert sorted(occurring) == batches.shapes and len(occurring) <= shapes
    assert batches.padding == pytest.approx(1 - used / positions)


@settings(deadline=None)
@given(
    lengths=LENGTHS.filter(lambda lengths: len(lengths) >= 2),
    seed=st.integers(0, 9),
    shapes=st.integers(1, 10),
    data=st.data(),
)
def test_ranks_share_each_epoch(lengths, seed, shapes, data):
    ranks = data.draw(st.integers(2, min(5, len(lengths))))
    tokens = 2 * max(itertools.chain(*lengths)) + 2 + data.draw(st.integers(0, 100))
    shards = [
        TokenBatches(corpus(lengths), tokens, seed, True, shapes, rank, ranks)
        for rank in range(ranks)
    ]
    assert len({len(shard) for shard in shards}) == 1
    seen: list[int] = []
    for batches in zip(*(shard.batches(1) for shard in shards), strict=True):
        widths = {tuple(array.shape[1] for array in batch.values()) for batch in batches}
        assert len(widths) == 1
        for batch in batches:
            assert 0 < batch["source"].size <= tokens and 0 < batch["target"].size <= tokens
            seen += numbers(batch)
    assert sorted(seen) == list(range(len(lengths)))


@settings(deadline=None)
@given(lengths=LENGTHS, shuffle=st.booleans(), ranks=st.sampled_from([1, 3]), data=st.data())
def test_resuming_anywhere_continues_the_same_order(lengths, shuffle, ranks, data):
    pairs = corpus(lengths * 3)
    arguments = (pairs, 64, 7, shuffle, 4, ranks - 1, ranks)
    uninterrupted = TokenBatches(*arguments)
    total = 3 * len(uninterrupted)
    expected = list(itertools.islice(uninterrupted.endless(), total))
    done = data.draw(st.integers(0, total - 1))
    epoch, step = divmod(done, len(uninterrupted))
    resumed = itertools.islice(TokenBatches(*arguments).endless(epoch, step), total - done)
    for batch, other in zip(resumed, expected[done:], strict=True):
        np.testing.assert_array_equal(batch["source"], other["source"])
        np.testing.assert_array_equal(batch["target"], other["target"])


def test_epochs_and_seeds_differ_in_order_and_in_company():
    pairs = corpus(random_lengths(300))

    def order(seed, epoch, **options):
        return [
            numbers(batch) for batch in TokenBatches(pairs, 100, seed, **options).batches(epoch)
        ]

    orders = [order(0, 0), order(0, 1), order(1, 0), order(1, 1)]
    assert order(0, 1) == orders[1]
    for one, other in itertools.combinations(orders, 2):
        assert one != other
        assert {frozenset(batch) for batch in one} != {frozenset(batch) for batch in other}
    assert order(0, 0, shuffle=False) == order(5, 3, shuffle=False)


def test_the_order_of_an_epoch_never_changes():
    """A training that is resumed with a newer version must see the same batches."""
    batches = TokenBatches(corpus([(3, 3), (3, 3), (3, 2), (8, 9), (9, 9), (2, 9)] * 2), 20, 3)
    expected = [[11, 5], [8, 2, 1, 6, 0], [4, 10], [3, 9], [7]]
    assert [numbers(batch) for batch in batches.batches(2)] == expected


def test_shuffled_batches_are_not_ordered_by_length():
    batches = TokenBatches(corpus(random_lengths(2000)), 200)
    widths = [batch["source"].shape[1] for batch in batches.batches()]
    rises = np.mean(np.diff(widths) > 0)
    assert 0.3 < rises < 0.6 and len(set(widths)) > 5


def test_the_cuts_are_the_best_there_are():
    """Two lengths that never meet need two boxes, and no padding at all."""
    batches = TokenBatches(corpus([(5, 5)] * 40 + [(9, 2)] * 40), 100, shapes=2)
    assert batches.shapes == [(6, 6), (10, 3)]
    assert batches.padding == 0
    # 16 and 10 pairs fill a batch; 8 of the former are left, which need no larger box.
    assert sorted(len(numbers(batch)) for batch in batches.batches()) == [8, 10, 10, 10, 10, 16, 16]


def test_leftovers_of_a_box_are_padded_to_the_enclosing_one():
    # 5 of the first and 2 of the second fill a batch of 20 tokens.
    batches = TokenBatches(corpus([(3, 3)] * 6 + [(9, 9)] * 3), 20, shapes=2)
    assert batches.shapes == [(4, 4), (10, 10)]
    shapes = sorted(batch["source"].shape for batch in batches.batches())
    assert shapes == [(2, 10), (2, 10), (5, 4)]
    assert batches.padding == pytest.approx(1 - (6 * 8 + 3 * 20) / (5 * 8 + 4 * 20))


@pytest.mark.parametrize(("shapes", "most"), [(8, 0.25), (16, 0.15), (32, 0.09), (64, 0.06)])
def test_padding_shrinks_with_the_number_of_shapes(shapes, most):
    pairs = corpus(random_lengths(20_000))
    batches = TokenBatches(pairs, 1024, shapes=shapes)
    assert len(batches.shapes) <= shapes
    assert batches.padding < most
    # Batches are full: hardly more steps than all positions of the larger side need.
    lengths = np.stack([pairs.source.lengths, pairs.target.lengths]) + 1
    assert len(batches) < 1.1 * lengths.max(axis=0).sum() / 1024 / (1 - batches.padding)


def test_a_batch_of_one_shape_has_one_size():
    """So that a step compiled for fixed shapes compiles one more for a smaller batch at most."""
    batches = TokenBatches(corpus(random_lengths(3000)), 300, shapes=10)
    sizes = {tuple(array.shape for array in batch.values()) for batch in batches.batches()}
    assert len(sizes) <= len(batches.shapes) + 1


def test_padding_to_a_width():
    sequences = Sequences.of([[7, 8], [], [9, 9, 9]])
    rows = padded(sequences, np.array([2, 0, 1]), 5)
    assert rows.dtype == np.int32
    assert rows.tolist() == [
        [9, 9, 9, END, PAD],
        [7, 8, END, PAD, PAD],
        [END, PAD, PAD, PAD, PAD],
    ]


def test_bad_arguments():
    pairs = corpus([(3, 9), (2, 2)])
    with pytest.raises(InputError, match="9 tokens is too small for a sentence of 9 subwords and"):
        TokenBatches(pairs, 9)
    assert len(TokenBatches(pairs, 10)) >= 1
    with pytest.raises(InputError, match="2 sentence pairs are too few for 3 ranks"):
        TokenBatches(pairs, 100, ranks=3)
    with pytest.raises(InputError, match="cannot be shared equally among 2 ranks; use more tokens"):
        TokenBatches(corpus([(9, 9)] * 3), 10, ranks=2)
    with pytest.raises(ValueError, match="rank 2 is not one of 2 ranks"):
        TokenBatches(pairs, 100, rank=2, ranks=2)
    batches = TokenBatches(pairs, 100)
    assert list(batches.batches(0, len(batches))) == []
    with pytest.raises(ValueError, match="step 5 is not one of"):
        next(batches.batches(0, 5))


def test_one_more_pair_than_ranks_fill_is_lent_by_a_larger_step():
    shards = [TokenBatches(corpus([(4, 4)] * 9), 20, rank=rank, ranks=2) for rank in range(2)]
    sizes = [[len(numbers(batch)) for batch in shard.batches()] for shard in shards]
    assert [len(shard) for shard in shards] == [2, 2]
    assert sorted(map(sorted, zip(*sizes, strict=True))) == [[1, 1], [3, 4]]


def test_a_million_pairs_need_few_seconds_and_little_memory():
    lengths = np.random.default_rng(0).integers(1, 60, (2, 1_000_000))
    sides = []
    for side in lengths:
        offsets = np.concatenate([[0], np.cumsum(side)])
        sides.append(Sequences(np.full(offsets[-1], 7, np.uint16), offsets))
    batches = TokenBatches(EncodedPairs(*sides), 4096, shapes=64)
    batch = next(batches.batches(3, 1000))
    assert batch["source"].size <= 4096
    rows = np.concatenate([batches.rows(3, step) for step in range(len(batches))])
    assert len(rows) == 1_000_000 and len(np.unique(rows)) == 1_000_000


def test_as_a_dataset():
    batches = TokenBatches(corpus(random_lengths(50)), 60)
    finite = list(batches.dataset(1, 2, endless=False).as_numpy_iterator())
    expected = list(batches.batches(1, 2))
    assert len(finite) == len(expected) == len(batches) - 2
    endless = batches.dataset(1, 2).take(len(batches) + 3).as_numpy_iterator()
    following = itertools.islice(batches.endless(1, 2), len(batches) + 3)
    for batch, other in itertools.chain(
        zip(finite, expected, strict=True), zip(endless, following, strict=True)
    ):
        assert batch["source"].dtype == np.int32
        np.testing.assert_array_equal(batch["source"], other["source"])
        np.testing.assert_array_equal(batch["target"], other["target"])
