"""The command `nmt-score`."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.translation import models, writing
from nmt.translation.alignments import AlignmentOptions
from nmt.translation.models import Models
from nmt.translation.reading import Lines
from tfkfac.command_line import Parser, add_options, exit_code, quiet_tensorflow
from tfkfac.errors import InputError
from tfkfac.options import FLAG, TEXT, from_flags, one_of, option

DESCRIPTION = """\
Score given translations: the log-probability (natural logarithm) of each target sentence given
its source, END included, one line for each pair, in the same order. A pair with a blank side has
no score: its line is blank (json: null), with a warning if the other side is not blank."""
EXAMPLES = """\
examples:
  nmt-score --model model --source text.de --target text.en
  nmt-score --model model --source text.de --target text.en --format json --word-scores"""
_DIGITS = 4


@dataclass(frozen=True)
class Options:
    """What is read and written."""

    source: str | None = option(TEXT, None, "source sentences, plain or compressed with gzip")
    target: str | None = option(TEXT, None, "their translations, line by line")
    output: str | None = option(TEXT, None, "where scores go, all or none; without: stdout")
    format: str = option(
        one_of("text", "json"),
        "text",
        "text: the log-probability; json: an object a line, with the number of target subwords, "
        "END included",
    )
    word_scores: bool = option(
        FLAG, False, "json: also the log-probability of each word, and of the end"
    )
    per_subword: bool = option(
        FLAG, False, "text: the log-probability divided by the number of subwords, END included"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: those of the command line; default: the process's.

    Returns:
        The exit code: 0, 2 (wrong input), 130 (interrupted) or 141 (nobody reads any more).
    """
    return exit_code(lambda: _run(arguments))


def parser() -> Parser:
    """The command's options."""
    result = Parser(
        prog="nmt-score",
        usage="nmt-score --model DIR [DIR ...] --source FILE --target FILE [options]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        argument_default=argparse.SUPPRESS,
    )
    models.add_options(result)
    group = result.add_argument_group("input and output")
    add_options(group, Options)
    add_options(group, AlignmentOptions)
    return result


def _run(arguments: Sequence[str] | None) -> None:
    flags = vars(parser().parse(arguments))
    options = from_flags(Options, flags)
    for name in ("source", "target"):
        if getattr(options, name) is None:
            raise InputError(f"--{name}: missing; give a file, a sentence a line")
    if options.word_scores and options.format != "json":
        raise InputError("--word-scores: needs --format json")
    if options.per_subword and options.format != "text":
        raise InputError("--per-subword: needs --format text")
    writing.check(options.output, "--output")
    alignments = AlignmentOptions.of(flags, options.output)
    sides = [Lines(Path(path)) for path in (options.source, options.target) if path is not None]
    chosen = Models.of(flags)
    with writing.readable_errors():
        score(options, alignments, chosen, *sides)


def score(
    options: Options, alignments: AlignmentOptions, chosen: Models, source: Lines, target: Lines
) -> None:
    """Scores pairs as long as there are any, a window at a time.

    Raises:
        InputError: if a line is refused, or one side has more of them.
    """
    loaded = chosen.load()
    with quiet_tensorflow():
        from nmt.translation.scoring import PairScorer

    scorer = PairScorer(
        loaded, chosen.source, chosen.target, chosen.options.batch_size, chosen.max_source
    )
    with (
        writing.output(options.output) as stream,
        alignments.writer(chosen.source, chosen.target) as writer,
    ):
        number = 0
        none: list[str] = []
        for sources, targets in itertools.zip_longest(
            source.windows(), target.windows(), fillvalue=none
        ):
            if len(sources) != len(targets):
                ends = number + min(len(sources), len(targets))
                shorter = source if len(sources) < len(targets) else target
                raise InputError(
                    f"{shorter.name}: ends after {ends:,} lines, but the other side goes on; line "
                    "n of one must translate line n of the other"
                )
            results = scorer(sources, targets, first=number)
            for place, pair in enumerate(zip(sources, targets, strict=True)):
                if warning := _blank_warning((source.name, target.name), pair, number + place):
                    print(warning, file=sys.stderr)
            for found in results:
                stream.write(_line(options, chosen, number, found) + "\n")
                if writer is not None:
                    writer.write(number, found.source_ids, found.target_ids, found.attention)
                number += 1
            stream.flush()


def _blank_warning(names: tuple[str, str], pair: tuple[str, str], number: int) -> str | None:
    """What is said of a pair with one blank side: such files may be out of step."""
    blank = [not text.strip() for text in pair]
    if blank[0] == blank[1]:
        return None
    here, there = names if blank[0] else names[::-1]
    line = number + 1
    return f"warning: {here}:{line}: blank, but {there}:{line} is not; the pair has no score"


def _line(options: Options, chosen: Models, number: int, found: Any) -> str:
    from nmt.translation import words

    if options.format == "text":
        if not found.target_ids:
            return ""
        divisor = len(found.target_ids) if options.per_subword else 1
        return f"{found.log_probability / divisor:.{_DIGITS}f}"
    content: dict[str, Any] = {
        "line": number,
        "log_probability": round(found.log_probability, _DIGITS) if found.target_ids else None,
        "subwords": len(found.target_ids),
    }
    if options.word_scores:
        spelt = words.words(chosen.target, found.target_ids)
        scores = words.scores(spelt, found.log_probabilities)
        content["words"] = [
            [word.text, round(value, _DIGITS)] for word, value in zip(spelt, scores, strict=True)
        ]
        content["end"] = round(found.log_probabilities[-1], _DIGITS) if spelt else None
    return json.dumps(content, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
