"""Parallel text: two files, a sentence pair a line, read strictly and kept as compact arrays."""

from __future__ import annotations

import array
import contextlib
import gzip
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from nmt.subwords import Subwords
from nmt.text import refused_character
from tfkfac.errors import InputError

# A longer line is no sentence: its line breaks were lost on the way.
MAXIMUM_CHARACTERS = 10_000
_BYTES_A_CHARACTER = 4
_GZIP = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Pairs encoded at once: enough for all processors, little enough for any memory.
_CHUNK = 8192


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file or pipe of text, compressed with gzip or not, whatever its name.

    Raises:
        InputError: if it cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(path.open("rb"))
            compressed = stream.peek(len(_GZIP)).startswith(_GZIP)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
        if compressed:
            yield stack.enter_context(gzip.GzipFile(fileobj=stream))  # type: ignore[arg-type]
        else:
            yield stream


def lines(
    stream: IO[bytes], name: str, maximum_characters: int = MAXIMUM_CHARACTERS
) -> Iterator[str]:
    """The lines of a stream, one at a time, without their line breaks (LF or CR LF).

    Blank lines are lines too. A byte order mark at the beginning is skipped.

    Args:
        stream: a binary file or pipe.
        name: what error messages call it.
        maximum_characters: in one line.

    Raises:
        InputError: naming stream and line, if a line is not UTF-8, holds a control character
            other than the tab, or is too long.
    """
    for number, (text, problem) in enumerate(_checked(stream, name, maximum_characters), start=1):
        if problem:
            raise InputError(f"{name}:{number}: {problem.detail}")
        yield text


def read_lines(path: Path, maximum_characters: int = MAXIMUM_CHARACTERS) -> Iterator[str]:
    """The lines of a file, plain or compressed with gzip; see `lines`.

    Raises:
        InputError: if it cannot be read, is empty, or one of its lines is refused.
    """
    with open_text(path) as stream:
        number = 0
        for number, text in enumerate(lines(stream, str(path), maximum_characters), start=1):  # noqa: B007
            yield text
        if number == 0:
            raise InputError(f"{path}: empty; expected a sentence a line")


@dataclass
class Report:
    """What became of the pairs of two files.

    Args:
        read: pairs in the files.
        dropped: how many were dropped, by reason.
        first: the line of the first of them, by reason.
    """

    read: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str, line: int) -> None:
        """Counts a pair."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self.first.setdefault(reason, line)

    @property
    def kept(self) -> int:
        """Pairs that were not dropped."""
        return self.read - sum(self.dropped.values())

    def __str__(self) -> str:
        counts = [
            f"{count:,} {reason} (first: line {self.first[reason]})"
            for reason, count in sorted(self.dropped.items(), key=lambda item: -item[1])
        ]
        return f"{self.read:,} pairs read, {self.kept:,} kept" + (
            f"; dropped: {', '.join(counts)}" if counts else ""
        )


def read_pairs(
    source: Path,
    target: Path,
    *,
    drop_bad: bool = False,
    report: Report | None = None,
    maximum_characters: int = MAXIMUM_CHARACTERS,
) -> Iterator[tuple[str, str]]:
    """The sentence pairs of two files, one at a time.

    Pairs that are blank on both sides are left out, and counted.

    Args:
        source, target: text, plain or compressed with gzip, line n of one translating line n of
            the other.
        drop_bad: leave out and count pairs of which one side is blank or refused by `lines`,
            rather than raise an error.
        report: receives the counts.
        maximum_characters: in one line.

    Raises:
        InputError: naming file and line, if the files have different numbers of lines, are
            empty, or hold a bad pair.
    """
    report = Report() if report is None else report
    with open_text(source) as source_stream, open_text(target) as target_stream:
        left_lines = _checked(source_stream, str(source), maximum_characters)
        right_lines = _checked(target_stream, str(target), maximum_characters)
        for number, (left, right) in enumerate(
            itertools.zip_longest(left_lines, right_lines), start=1
        ):
            if left is None or right is None:
                longer = number + sum(1 for _ in (right_lines if left is None else left_lines))
                counts = (number - 1, longer) if left is None else (longer, number - 1)
                raise InputError(
                    f"{source} has {counts[0]:,} lines, but {target} has {counts[1]:,}; "
                    "line n of one must translate line n of the other"
                )
            report.read = number
            problem = _pair_problem((str(source), *left), (str(target), *right), number)
            if problem is None:
                yield left[0], right[0]
            elif drop_bad or problem is _BLANK:
                report.drop(problem.reason, number)
            else:
                raise InputError(f"{problem.detail}; drop_bad leaves such pairs out")
        if report.read == 0:
            raise InputError(f"{source}: empty; expected a sentence a line")


class _Problem(NamedTuple):
    """Why a line or a pair is refused: in general, and with its place."""

    reason: str
    detail: str


_BLANK = _Problem("blank", "blank on both sides")


def _pair_problem(
    source: tuple[str, str, _Problem | None],
    target: tuple[str, str, _Problem | None],
    number: int,
) -> _Problem | None:
    """Why a pair is refused, given each side's file, text and problem."""
    for name, _, problem in (source, target):
        if problem:
            return _Problem(problem.reason, f"{name}:{number}: {problem.detail}")
    blank = [name for name, text, _ in (source, target) if not text.strip()]
    if len(blank) == 2:
        return _BLANK
    if blank:
        other = target[0] if blank == [source[0]] else source[0]
        detail = f"{blank[0]}:{number}: blank, but {other}:{number} is not"
        return _Problem("blank on one side", detail)
    return None


