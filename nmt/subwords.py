"""Subword vocabularies: SentencePiece models, trained, loaded and applied."""

from __future__ import annotations

import io
import itertools
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import sentencepiece

from nmt.text import normalized, one_line, refused_character
from tfkfac.errors import InputError, unknown
from tfkfac.files import replacing

PAD, UNKNOWN, BEGIN, END = 0, 1, 2, 3
KINDS = ("unigram", "bpe")

# SentencePiece keeps all training text in memory; more lines hardly change the pieces.
MAXIMUM_TRAINING_LINES = 1_000_000
# It splits the work into as many parts, and its sums depend on how many: never the processor's.
_TRAINING_THREADS = 16
_ANY_LENGTH = 2**30  # in bytes; the most that SentencePiece takes


class VocabularyError(InputError):
    """A text allows no vocabulary of the size that is wanted."""


class Subwords:
    """A subword vocabulary.

    Text is normalised before it is cut (`nmt.text.normalized`), and decoding what was encoded
    gives the normalised text again: characters that have no piece of their own are spelt in
    UTF-8 bytes, unless the vocabulary was trained without them.

    Ids 0 to 3 are PAD, UNKNOWN, BEGIN and END; encoding yields none of them, except UNKNOWN
    without bytes.

    Args:
        model: a serialised SentencePiece model, such as `Subwords.train` makes.
        name: what error messages call it.

    Raises:
        InputError: if this is no SentencePiece model, or one with other special ids.
    """

    def __init__(self, model: bytes, name: str = "subword model") -> None:
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise InputError(f"{name}: no SentencePiece model, or a damaged one") from error
        ids = (
            self._processor.pad_id(),
            self._processor.unk_id(),
            self._processor.bos_id(),
            self._processor.eos_id(),
        )
        if ids != (PAD, UNKNOWN, BEGIN, END):
            raise InputError(
                f"{name}: padding, unknown, begin and end have ids {ids}, not (0, 1, 2, 3); "
                "expected a model trained by this toolkit"
            )

    @classmethod
    def train(
        cls,
        lines: Iterable[str],
        size: int,
        kind: str = "unigram",
        *,
        character_coverage: float = 1.0,
        byte_fallback: bool = True,
        maximum_lines: int = MAXIMUM_TRAINING_LINES,
        seed: int = 0,
    ) -> Subwords:
        """Learns a vocabulary; the same lines and options give the same one everywhere.

        Args:
            lines: the text; read once.
            size: pieces, with the four special ones and, with `byte_fallback`, the 256 bytes.
            kind: "unigram" or "bpe".
            character_coverage: share of the text's characters that get a piece of their own;
                below 1 for scripts of many characters, such as 0.9995 for Chinese.
            byte_fallback: spell all other characters in bytes rather than map them to UNKNOWN.
            maximum_lines: if there are more, as many are drawn at random.
            seed: of that draw.

        Raises:
            VocabularyError: if the text is empty, or has too few different substrings or too many
                different characters for `size`; the message says what is possible.
        """
        if kind not in KINDS:
            raise unknown("kind of subwords", kind, KINDS, "subwords")
        sample = _sample((text for text in map(_accepted, lines) if text), maximum_lines, seed)
        if not sample:
            raise VocabularyError("subwords: there is no text to learn a vocabulary from")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.Train(
                sentence_iterator=iter(sample),
                model_writer=model,
                vocab_size=size,
                model_type=kind,
                character_coverage=character_coverage,
                byte_fallback=byte_fallback,
                normalization_rule_name="identity",
                max_sentence_length=_ANY_LENGTH,
                hard_vocab_limit=False,  # the size is compared below
                num_threads=_TRAINING_THREADS,
                minloglevel=2,
                pad_id=PAD,
                unk_id=UNKNOWN,
                bos_id=BEGIN,
                eos_id=END,
                pad_piece="<pad>",
            )
        except RuntimeError as error:
            raise VocabularyError(_why_not(str(error), size)) from error
        result = cls(model.getvalue())
        if len(result) < size:
            raise VocabularyError(
                f"subwords: a vocabulary of {size} is larger than the text allows; "
                f"the largest possible is {len(result)}"
            )
        return result

    @classmethod
    def load(cls, path: Path) -> Subwords:
        """Reads what `save` wrote.

        Raises:
            InputError: naming the file, if it cannot be read or is no such model.
        """
        try:
            model = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
        return cls(model, str(path))

    def save(self, path: Path) -> None:
        """Writes a file that `load` and SentencePiece's own tools read."""
        with replacing(path) as temporary:
            temporary.write_bytes(self.model)

    def encode(self, text: str) -> list[int]:
        """The ids of a line's pieces, without BEGIN and END.

        Raises:
            InputError: if the line holds a control character, such as a line break.
        """
        return self._processor.encode(_accepted(text))

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for many lines at once, on all processors."""
        return self._processor.encode([_accepted(text) for text in texts])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of pieces: one line, whatever the ids.

        PAD, BEGIN and END are skipped, UNKNOWN becomes "⁇", and bytes that are no UTF-8 become
        U+FFFD.
        """
        kept = [int(number) for number in ids if number not in (PAD, BEGIN, END)]
        return one_line(self._processor.decode(kept))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The pieces as they are written in the vocabulary; "▁" stands for a space."""
        return [self._processor.id_to_piece(int(number)) for number in ids]

    def __len__(self) -> int:
        return self._processor.get_piece_size()


def train_both(
    source: Iterable[str],
    target: Iterable[str],
    source_size: int,
    target_size: int | None = None,
    kind: str = "unigram",
    **options: float | bool | int,
) -> tuple[Subwords, Subwords]:
    """Vocabularies for both languages.

    Args:
        source, target: lines of text.
        source_size: pieces of the source's vocabulary, or of the joint one.
        target_size: pieces of the target's; None: one joint vocabulary, learned from both, is
            returned twice.
        kind, options: as for `Subwords.train`.

    Raises:
        InputError: as `Subwords.train` does.
    """
    if target_size is None:
        joint = Subwords.train(itertools.chain(source, target), source_size, kind, **options)  # type: ignore[arg-type]
        return joint, joint
    return (
        Subwords.train(source, source_size, kind, **options),  # type: ignore[arg-type]
        Subwords.train(target, target_size, kind, **options),  # type: ignore[arg-type]
    )


def _accepted(text: str) -> str:
    """The normalised text."""
    refused = refused_character(text)
    if refused:
        raise InputError(f"text: {refused}; expected one line of text")
    return normalized(text)


def _sample(lines: Iterator[str], maximum: int, seed: int) -> list[str]:
    """At most `maximum` of the lines, each with the same probability."""
    chosen = list(itertools.islice(lines, maximum))
    # Of Python's generator, random() alone is promised never to change.
    generator = random.Random(seed)
    for number, line in enumerate(lines, start=maximum + 1):
        place = int(generator.random() * number)
        if place < maximum:
            chosen[place] = line
    return chosen


def _why_not(message: str, size: int) -> str:
    """SentencePiece's error in words of this module."""
    needed = re.search(r"smaller than required_chars\. \d+ vs (\d+)", message)
    if needed:
        return (
            f"subwords: a vocabulary of {size} is too small; the text's characters and the "
            f"special pieces alone need {needed[1]} (a lower character coverage needs fewer)"
        )
    return f"subwords: SentencePiece cannot learn {size} pieces from this text ({message})"
