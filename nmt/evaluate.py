"""The command `nmt-evaluate`: BLEU and chrF of translations, and whether they differ."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from nmt.corpus import lines, read_lines
from nmt.metrics import DEFAULT_METRICS, METRICS, TOKENIZERS, Score, compare, scores
from tfkfac.command_line import Parser, exit_code
from tfkfac.errors import InputError, unknown

DESCRIPTION = """\
Score translations against references with sacreBLEU: plain, detokenised text, a
sentence a line, as nmt-translate writes it. Files may be compressed with gzip.
What is printed ends with sacreBLEU's signatures; give them with the scores."""
EXAMPLES = """\
examples:
  nmt-evaluate --reference test.en output.en
  nmt-translate --model model < test.de | nmt-evaluate --reference test.en -
  nmt-evaluate --reference test.en --significance baseline.en better.en
  nmt-evaluate --reference test.en --lowercase --metrics bleu,ter --format json output.en"""
STDIN = "-"
FORMATS = ("text", "json")
# A decoder that repeats itself may write longer lines than any corpus should have.
LONGEST_LINE = 1_000_000
SUBWORD_MARKS = ("▁", "@@ ")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: those of the command line; default: the process's.

    Returns:
        The exit code: 0, or 2 if the input is wrong.
    """
    return exit_code(lambda: _run(arguments))


def parser() -> Parser:
    """The command's options."""
    result = Parser(
        prog="nmt-evaluate",
        usage="nmt-evaluate --reference FILE [options] HYPOTHESIS [HYPOTHESIS ...]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    text = result.add_argument_group("text")
    text.add_argument(
        "hypotheses", nargs="*", metavar="HYPOTHESIS", help="translations; - is standard input"
    )
    text.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="FILE",
        help="reference translations; again for a second set of them, and so on",
    )
    metrics = result.add_argument_group("metrics")
    metrics.add_argument(
        "--metrics",
        default=",".join(DEFAULT_METRICS),
        metavar="NAMES",
        help=f"out of {','.join(METRICS)} (default: %(default)s)",
    )
    metrics.add_argument("--lowercase", action="store_true", help="ignore case")
    metrics.add_argument(
        "--tokenizer",
        default="13a",
        metavar="NAME",
        help=f"how BLEU splits words: {', '.join(TOKENIZERS)} (default: %(default)s, WMT's)",
    )
    significance = result.add_argument_group("significance")
    significance.add_argument(
        "--significance",
        action="store_true",
        help="test whether each hypothesis differs from the first, by paired bootstrap",
    )
    significance.add_argument(
        "--samples",
        type=int,
        default=1000,
        metavar="N",
        help="bootstrap samples; SACREBLEU_SEED is their seed (default: %(default)s)",
    )
    output = result.add_argument_group("output")
    output.add_argument(
        "--format",
        default="text",
        metavar="{" + ",".join(FORMATS) + "}",
        help="text: a table; json: an object, with all digits (default: %(default)s)",
    )
    return result


def _run(arguments: Sequence[str] | None) -> None:
    options = parser().parse(arguments)
    names: list[str] = options.hypotheses
    metrics = tuple(dict.fromkeys(options.metrics.split(",")))
    for metric in metrics:
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS, "--metrics")
    if options.tokenizer not in TOKENIZERS:
        raise unknown("tokenizer", options.tokenizer, TOKENIZERS, "--tokenizer")
    if options.format not in FORMATS:
        raise unknown("value", options.format, FORMATS, "--format")
    if options.samples < 1:
        raise InputError(f"--samples: expected a whole number above 0, not {options.samples}")
    if not names:
        raise InputError("HYPOTHESIS: expected a file of translations, or - for standard input")
    if not options.reference:
        raise InputError("--reference: expected a file of reference translations")
    if names.count(STDIN) > 1:
        raise InputError("HYPOTHESIS: standard input can be read only once")
    if options.significance and len(names) < 2:
        raise InputError("--significance: expected two hypotheses at least")

    references = [_read(name) for name in options.reference]
    systems = [_read(name) for name in names]
    first, expected = options.reference[0], len(references[0])
    for name, text in zip((*names, *options.reference), (*systems, *references), strict=True):
        if len(text) != expected:
            raise InputError(
                f"{_called(name)} has {len(text):,} lines, but {first} has {expected:,}"
            )
    for name, text in zip(names, systems, strict=True):
        _warn_of_subwords(_called(name), text)

    if options.significance:
        rows = compare(
            systems, references, metrics, options.lowercase, options.tokenizer, options.samples
        )
    else:
        rows = [
            scores(text, references, metrics, options.lowercase, options.tokenizer)
            for text in systems
        ]
    print(_as_json(names, rows) if options.format == "json" else _as_table(names, rows))


def _read(name: str) -> list[str]:
    if name != STDIN:
        return list(read_lines(Path(name), LONGEST_LINE))
    result = list(lines(sys.stdin.buffer, _called(name), LONGEST_LINE))
    if not result:
        raise InputError(f"{_called(name)}: empty; expected a sentence a line")
    return result


def _called(name: str) -> str:
    return "standard input" if name == STDIN else name


def _warn_of_subwords(name: str, text: Sequence[str]) -> None:
    for mark in SUBWORD_MARKS:
        if 2 * sum(mark in line for line in text) > len(text):
            print(
                f"warning: {name} seems to hold subwords ({mark.strip()}), not text: its scores "
                "cannot be compared with any others",
                file=sys.stderr,
            )


def _as_table(names: Sequence[str], rows: Sequence[Sequence[Score]]) -> str:
    """A line for each system, then what is needed to compare and repeat."""
    header = ["", *(score.metric for score in rows[0])]
    cells = [[name, *map(_cell, row)] for name, row in zip(names, rows, strict=True)]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    table = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (header, *cells)
    ]
    if rows[0][0].mean is not None:
        table += ["", f"In brackets: bootstrap mean ± half the 95 % interval; p against {names[0]}"]
    return "\n".join([*table, "", *(f"{score.metric}: {score.signature}" for score in rows[0])])


def _cell(score: Score) -> str:
    if score.mean is None:
        return f"{score.value:.2f}"
    p_value = "" if score.p_value is None else f", p = {score.p_value:.4f}"
    return f"{score.value:.2f} ({score.mean:.2f} ± {score.interval:.2f}{p_value})"


def _as_json(names: Sequence[str], rows: Sequence[Sequence[Score]]) -> str:
    systems = [
        {
            "hypothesis": name,
            "scores": [
                {
                    key: value
                    for key, value in dataclasses.asdict(score).items()
                    if value is not None
                }
                for score in row
            ],
        }
        for name, row in zip(names, rows, strict=True)
    ]
    return json.dumps({"systems": systems}, ensure_ascii=False, indent=2)


if __name__ == "__main__":
    sys.exit(main())