def _checked(
    stream: IO[bytes], name: str, maximum_characters: int
) -> Iterator[tuple[str, _Problem | None]]:
    """The lines of a stream; those with a problem are empty."""
    most_bytes = maximum_characters * _BYTES_A_CHARACTER + len(_BYTE_ORDER_MARK + b"\r\n")
    number = 0
    try:
        while raw := stream.readline(most_bytes):
            end = raw
            while len(end) == most_bytes and not end.endswith(b"\n"):  # bounded, however long
                end = stream.readline(most_bytes)
            number += 1
            if number == 1:
                raw = raw.removeprefix(_BYTE_ORDER_MARK)
                if raw.startswith(_GZIP):  # a pipe, which is not decompressed
                    raise InputError(f"{name}: compressed with gzip; pipe it through zcat first")
            yield _decoded(raw.removesuffix(b"\n").removesuffix(b"\r"), maximum_characters)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{name}: damaged gzip data after line {number:,} ({error})") from error
    except OSError as error:
        raise InputError(f"{name}: {error.strerror or error} after line {number:,}") from error


def _decoded(raw: bytes, maximum_characters: int) -> tuple[str, _Problem | None]:
    """A line, or "" and what is wrong with it."""
    reason = f"longer than {maximum_characters:,} characters"
    too_long = _Problem(reason, f"{reason}; expected one sentence")
    if len(raw) > maximum_characters * _BYTES_A_CHARACTER:
        return "", too_long
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        byte = f"byte 0x{raw[error.start]:02x} at position {error.start + 1}"
        return "", _Problem("not UTF-8", f"not UTF-8 ({byte})")
    if len(text) > maximum_characters:
        return "", too_long
    if refused := refused_character(text):
        return "", _Problem("with a control character", refused)
    return text, None


class Sequences:
    """Many sequences of ids, one after the other in one array.

    Args:
        ids: all ids, of any unsigned type.
        offsets: where each sequence begins, and where the last one ends: int64, n + 1.
    """

    def __init__(self, ids: np.ndarray, offsets: np.ndarray) -> None:
        self.ids = ids
        self.offsets = offsets

    @classmethod
    def of(cls, sequences: Iterable[Sequence[int]], vocabulary: int = 2**16) -> Sequences:
        """From lists of ids; `vocabulary` is the number of different ones there can be."""
        builder = _Builder(vocabulary)
        for sequence in sequences:
            builder.add(sequence)
        return builder.sequences()

    @property
    def lengths(self) -> np.ndarray:
        """Ids in each sequence: int64, n."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> np.ndarray:
        return self.ids[self.offsets[number] : self.offsets[number + 1]]


class _Builder:
    """Collects sequences in arrays that grow in place, a few bytes an id."""

    def __init__(self, vocabulary: int) -> None:
        self._ids = array.array("H" if vocabulary <= 2**16 else "I")
        self._offsets = array.array("q", [0])

    def add(self, sequence: Sequence[int]) -> None:
        self._ids.extend(sequence)
        self._offsets.append(len(self._ids))

    def sequences(self) -> Sequences:
        return Sequences(
            np.frombuffer(self._ids, self._ids.typecode), np.frombuffer(self._offsets, np.int64)
        )


@dataclass(frozen=True)
class EncodedPairs:
    """Sentence pairs as subword ids, without BEGIN and END; `source` is as long as `target`."""

    source: Sequences
    target: Sequences

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class Filters:
    """Which pairs a training leaves out, beside those that are blank on both sides.

    Args:
        maximum_length: subwords in a sentence, END not counted.
        maximum_ratio: subwords of the longer sentence over those of the shorter; None: any.
        drop_bad: also leave out what `read_pairs` otherwise refuses.
    """

    maximum_length: int = 100
    maximum_ratio: float | None = None
    drop_bad: bool = False

    def reason(self, source: int, target: int) -> str | None:
        """Why a pair of so many subwords is left out, or None."""
        if source > self.maximum_length:
            return f"source longer than {self.maximum_length} subwords"
        if target > self.maximum_length:
            return f"target longer than {self.maximum_length} subwords"
        longer, shorter = max(source, target), min(source, target)
        if self.maximum_ratio is not None and longer > self.maximum_ratio * shorter:
            return f"with a length ratio above {self.maximum_ratio:g}"
        return None


def encode_pairs(
    source: Path,
    target: Path,
    source_subwords: Subwords,
    target_subwords: Subwords,
    filters: Filters | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[EncodedPairs, Report]:
    """Reads, filters and encodes parallel text; a few bytes of memory for each subword.

    Args:
        source, target: as for `read_pairs`.
        source_subwords, target_subwords: vocabularies; the same object if they are joint.
        filters: which pairs to leave out.
        progress: called now and then with the number of pairs read so far.

    Raises:
        InputError: as `read_pairs` does, or if no pair is left.
    """
    filters = filters or Filters()
    report = Report()
    builders = _Builder(len(source_subwords)), _Builder(len(target_subwords))
    pairs = read_pairs(source, target, drop_bad=filters.drop_bad, report=report)
    # A pair's line is what had been read when it came.
    numbered = ((report.read, pair) for pair in pairs)
    while chunk := list(itertools.islice(numbered, _CHUNK)):
        source_ids = source_subwords.encode_many([pair[0] for _, pair in chunk])
        target_ids = target_subwords.encode_many([pair[1] for _, pair in chunk])
        for (line, _), *ids in zip(chunk, source_ids, target_ids, strict=True):
            if reason := filters.reason(len(ids[0]), len(ids[1])):
                report.drop(reason, line)
                continue
            for builder, sequence in zip(builders, ids, strict=True):
                builder.add(sequence)
        if progress:
            progress(report.read)
    if report.kept == 0:
        raise InputError(f"{source}, {target}: no pair is left of {report}")
    return EncodedPairs(*(builder.sequences() for builder in builders)), report
