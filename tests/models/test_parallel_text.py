"""Sentence pairs as rows of subwords: from the grammar and from files, and from bad files."""

import gzip

import numpy as np
import pytest

from models.data import parallel_text
from nmt import grammar
from nmt.subwords import END, PAD
from tfkfac.errors import InputError

LENGTH = 30
DRAWN = grammar.corpus(300, 0, 40, seed=3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def text(cache):
    return parallel_text.from_grammar(300, 40, 3, vocabulary=500, length=LENGTH, cache=cache)


def write(folder, compressed=True):
    for part, pairs in DRAWN.items():
        for number, side in enumerate(("de", "en")):
            lines = "".join(f"{pair[number]}\n" for pair in pairs).encode()
            if compressed and part == "train":
                (folder / f"{part}.{side}.gz").write_bytes(gzip.compress(lines))
            elif pairs:
                (folder / f"{part}.{side}").write_bytes(lines)
    return folder


def test_rows_are_sentences_then_end_then_padding(text):
    inputs, targets = text.test.read(np.arange(len(text.test)))
    np.testing.assert_array_equal(inputs["target"], targets)
    assert text.input_shape == {"source": (LENGTH,), "target": (LENGTH,)}
    for side, number in (("source", 0), ("target", 1)):
        rows = inputs[side]
        assert rows.shape[1] == LENGTH and rows.dtype == np.int32
        assert ((rows == END).sum(1) == 1).all()
        after = np.cumsum(rows == END, axis=1) - (rows == END)
        np.testing.assert_array_equal(rows == PAD, after > 0)
        found = [text.target_subwords.decode(row) for row in rows]
        # All that fit, in their order.
        drawn = [pair[number] for pair in DRAWN["test"]]
        assert 5 < len(found) < len(drawn)
        assert [sentence for sentence in drawn if sentence in found] == found


def test_batches_have_one_shape_and_names(text):
    inputs, targets = text.training(8, seed=1).element_spec
    assert inputs["source"].shape == inputs["target"].shape == targets.shape == (8, LENGTH)
    batch, truth = next(text.training(8, seed=1).as_numpy_iterator())
    np.testing.assert_array_equal(batch["target"], truth)


def test_grammar_is_made_once_and_kept(text, cache, monkeypatch):
    monkeypatch.setattr(grammar, "corpus", None)
    again = parallel_text.from_grammar(300, 40, 3, vocabulary=500, length=LENGTH, cache=cache)
    assert again.digest() == text.digest()
    first = np.arange(9)
    np.testing.assert_array_equal(again.train.read(first)[1], text.train.read(first)[1])


def test_files_give_what_the_grammar_gives(text, tmp_path):
    folder = write(tmp_path)
    read = parallel_text.from_files(folder, 500, LENGTH, tmp_path / "cache")
    assert read.digest() == text.digest()
    (folder / "test.en").write_text("One sentence.\n")
    (folder / "test.de").write_text("Ein Satz.\n")
    other = parallel_text.from_files(folder, 500, LENGTH, tmp_path / "cache")
    assert len(other.test) == 1


def test_training_share_is_of_the_training_text(text):
    share = text.training_share()
    assert share.test_examples == text.test_examples
    first = np.arange(4)
    np.testing.assert_array_equal(share.test.read(first)[1], text.train.read(first)[1])
    assert share.target_subwords is text.target_subwords


def test_files_that_are_missing_or_do_not_match(tmp_path):
    with pytest.raises(InputError, match=r"train.de: no such file; expected a folder with train"):
        parallel_text.from_files(tmp_path, 500, LENGTH)
    folder = write(tmp_path, compressed=False)
    with pytest.raises(InputError, match=r"train.de, .*train.en: subwords: a vocabulary of 90000"):
        parallel_text.from_files(folder, 90_000, LENGTH)
    with open(folder / "test.en", "a") as file:
        file.write("One more.\n")
    with pytest.raises(InputError, match=r"test.de has 40 lines, but .*test.en has 41"):
        parallel_text.from_files(folder, 500, LENGTH)
