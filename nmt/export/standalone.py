"""Translates text with the exported model beside this file: one line in, one line out.

    python translate.py < text.de > text.en
    python translate.py --beam 10 --scores < text.de

It needs SentencePiece, and TensorFlow or CTranslate2, whichever the model was exported for; nothing
else of the toolkit that trained the model. In a program:

    from translate import Translator

    translator = Translator("directory of the export")
    translator(["Guten Tag."])[0][0].text
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sentencepiece

# What follows is copied into every export, so it imports nothing of the package it lies in.
PAD, UNKNOWN, BEGIN, END = 0, 1, 2, 3
_REFUSED = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")
_WINDOW = 1024
_LONGEST_LINE = 10_000  # characters


class Hypothesis(NamedTuple):
    """A translation of a sentence.

    score = log P(translation | source) / ((offset + n) / (offset + 1)) ^ length_penalty, with n its
    subwords, END included, and the two constants of export.json.
    """

    text: str
    score: float
    ids: tuple[int, ...]


class Translator:
    """The model of an export.

    Args:
        directory: of the export.
        beam: hypotheses kept at every step, and n_best of them returned, for CTranslate2; a
            SavedModel has both built in. Without: as exported.
        batch_size: most sentences at once.
        threads: of the processor; 0 for all.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        beam: int | None = None,
        n_best: int | None = None,
        batch_size: int = 64,
        threads: int = 0,
    ) -> None:
        directory = Path(directory)
        self.description = json.loads((directory / "export.json").read_text(encoding="utf-8"))
        threads = threads or os.cpu_count() or 1
        self._source, self._target = (
            sentencepiece.SentencePieceProcessor(model_file=str(directory / name))
            for name in self.description["subwords"]
        )
        decoding = self.description["decoding"]
        self._decode: Any
        if self.description["format"] == "ctranslate2":
            decoding = {**decoding, "beam": beam or decoding["beam"]}
            decoding["n_best"] = n_best or decoding["n_best"]
            subwords = self._source, self._target
            self._decode = _CTranslate2(directory, decoding, *subwords, batch_size, threads)
            batch_size *= threads  # a batch for each of them
        elif (beam, n_best) == (None, None):
            self._decode = _SavedModel(directory, threads)
        else:
            raise ValueError("a SavedModel has its beam and n_best built in; export another one")
        self._batch_size = batch_size

    def __call__(self, texts: Sequence[str]) -> list[list[Hypothesis]]:
        """The translations of each line, best first; none for a blank line."""
        most = self.description["max_source"]
        rows = [ids[:most] for ids in self._source.encode([_normalized(text) for text in texts])]
        results: list[list[Hypothesis]] = [[] for _ in texts]
        order = sorted((i for i, row in enumerate(rows) if row), key=lambda i: -len(rows[i]))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            found = self._decode([rows[i] for i in batch])
            for i, hypotheses in zip(batch, found, strict=True):
                results[i] = [
                    Hypothesis(self._text(ids), score, tuple(ids)) for ids, score in hypotheses
                ]
        return results

    def _text(self, ids: Sequence[int]) -> str:
        kept = [number for number in ids if number not in (PAD, BEGIN, END)]
        return _normalized(_REFUSED.sub(" ", self._target.decode(kept)))


def _normalized(text: str) -> str:
    """As in training: composed characters, single spaces, no mark of SentencePiece's."""
    return " ".join(unicodedata.normalize("NFC", text).replace("▁", "_").split())


# For each sentence, hypotheses of ids, END included, with their scores.
_Found = list[list[tuple[list[int], float]]]


class _SavedModel:
    def __init__(self, directory: Path, threads: int) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        # What TensorFlow says as it is imported heeds no setting.
        stderr = os.dup(2)
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        try:
            import tensorflow as tf
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        self._loaded = tf.saved_model.load(str(directory / "model"))
        self._serve = self._loaded.signatures["serving_default"]
        self._constant = tf.constant

    def __call__(self, rows: Sequence[Sequence[int]]) -> _Found:
        source = np.full((len(rows), max(map(len, rows)) + 1), PAD, np.int32)
        for place, row in enumerate(rows):
            source[place, : len(row) + 1] = [*row, END]
        found = {name: t.numpy() for name, t in self._serve(source=self._constant(source)).items()}
        return [
            [
                (ids[:length].tolist(), float(score))
                for ids, length, score in zip(*hypotheses, strict=True)
                if length
            ]
            for hypotheses in zip(found["ids"], found["lengths"], found["scores"], strict=True)
        ]


