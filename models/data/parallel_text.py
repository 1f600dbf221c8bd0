"""Sentence pairs for a translation benchmark, as subwords in rows of one length.

The pairs are drawn from the project's grammar, or read from parallel text files. Subwords are
learned from the training pairs. Rows of one length let a step be traced once and its products be
counted; pairs that are longer are left out, of training and test alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.data.examples import ExampleDataset, Examples, Subset
from models.data.generated import Arrays, cached, digest
from nmt import grammar
from nmt.batching import padded
from nmt.corpus import EncodedPairs, Filters, Sequences, encode_pairs, read_pairs
from nmt.subwords import Subwords, VocabularyError, train_both
from tfkfac.errors import InputError

VERSION = 1  # of what is made: raise it when the same text and options give something else
LANGUAGES = ("de", "en")  # from, to
PARTS = ("train", "test")
EXPECTED = "a folder with train.de, train.en, test.de and test.en (a sentence a line, or .gz)"


@dataclass(frozen=True)
class SentencePairs:
    """Encoded pairs as `Examples`: source and target words in, target words to be predicted.

    Attributes:
        pairs: subwords, without END.
        length: of every row, END included; at least one more than the longest sentence.
    """

    pairs: EncodedPairs
    length: int

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, indices: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """{"source", "target"} as `nmt.models` read them, and the target again, int32 N x length.

        Rows end with END, then PAD.
        """
        source = padded(self.pairs.source, indices, self.length)
        target = padded(self.pairs.target, indices, self.length)
        return {"source": source, "target": target}, target


class ParallelText(ExampleDataset):
    """Sentence pairs with the subwords that they are made of.

    Args:
        name: what error messages call it.
        train, test: the pairs.
        target_subwords: to turn ids into text.
        content: digest of the pairs and subwords.
    """

    def __init__(
        self,
        name: str,
        train: Examples,
        test: Examples,
        target_subwords: Subwords,
        content: str,
    ) -> None:
        super().__init__(name, train, test)
        self.target_subwords = target_subwords
        self._content = content

    def training_share(self) -> ParallelText:
        """The same with as many training pairs in the test pairs' place, the first ones."""
        numbers = range(min(len(self.test), len(self.train)))
        first = Subset(self.train, numbers)
        return ParallelText(self.name, self.train, first, self.target_subwords, self._content)

    def digest(self) -> str:
        """Of all pairs and of the subwords."""
        return self._content


def from_grammar(
    train: int, test: int, seed: int, vocabulary: int, length: int, cache: Path | None = None
) -> ParallelText:
    """Pairs of the phrase grammar, German to English; no test sentence is in the training text.

    Args:
        train, test: pairs that are drawn; those that are too long are left out.
        seed: of the drawing.
        vocabulary: joint subwords.
        length: of the rows, END included.
        cache: directory for `cached`.
    """

    def make() -> Arrays:
        drawn = grammar.corpus(train, 0, test, seed)
        german, english = ([pair[number] for pair in drawn["train"]] for number in range(2))
        subwords, _ = train_both(german, english, vocabulary)
        encoded = {part: _encoded(drawn[part], subwords, length) for part in PARTS}
        return _as_arrays(encoded, subwords)

    made_from = dict(
        version=VERSION, train=train, test=test, seed=seed, vocabulary=vocabulary, length=length
    )
    arrays = cached(cache, f"grammar-{train}x{length}", made_from, make)
    return _dataset("translation", arrays, length)


def from_files(
    folder: Path, vocabulary: int, length: int, cache: Path | None = None
) -> ParallelText:
    """Pairs of parallel text files.

    Args:
        folder: with train.de, train.en, test.de and test.en, or the same compressed (.gz).
        vocabulary: joint subwords, learned from the training files.
        length: of the rows, END included.
        cache: directory for `cached`, which keeps subwords and encoded text.

    Raises:
        InputError: if a file is missing, damaged or no text, if two do not match line by line, or
            if the text allows no such vocabulary.
    """
    files = {part: [_file(folder, f"{part}.{side}") for side in LANGUAGES] for part in PARTS}

    def make() -> Arrays:
        def side(number: int) -> Iterator[str]:
            return (pair[number] for pair in read_pairs(*files["train"]))

        try:
            subwords, _ = train_both(side(0), side(1), vocabulary)
        except VocabularyError as error:
            raise InputError(f"{', '.join(map(str, files['train']))}: {error}") from error
        filters = Filters(length - 1)
        encoded = {
            part: encode_pairs(source, target, subwords, subwords, filters)[0]
            for part, (source, target) in files.items()
        }
        return _as_arrays(encoded, subwords)

    digests = [_of_file(path) for part in PARTS for path in files[part]] if cache else []
    made_from = dict(version=VERSION, files=digests, vocabulary=vocabulary, length=length)
    return _dataset(str(folder), cached(cache, f"text-{folder.name}", made_from, make), length)


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise InputError(f"{folder / name}: no such file; expected {EXPECTED}")


def _of_file(path: Path) -> str:
    hashed = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()


def _encoded(pairs: Sequence[tuple[str, str]], subwords: Subwords, length: int) -> EncodedPairs:
    sides = (subwords.encode_many([pair[number] for pair in pairs]) for number in range(2))
    kept = [ids for ids in zip(*sides, strict=True) if max(map(len, ids)) < length]
    source, target = (Sequences.of([ids[number] for ids in kept]) for number in range(2))
    return EncodedPairs(source, target)


def _as_arrays(encoded: dict[str, EncodedPairs], subwords: Subwords) -> Arrays:
    arrays = {"subwords": np.frombuffer(subwords.model, np.uint8)}
    for part, pairs in encoded.items():
        for side, sequences in (("source", pairs.source), ("target", pairs.target)):
            arrays[f"{part}_{side}_ids"] = sequences.ids
            arrays[f"{part}_{side}_offsets"] = sequences.offsets
    return arrays


def _dataset(name: str, arrays: Arrays, length: int) -> ParallelText:
    def pairs(part: str) -> SentencePairs:
        source, target = (
            Sequences(arrays[f"{part}_{side}_ids"], arrays[f"{part}_{side}_offsets"])
            for side in ("source", "target")
        )
        return SentencePairs(EncodedPairs(source, target), length)

    subwords = Subwords(arrays["subwords"].tobytes(), name)
    content = digest(arrays).tobytes().hex()
    return ParallelText(name, pairs("train"), pairs("test"), subwords, content)
