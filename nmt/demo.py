"""`make demo`, second part: a translation model learns a small synthetic grammar from nothing.

Each step is an ordinary call of one of the commands, printed before it runs: nmt-data writes a
corpus, nmt-train trains a tiny Transformer, nmt-translate translates sentences that it has not
seen, nmt-evaluate compares them with their references.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tfkfac.command_line import Parser, exit_code
from tfkfac.errors import InputError

UPDATES = 1200
SHOWN = 5
# The picture is of the longest of the first test sentences.
CANDIDATES = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m nmt.demo", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--out",
        default="runs/demo/translation",
        metavar="DIR",
        help="corpus, model and translations (default: runs/demo/translation)",
    )
    out = Path(parser.parse(arguments).out)
    corpus, model = out / "grammar", out / "model"
    console = Console()
    began = time.perf_counter()
    console.rule("a synthetic German-English corpus")
    _command("nmt.datasets", "grammar", "--out", str(corpus), "--overwrite")
    console.rule("a tiny Transformer learns to translate it")
    _command(
        *("nmt.train", "--config", "tiny-transformer"),
        *("--source", str(corpus / "train.de"), "--target", str(corpus / "train.en")),
        *("--validation-source", str(corpus / "valid.de")),
        *("--validation-target", str(corpus / "valid.en")),
        *("--updates", str(UPDATES), "--validate-every", "300", "--schedule", "cosine"),
        *("--average", "1"),
        *("--out", str(model), "--overwrite"),
    )
    console.rule("sentences that it has not seen")
    test, translated = corpus / "test.de", out / "test.out"
    _command(
        *("nmt.translate", "--model", str(model), "--input", str(test)),
        *("--output", str(translated)),
    )
    picture = _picture(test, out, model)
    source, reference, found = (
        path.read_text(encoding="utf-8").splitlines()
        for path in (test, corpus / "test.en", translated)
    )
    console.print(_table(source[:SHOWN], found[:SHOWN], reference[:SHOWN]))
    _command("nmt.evaluate", "--reference", str(corpus / "test.en"), str(translated))
    right = sum(a == b for a, b in zip(found, reference, strict=True)) / len(reference)
    console.print(f"word for word as the reference: {right:.0%} of {len(reference)} sentences")
    console.print(f"which source words it attends to: {picture}")
    console.print(f"{time.perf_counter() - began:.0f} seconds")


def _picture(test: Path, out: Path, model: Path) -> Path:
    """A heat map of the attention for one sentence."""
    lines = test.read_text(encoding="utf-8").splitlines()[:CANDIDATES]
    one = out / "aligned.de"
    one.write_text(max(lines, key=len) + "\n", encoding="utf-8")
    _command(
        *("nmt.translate", "--model", str(model), "--input", str(one), "--beam", "5"),
        *("--output", str(out / "aligned.out"), "--alignments", str(out / "alignment")),
        *("--alignment-format", "png"),
    )
    return out / "alignment" / f"{1:08d}.png"


def _table(source: Sequence[str], found: Sequence[str], reference: Sequence[str]) -> Table:
    table = Table("source", "translation", "reference", title="test sentences", show_lines=True)
    for row in zip(source, found, reference, strict=True):
        table.add_row(*row)
    return table


def _command(module: str, *arguments: str) -> None:
    names = {"nmt.datasets": "nmt-data"}
    shown = [names.get(module, module.replace(".", "-")), *arguments]
    print(f"$ {shlex.join(shown)}", flush=True)
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3")
    command = [sys.executable, "-m", module, *arguments]
    code = subprocess.run(command, env=environment, check=False).returncode
    if code:
        raise InputError(f"{shown[0]} ended with exit code {code}; its messages are above")


if __name__ == "__main__":
    sys.exit(main())
