"""Parallel text: what is read, what is refused and how, what is dropped."""

import gzip
import io
import os
import re
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.corpus import EncodedPairs, Filters, Report, Sequences, encode_pairs, lines, read_lines
from nmt.corpus import read_pairs as read
from nmt.subwords import Subwords
from nmt.text import refused_character
from tfkfac.errors import InputError


@pytest.fixture
def files(tmp_path) -> Any:
    """Writes both sides; text or bytes."""

    def write(source, target) -> Any:
        paths = tmp_path / "text.de", tmp_path / "text.en"
        for path, content in zip(paths, (source, target), strict=True):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return paths

    return write


# ------------------------------------------------------------------------------- lines


@given(st.lists(st.text(max_size=20)), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_any_lines_are_read_as_written_or_refused(texts, end, final_end):
    # U+FEFF at the very beginning is a byte order mark.
    expected = [text.removeprefix("\ufeff") if i == 0 else text for i, text in enumerate(texts)]
    content = end.join(texts)
    if final_end or (texts and not texts[-1]):
        content += end if texts else ""
    stream = io.BytesIO(content.encode())
    bad = next((i for i, text in enumerate(expected) if refused_character(text)), None)
    if bad is None:
        assert list(lines(stream, "stream")) == expected
    # A text with a line break of its own is two lines.
    elif not any("\n" in text or text.endswith("\r") for text in texts):
        with pytest.raises(InputError, match=f"stream:{bad + 1}: control character U"):
            list(lines(stream, "stream"))


def test_only_line_feeds_end_lines():
    text = "one\u2028still one\u2029and\u00a0on"
    assert list(lines(io.BytesIO(f"{text}\n\ntwo".encode()), "s")) == [text, "", "two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fine\nM\xe4nner\n", r"s:2: not UTF-8 \(byte 0xe4 at position 2\)"),
        ("fein\n".encode("utf-16"), r"s:1: not UTF-8 \(byte 0xff at position 1\)"),
        (b"a\n\nb\0c\n", r"s:3: control character U\+0000 at character 2"),
        (b"a\rb\n", r"s:1: control character U\+000D at character 2"),
        ("ä\u0085\n".encode(), r"s:1: control character U\+0085 at character 2"),
        (b"a\n" + b"x" * 10_001, "s:2: longer than 10,000 characters; expected one sentence"),
        (b"x" * 100_000 + b"\nb", "s:1: longer than 10,000 characters; expected one sentence"),
    ],
)
def test_bad_lines_are_named(content, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        list(lines(io.BytesIO(content), "s"))


@pytest.mark.parametrize("character", ["x", "ä", "漢", "👍"])
def test_the_length_limit_counts_characters(character):
    longest = character * 50
    for start in ("", "\ufeff"):
        content = f"{start}{longest}\n{longest}\r\n{longest}".encode()
        assert list(lines(io.BytesIO(content), "s", 50)) == [longest] * 3
        content = f"{start}{longest}x\n".encode()
        with pytest.raises(InputError, match="s:1: longer than 50 characters"):
            list(lines(io.BytesIO(content), "s", 50))


def test_an_endless_line_is_not_held_in_memory():
    class Endless(io.RawIOBase):
        largest = 0
        given = 0

        def readline(self, size=-1):
            assert size is not None and 0 < size < 1_000
            self.largest = max(self.largest, size)
            self.given += size
            return b"x" * size if self.given < 10_000_000 else b"x\n" if self.largest else b""

    stream = Endless()
    with pytest.raises(InputError, match="s:1: longer than 100 characters"):
        next(lines(stream, "s", 100))  # type: ignore[arg-type]
    assert stream.given >= 10_000_000


def test_lines_stream_as_they_come():
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as reader, open(write_end, "wb", buffering=0) as writer:
        result = lines(reader, "pipe")
        for word in ("eins", "zwei"):
            writer.write(f"{word}\n".encode())
            assert next(result) == word


def test_compressed_files_are_known_by_their_content(tmp_path):
    plain, compressed = tmp_path / "plain.gz", tmp_path / "compressed.txt"
    plain.write_text("Grüße\n")
    compressed.write_bytes(gzip.compress("Grüße\n".encode()) + gzip.compress(b"zwei"))
    assert list(read_lines(plain)) == ["Grüße"]
    assert list(read_lines(compressed)) == ["Grüße", "zwei"]


def test_a_compressed_pipe_is_named():
    stream = io.BytesIO(gzip.compress(b"ein Haus\n"))
    with pytest.raises(InputError, match="^standard input: compressed with gzip; pipe it through"):
        list(lines(stream, "standard input"))


def test_a_named_pipe_can_be_read(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(gzip.compress(b"eins\nzwei\n"),))
    writer.start()
    assert list(read_lines(path)) == ["eins", "zwei"]
    writer.join()


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "text.de"
    with pytest.raises(InputError, match=f"{path}: No such file or directory"):
        list(read_lines(path))
    with pytest.raises(InputError, match=f"{tmp_path}: Is a directory"):
        list(read_lines(tmp_path))
    path.touch()
    with pytest.raises(InputError, match=f"{path}: empty; expected a sentence a line"):
        list(read_lines(path))


def test_damaged_compression(tmp_path):
    path = tmp_path / "text.gz"
    whole = gzip.compress(b"".join(b"%d %d\n" % (i, i**7) for i in range(5000)), mtime=0)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    for content in (whole[: len(whole) // 2], bytes(damaged), whole[:2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"^{path}: damaged gzip data after line [0-9,]+ ."):
            list(read_lines(path))


# ------------------------------------------------------------------------------- pairs


def test_pairs_in_order(files):
    assert list(read(*files("eins\nzwei\n", "one\r\ntwo"))) == [("eins", "one"), ("zwei", "two")]


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("a\nb\nc\n", "a\n", "{de} has 3 lines, but {en} has 1; line n of one must translate"),
        ("a\nb\n", "a\nb\nc\nd\n", "{de} has 2 lines, but {en} has 4; line n"),
        ("", "a\n", "{de} has 0 lines, but {en} has 1; line n"),
        ("a\n", "", "{de} has 1 lines, but {en} has 0; line n"),
        ("", "", "{de}: empty; expected a sentence a line"),
        ("a\n \t\n", "a\nb\n", "{de}:2: blank, but {en}:2 is not; drop_bad leaves such pairs out"),
        ("a\nb\n", "a\n\u00a0\n", "{en}:2: blank, but {de}:2 is not; drop_bad leaves"),
        ("a\n", b"\xff\n", "{en}:1: not UTF-8 (byte 0xff at position 1); drop_bad leaves"),
        ("a\nb\0\n", "a\n\n", "{de}:2: control character U+0000 at character 2; drop_bad"),
    ],
)
def test_bad_pairs_are_named(files, source, target, message):
    de, en = files(source, target)
    with pytest.raises(InputError, match="^" + re.escape(message.format(de=de, en=en))):
        list(read(de, en))


def test_bad_pairs_are_dropped_and_counted_on_request(files):
    de, en = files(
        b"a\n\n\nb\0\nc\nd\n" + b"x" * 20_000 + b"\n\xff\ne\n",
        b"A\n\nB\nC\n\nD\nE\nF\nG\n",
    )
    report = Report()
    pairs = list(read(de, en, drop_bad=True, report=report))
    assert pairs == [("a", "A"), ("d", "D"), ("e", "G")]
    assert report == Report(
        read=9,
        dropped={
            "blank": 1,
            "blank on one side": 2,
            "with a control character": 1,
            "longer than 10,000 characters": 1,
            "not UTF-8": 1,
        },
        first={
            "blank": 2,
            "blank on one side": 3,
            "with a control character": 4,
            "longer than 10,000 characters": 7,
            "not UTF-8": 8,
        },
    )
    assert report.kept == 3
    assert str(report).startswith(
        "9 pairs read, 3 kept; dropped: 2 blank on one side (first: line 3), 1 "
    )


def test_lines_blank_on_both_sides_are_always_left_out(files):
    report = Report()
    assert list(read(*files("a\n\nb\n", "A\n \nB\n"), report=report)) == [("a", "A"), ("b", "B")]
    assert str(report) == "3 pairs read, 2 kept; dropped: 1 blank (first: line 2)"


# ----------------------------------------------------------------------------- encoding


@given(st.lists(st.lists(st.integers(0, 99_999))), st.sampled_from([50_000, 100_000]))
def test_sequences_hold_what_they_were_given(sequences, vocabulary):
    sequences = [[number % vocabulary for number in sequence] for sequence in sequences]
    result = Sequences.of(sequences, vocabulary)
    assert [list(result[number]) for number in range(len(result))] == sequences
    assert [list(sequence) for sequence in result] == sequences
    assert list(result.lengths) == [len(sequence) for sequence in sequences]
    assert result.ids.itemsize == (2 if vocabulary <= 2**16 else 4)


def encoded(paths, *arguments):
    return encode_pairs(paths[0], paths[1], *arguments)


@pytest.fixture(scope="module")
def subwords():
    return Subwords.train(["a b c d e f g h"], 21, "bpe", byte_fallback=False)


def test_pairs_are_encoded_with_each_sides_vocabulary(files, subwords):
    other = Subwords.train(["b x d e f"], 15, "bpe", byte_fallback=False)
    pairs, report = encoded(files("a b\nc\n", "b x\nd e f\n"), subwords, other)
    assert [list(ids) for ids in pairs.source] == subwords.encode_many(["a b", "c"])
    assert [list(ids) for ids in pairs.target] == other.encode_many(["b x", "d e f"])
    assert subwords.encode("a b") != other.encode("a b")
    assert len(pairs) == 2 and str(report) == "2 pairs read, 2 kept"


def test_filters_drop_and_report(files, subwords):
    assert [len(subwords.encode(text)) for text in ("a", "a b c", "a b c d")] == [1, 3, 4]
    paths = files("a\na b c d\na\n\na b c\na\n", "a\na\na b c d\n\na\na b\n")
    pairs, report = encoded(paths, subwords, subwords, Filters(maximum_length=3))
    assert [
        list(pair) for pair in zip(pairs.source.lengths, pairs.target.lengths, strict=True)
    ] == [
        [1, 1],
        [3, 1],
        [1, 2],
    ]
    assert report.dropped == {
        "source longer than 3 subwords": 1,
        "target longer than 3 subwords": 1,
        "blank": 1,
    }
    assert report.first == {
        "source longer than 3 subwords": 2,
        "target longer than 3 subwords": 3,
        "blank": 4,
    }
    pairs, report = encoded(paths, subwords, subwords, Filters(maximum_ratio=3))
    assert len(pairs) == 3
    assert report.dropped == {"with a length ratio above 3": 2, "blank": 1}


def test_drop_bad_reaches_the_reader(files, subwords):
    paths = files("a\n\nb\n", "a\nb\nb\n")
    with pytest.raises(InputError, match="blank"):
        encoded(paths, subwords, subwords)
    pairs, report = encoded(paths, subwords, subwords, Filters(drop_bad=True))
    assert len(pairs) == 2 and report.dropped == {"blank on one side": 1}


def test_no_pair_is_left(files, subwords):
    with pytest.raises(InputError, match="no pair is left of 1 pairs read, 0 kept; dropped: 1 sou"):
        encoded(files("a b\n", "a\n"), subwords, subwords, Filters(maximum_length=1))


def test_many_chunks_keep_their_order_and_memory_stays_small(files, subwords, monkeypatch):
    monkeypatch.setattr("nmt.corpus._CHUNK", 7)
    texts = ["a b c d e f g h"[: 1 + 2 * (i * i % 8)] for i in range(100)]
    seen: list[int] = []
    pairs, report = encoded(
        files("\n".join(texts), "\n".join(reversed(texts))), subwords, subwords, None, seen.append
    )
    assert isinstance(pairs, EncodedPairs)
    assert [list(ids) for ids in pairs.source] == subwords.encode_many(texts)
    assert [list(ids) for ids in pairs.target] == subwords.encode_many(texts[::-1])
    assert seen[0] == 7 and seen[-1] == 100 and len(seen) == 15
    size = np.sum(pairs.source.lengths)
    assert pairs.source.ids.nbytes == 2 * size and pairs.source.offsets.nbytes == 8 * 101