class _CTranslate2:
    def __init__(
        self,
        directory: Path,
        decoding: dict[str, Any],
        source: Any,
        target: Any,
        batch_size: int,
        threads: int,
    ) -> None:
        import ctranslate2

        # Several batches at once are faster than several threads in each.
        self._model = ctranslate2.Translator(
            str(directory / "model"), inter_threads=threads, intra_threads=1
        )
        self._batch_size = batch_size
        self._decoding = decoding
        self._pieces = [source.id_to_piece(number) for number in range(source.get_piece_size())]
        self._spelt = [target.id_to_piece(number) for number in range(target.get_piece_size())]
        self._ids = {piece: number for number, piece in enumerate(self._spelt)}

    def __call__(self, rows: Sequence[Sequence[int]]) -> _Found:
        limits = [self._longest(len(row) + 1) for row in rows]
        found = self._search(rows, max(limits))
        # The limit is one for a batch: what exceeds its own is searched for again, alone.
        for place, (limit, hypotheses) in enumerate(zip(limits, found, strict=True)):
            if limit < max(limits) and any(len(ids) > limit for ids, _ in hypotheses):
                (found[place],) = self._search([rows[place]], limit)
        n_best = self._decoding["n_best"]
        return [sorted(hypotheses, key=lambda found: -found[1])[:n_best] for hypotheses in found]

    def _search(self, rows: Sequence[Sequence[int]], limit: int) -> _Found:
        options = self._decoding
        sources = [[self._pieces[number] for number in row] for row in rows]
        results = self._model.translate_batch(
            sources,
            max_batch_size=self._batch_size,
            beam_size=options["beam"],
            # All, by log P, to be ranked by the score that the model was validated with.
            num_hypotheses=options["beam"],
            length_penalty=0,
            return_scores=True,
            return_end_token=True,
            max_input_length=0,
            max_decoding_length=max(1, limit - 1),
            min_decoding_length=max(0, options["min_length"] - 1),  # END not counted
            no_repeat_ngram_size=options["no_repeat_ngram"],
        )
        found = [
            [
                ([self._ids[piece] for piece in pieces], score)
                for pieces, score in zip(result.hypotheses, result.scores, strict=True)
            ]
            for result in results
        ]
        self._end(sources, found)
        return [
            [(ids, score / self._penalty(len(ids))) for ids, score in hypotheses]
            for hypotheses in found
        ]

    def _end(self, sources: Sequence[Sequence[str]], found: _Found) -> None:
        """Gives hypotheses that reached the limit their END, and its log-probability."""
        endless = [
            (sentence, rank)
            for sentence, hypotheses in enumerate(found)
            for rank, (ids, _) in enumerate(hypotheses)
            if ids[-1:] != [END]
        ]
        if not endless:
            return
        chosen = [found[sentence][rank][0] for sentence, rank in endless]
        scored = self._model.score_batch(
            [sources[sentence] for sentence, _ in endless],
            [[self._spelt[number] for number in ids] for ids in chosen],
            max_input_length=0,
        )
        for (sentence, rank), ids, scores in zip(endless, chosen, scored, strict=True):
            found[sentence][rank] = ([*ids, END], sum(scores.log_probs))

    def _longest(self, source: int) -> int:
        """Most subwords of a translation, END included, of as many source subwords."""
        options = self._decoding
        longest = options["max_length"]
        if longest is None:
            scaled = source * options["max_length_factor"]
            longest = int(scaled // 1) + options["max_length_constant"]
        return min(longest, options["positions"])

    def _penalty(self, words: int) -> float:
        offset = self._decoding["length_penalty_offset"]
        return ((offset + words) / (offset + 1)) ** self._decoding["length_penalty"]


def main() -> int:
    """Translates standard input, line by line, and returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--beam", type=int, help="hypotheses kept at every step (CTranslate2)")
    parser.add_argument("--batch-size", type=int, default=64, help="most sentences at once")
    parser.add_argument("--threads", type=int, default=0, help="of the processor; 0: all")
    parser.add_argument("--scores", action="store_true", help="a score and a tab before each line")
    options = parser.parse_args()
    try:
        translator = Translator(
            Path(__file__).parent,
            beam=options.beam,
            batch_size=options.batch_size,
            threads=options.threads,
        )
        with (
            open(0, "rb", closefd=False) as stream,
            open(1, "w", encoding="utf-8", newline="\n", closefd=False) as output,
        ):
            for window in _windows(_lines(stream)):
                for hypotheses in translator(window):
                    text, score, _ = hypotheses[0] if hypotheses else Hypothesis("", 0.0, ())
                    output.write(f"{score:.4f}\t{text}\n" if options.scores else f"{text}\n")
                output.flush()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 141
    except OSError as error:
        print(f"error: {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _lines(stream: Iterable[bytes]) -> Iterator[str]:
    """Raises ValueError, naming the line, if one is no line of text."""
    for number, raw in enumerate(stream, start=1):
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")  # byte order mark
        try:
            text = raw.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            byte = f"byte 0x{error.object[error.start]:02x} at position {error.start + 1}"
            raise ValueError(f"standard input:{number}: not UTF-8 ({byte})") from None
        if refused := _REFUSED.search(text):
            character = f"U+{ord(refused[0]):04X} at character {refused.start() + 1}"
            raise ValueError(f"standard input:{number}: control character {character}")
        if len(text) > _LONGEST_LINE:
            raise ValueError(f"standard input:{number}: longer than {_LONGEST_LINE:,} characters")
        yield text


def _windows(lines: Iterator[str]) -> Iterator[list[str]]:
    """Lines by the thousand; those before one that is refused come before its error."""
    refused: ValueError | None = None
    while refused is None:
        window: list[str] = []
        try:
            for line in itertools.islice(lines, _WINDOW):
                window.append(line)
        except ValueError as error:
            refused = error
        if window:
            yield window
        elif refused is None:
            return
    raise refused


if __name__ == "__main__":
    sys.exit(main())
