"""Which source words the words of a translation attend to: Pharaoh, JSON, heat maps."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from nmt.subwords import Subwords
from nmt.translation import words, writing
from nmt.translation.writing import readable_errors
from tfkfac.errors import InputError
from tfkfac.files import replacing
from tfkfac.options import TEXT, from_flags, one_of, option

FORMATS = ("pharaoh", "json", "png")
_DIGITS = 4


@dataclass(frozen=True)
class AlignmentOptions:
    """Options of a command that may write alignments."""

    alignments: str | None = option(
        TEXT, None, "also write which source words the words attend to, to this file or directory"
    )
    alignment_format: str = option(
        one_of(*FORMATS),
        "pharaoh",
        "pharaoh: 0-0 2-1 a line; json: words and attention; png: a heat map for each line",
    )

    @classmethod
    def of(cls, flags: Mapping[str, Any], output: str | None) -> AlignmentOptions:
        """Those of a command line.

        Args:
            flags: values by name, not yet converted.
            output: the file of the command's other results.

        Raises:
            InputError: if one takes no such value, or there cannot be such a file.
        """
        result = from_flags(cls, flags)
        path = result.alignments
        if path is None:
            if "alignment_format" in flags:
                raise InputError("--alignment-format: needs --alignments PATH")
            return result
        writing.check(path, "--alignments", directory=result.alignment_format == "png")
        if output is not None and Path(path).absolute() == Path(output).absolute():
            raise InputError(f"--alignments {path}: the same as --output")
        return result

    def writer(
        self, source: Subwords, target: Subwords
    ) -> AbstractContextManager[Alignments | None]:
        """What writes them, or a context of None if they are not wanted."""
        if self.alignments is None:
            return contextlib.nullcontext()
        return Alignments(Path(self.alignments), self.alignment_format, source, target)


class Alignments:
    """Writes an alignment for each line; a context.

    Words are what white space separates, on both sides, and are counted from 0. Attention between
    them is that of `words.attention`.

    - pharaoh: a line for each line; `2-0` says that target word 0 attends to source word 2 more
      than to any other.
    - json: an object a line: source, target (lists of words) and attention, a row for each target
      word.
    - png: a heat map for each line that is not blank, named by the number of the line, from 1, in
      a directory.

    Args:
        path: the file, or for png the directory.
        kind: one of `FORMATS`.
        source, target: subwords of both languages.
    """

    def __init__(self, path: Path, kind: str, source: Subwords, target: Subwords) -> None:
        self._path, self._kind = path, kind
        self._source, self._target = source, target
        self._open = contextlib.ExitStack()
        self._file: IO[str] | None = None

    def __enter__(self) -> Alignments:
        with readable_errors(str(self._path)):
            if self._kind == "png":
                self._path.mkdir(parents=True, exist_ok=True)
            else:
                temporary = self._open.enter_context(replacing(self._path))
                self._file = temporary.open("w", encoding="utf-8")
                self._open.callback(self._close, self._file)
        return self

    def _close(self, file: IO[str]) -> None:
        with readable_errors(str(self._path)):  # what is left in its buffer
            file.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def write(
        self,
        number: int,
        source_ids: Sequence[int] = (),
        target_ids: Sequence[int] = (),
        attention: np.ndarray | None = None,
    ) -> None:
        """Writes an alignment.

        Args:
            number: of the line, counted from 0.
            source_ids, target_ids: subwords of both sides; none for a blank line.
            attention: [target subwords, source subwords].

        Raises:
            InputError: naming the path, if the system refuses, as when the disk is full.
        """
        with readable_errors(str(self._path)):
            self._write(number, source_ids, target_ids, attention)

    def _write(
        self,
        number: int,
        source_ids: Sequence[int],
        target_ids: Sequence[int],
        attention: np.ndarray | None,
    ) -> None:
        source = words.words(self._source, source_ids)
        target = words.words(self._target, target_ids)
        weights = np.zeros((len(target), len(source)))
        if attention is not None:
            weights = words.attention(source, target, attention)
        if self._file is None:
            if source and target:
                with replacing(self._path / f"{number + 1:08d}.png") as temporary:
                    columns, rows = ([word.text for word in side] for side in (source, target))
                    heat_map(columns, rows, weights, temporary)
        elif self._kind == "pharaoh":
            self._file.write(pharaoh(weights) + "\n")
        else:
            content = {
                "source": [word.text for word in source],
                "target": [word.text for word in target],
                "attention": np.round(weights, _DIGITS).tolist(),
            }
            self._file.write(json.dumps(content, ensure_ascii=False) + "\n")


def pharaoh(weights: np.ndarray) -> str:
    """The strongest source word of each target word: [target, source] -> `0-0 2-1`."""
    if 0 in weights.shape:
        return ""
    return " ".join(f"{source}-{target}" for target, source in enumerate(weights.argmax(axis=1)))


def heat_map(
    columns: Sequence[str],
    rows: Sequence[str],
    weights: np.ndarray,
    path: Path,
    names: tuple[str, str] = ("source", "target"),
) -> None:
    """Draws weights between words, and saves them as PNG.

    Args:
        columns, rows: the words.
        weights: [rows, columns], from 0 to 1.
        path: the file.
        names: what columns and rows are.
    """
    from matplotlib.figure import Figure  # without pyplot, which may look for a display

    size = 1.5 + 0.35 * len(columns), 1.2 + 0.3 * len(rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="left")
    axes.set_yticks(range(len(rows)), rows)
    axes.xaxis.tick_top()
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    figure.savefig(path, dpi=120, format="png")
