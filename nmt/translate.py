"""The command `nmt-translate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nmt import documented
from nmt.decoding.options import DecodingOptions
from nmt.translation import models, writing
from nmt.translation.alignments import AlignmentOptions
from nmt.translation.models import Models
from nmt.translation.reading import Lines
from tfkfac.command_line import Parser, add_option, add_options, exit_code, quiet_tensorflow
from tfkfac.errors import InputError
from tfkfac.options import FLAG, TEXT, from_flags, one_of, option

DESCRIPTION = """\
Translate text, a line at a time: one line in, one line out, in the same order, blank lines
included. The translation of a line depends on no other line, nor on the batch size (of scores,
the last digit may)."""
EXAMPLES = """\
examples:
  nmt-translate --model model < text.de > text.en
  nmt-translate --model model --input text.de.gz --output text.en --beam 10
  nmt-translate --model one two three --n-best 5 --format json < text.de
  nmt-translate --model model --sample --top-k 20 --seed 7 < text.de
  nmt-translate --model model --alignments text.align < text.de > text.en

how it decodes:
{}"""
SAMPLING = ("sample", "temperature", "top_k", "top_p", "seed")


@dataclass(frozen=True)
class Options:
    """What is read and written."""

    input: str | None = option(TEXT, None, "text, plain or compressed with gzip; without: stdin")
    output: str | None = option(TEXT, None, "where translations go, all or none; without: stdout")
    format: str = option(
        one_of("text", "json"),
        "text",
        "text, or a JSON object a line with scores; several translations (n_best) as text are "
        "lines such as: 0 ||| Good day. ||| -0.5123",
    )
    word_scores: bool = option(
        FLAG, False, "json: also the log-probability of each word, and of the end"
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
    explained = documented.explanation(DecodingOptions).replace("\n", "\n  ")
    result = Parser(
        prog="nmt-translate",
        usage="nmt-translate --model DIR [DIR ...] [options]",
        description=DESCRIPTION,
        epilog=EXAMPLES.format("  " + explained),
        argument_default=argparse.SUPPRESS,
    )
    models.add_options(result)
    groups = {
        "output": result.add_argument_group("input and output"),
        "search": result.add_argument_group("search"),
        "sampling": result.add_argument_group("sampling"),
    }
    add_options(groups["output"], Options)
    add_options(groups["output"], AlignmentOptions)
    for name, known in documented.options_of(DecodingOptions, leave_out=("attention",)).items():
        add_option(groups["sampling" if name in SAMPLING else "search"], known)
    return result


def _run(arguments: Sequence[str] | None) -> None:
    flags = vars(parser().parse(arguments))
    options = from_flags(Options, flags)
    if options.word_scores and options.format != "json":
        raise InputError("--word-scores: needs --format json")
    writing.check(options.output, "--output")
    alignments = AlignmentOptions.of(flags, options.output)
    aligned = alignments.alignments is not None
    decoding = documented.from_flags(DecodingOptions, flags, attention=aligned)
    lines = Lines(None if options.input is None else Path(options.input))
    chosen = Models.of(flags)
    with writing.readable_errors():
        translate(options, alignments, decoding, chosen, lines)


def translate(
    options: Options,
    alignments: AlignmentOptions,
    decoding: DecodingOptions,
    chosen: Models,
    lines: Lines,
) -> None:
    """Translates lines as long as there are any, a window at a time.

    Raises:
        InputError: if a line is refused, after those before it are written.
    """
    loaded = chosen.load()
    with quiet_tensorflow():
        from nmt.translation.formats import Format, JSONLines, NBest, Text
        from nmt.translation.translator import Translator

    translator = Translator(
        loaded,
        chosen.source,
        chosen.target,
        decoding,
        chosen.options.batch_size,
        chosen.max_source,
    )
    style: Format = Text() if decoding.n_best == 1 else NBest()
    if options.format == "json":
        style = JSONLines(chosen.target, options.word_scores)
    print("ready", file=sys.stderr, flush=True)
    with (
        writing.output(options.output) as stream,
        alignments.writer(chosen.source, chosen.target) as writer,
    ):
        number = 0
        for window in lines.windows():
            found = translator(window, first=number)
            cuts = [translation.cut for translation in found]
            for warning in models.cut_warnings(number, cuts, chosen.max_source):
                print(warning, file=sys.stderr)
            for place, (source, translation) in enumerate(zip(window, found, strict=True)):
                for line in style.lines(number + place, source, translation):
                    stream.write(line + "\n")
                if writer is not None:
                    best = translation.hypotheses[:1]
                    pair = [(translation.source_ids, h.ids, h.attention) for h in best]
                    writer.write(number + place, *(pair[0] if pair else ()))
            stream.flush()
            number += len(window)


if __name__ == "__main__":
    sys.exit(main())
