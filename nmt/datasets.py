"""The command `nmt-data`: parallel corpora, made or downloaded, as six files of plain text."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import gzip
import hashlib
import html
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.download import Download, checksum, fetch
from nmt.text import one_line
from tfkfac.command_line import Parser, exit_code
from tfkfac.errors import InputError, unknown
from tfkfac.files import remove_leftovers, replacing

DESCRIPTION = """\
Write a German-English corpus: train, valid and test, each as .de and .en, plain
text, a sentence a line, with README.txt, which says where it is from.

corpora:
"""
EXAMPLES = """\
examples:
  nmt-data grammar --train 30000
  nmt-data multi30k --out data/multi30k

Downloads are kept in DIR/download; interrupted ones continue."""

Pairs = list[tuple[str, str]]
Corpus = dict[str, Pairs]  # "train", "valid" and "test"
PARTS = ("train", "valid", "test")
LANGUAGES = ("de", "en")
TATOEBA_HELD_OUT = 1500


@dataclass(frozen=True)
class Source:
    """A corpus that is downloaded.

    Args:
        about: a line for the help.
        terms: who may use it, and whom to cite.
        downloads: its files.
        read: makes the corpus from the files, in their order.
    """

    about: str
    terms: str
    downloads: tuple[Download, ...]
    read: Callable[[Sequence[Path]], Corpus]


# ---------------------------------------------------------------------------------- corpora


def read_multi30k(paths: Sequence[Path]) -> Corpus:
    """Multi30k's six compressed texts, in the order of PARTS and LANGUAGES."""
    texts = []
    for path in paths:
        with _damaged(path):
            texts.append(_lines(gzip.decompress(path.read_bytes())))
    return {
        part: _zipped(texts[2 * number], texts[2 * number + 1], part)
        for number, part in enumerate(PARTS)
    }


def read_tatoeba(paths: Sequence[Path]) -> Corpus:
    """OPUS's zip archive of Tatoeba.

    Held out are the pairs whose German sentence has the smallest hash value, a thousand five
    hundred sentences for each part; no sentence of theirs, of either language, is trained on.
    """
    with _damaged(paths[0]), zipfile.ZipFile(paths[0]) as archive:
        german, english = (
            _clean(_lines(archive.read(f"Tatoeba.de-en.{language}"))) for language in LANGUAGES
        )
    usable = [pair for pair in dict.fromkeys(_zipped(german, english, "Tatoeba")) if all(pair)]
    first = dict(reversed(usable))  # the first translation of each German sentence
    order = sorted(first, key=lambda german: hashlib.sha256(german.encode()).digest())
    test, valid = (
        [(german, first[german]) for german in order[start : start + TATOEBA_HELD_OUT]]
        for start in (0, TATOEBA_HELD_OUT)
    )
    held_out = [{pair[side] for pair in (*test, *valid)} for side in range(2)]
    train = [pair for pair in usable if pair[0] not in held_out[0] and pair[1] not in held_out[1]]
    return {"train": train, "valid": valid, "test": test}


IWSLT14_TESTS = ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
_IWSLT14_TITLES = re.compile(r"</?(title|description)>")
_IWSLT14_SEGMENT = re.compile(r"<seg[^>]*>(.*?)</seg>")


def read_iwslt14(paths: Sequence[Path]) -> Corpus:
    """The archive of IWSLT 2014's German-English talks.

    The parts are those that most papers use: every 23rd pair of the training text validates, and
    the five development and test sets of 2010 to 2012 are the test.
    """

    def training_text(archive: tarfile.TarFile, language: str) -> list[str]:
        untitled = (
            _IWSLT14_TITLES.sub("", line).strip()
            for line in _member_lines(archive, f"de-en/train.tags.de-en.{language}")
        )
        return _clean(html.unescape(line) for line in untitled if not line.startswith("<"))

    def test_text(archive: tarfile.TarFile, language: str) -> list[str]:
        names = (f"de-en/IWSLT14.{name}.de-en.{language}.xml" for name in IWSLT14_TESTS)
        return _clean(
            html.unescape(segment)
            for name in names
            for line in _member_lines(archive, name)
            for segment in _IWSLT14_SEGMENT.findall(line)
        )

    with _damaged(paths[0]), tarfile.open(paths[0], "r:gz") as archive:
        train = _zipped(training_text(archive, "de"), training_text(archive, "en"), "train")
        test = _zipped(test_text(archive, "de"), test_text(archive, "en"), "test")
    pairs = [pair for pair in train if all(pair)]
    return {
        "train": [pair for number, pair in enumerate(pairs, start=1) if number % 23],
        "valid": pairs[22::23],
        "test": test,
    }


def _member_lines(archive: tarfile.TarFile, name: str) -> list[str]:
    member = archive.extractfile(name)
    if member is None:
        raise KeyError(name)
    return _lines(member.read())


def _lines(content: bytes) -> list[str]:
    return content.decode().removesuffix("\n").split("\n")


def _clean(texts: Iterable[str]) -> list[str]:
    """Texts without control characters, which the commands that read them would refuse."""
    return [one_line(text) for text in texts]


def _zipped(german: Sequence[str], english: Sequence[str], name: str) -> Pairs:
    if len(german) != len(english):
        raise InputError(
            f"{name}: {len(german):,} German, but {len(english):,} English sentences; "
            "the publisher has changed the format"
        )
    return list(zip(german, english, strict=True))


@contextlib.contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Turns what reading an archive may raise into a line about it."""
    try:
        yield
    except (
        EOFError,
        KeyError,
        OSError,
        UnicodeDecodeError,
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(f"{path}: not the archive that was expected ({error})") from error


_MULTI30K_URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"
_MULTI30K_SHA256 = {
    "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "val.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "val.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    "test_2016_flickr.de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
    "test_2016_flickr.en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
}
SOURCES = {
    "multi30k": Source(
        "descriptions of images: 29,000, 1,014 and 1,000 pairs (test_2016_flickr), 1 MB",
        "non-commercial research and education; cite Elliott et al. 2016, Multi30K: Multilingual "
        "English-German Image Descriptions",
        tuple(
            Download(f"{_MULTI30K_URL}{name}.gz", f"sha256:{digits}", of_content=True)
            for name, digits in _MULTI30K_SHA256.items()
        ),
        read_multi30k,
    ),
    "tatoeba": Source(
        "short sentences of daily life, from OPUS; 1,500 German sentences held out twice",
        "CC BY 2.0 FR; cite tatoeba.org, and Tiedemann 2012, Parallel Data, Tools and Interfaces "
        "in OPUS",
        (Download("https://object.pouta.csc.fi/OPUS-Tatoeba/v2023-04-12/moses/de-en.txt.zip"),),
        read_tatoeba,
    ),
    "iwslt14": Source(
        "subtitles of TED talks: about 160,000, 7,000 and 6,750 pairs, 19 MB",
        "CC BY-NC-ND 4.0; cite Cettolo et al. 2014, Report on the 11th IWSLT Evaluation Campaign",
        (
            Download(
                "https://dl.fbaipublicfiles.com/fairseq/data/iwslt14/de-en.tgz",
                "md5:10936dfdf616504ddbd844e91b94ef4a",
            ),
        ),
        read_iwslt14,
    ),
}
GRAMMAR = "grammar"
GRAMMAR_DEFAULTS = {"train": 20_000, "valid": 500, "test": 500, "seed": 1}
ABOUT_GRAMMAR = "synthetic sentences of a phrase grammar; made here, no download"


# ------------------------------------------------------------------------------ the command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: those of the command line; default: the process's.

    Returns:
        The exit code: 0, 2 (wrong input, or no network), or 130 (interrupted).
    """
    return exit_code(lambda: _run(arguments))


def parser() -> Parser:
    """The command's options."""
    abouts = {GRAMMAR: ABOUT_GRAMMAR} | {name: source.about for name, source in SOURCES.items()}
    result = Parser(
        prog="nmt-data",
        usage="nmt-data CORPUS [--out DIR] [options]",
        description=DESCRIPTION + "\n".join(f"  {n:9} {about}" for n, about in abouts.items()),
        epilog=EXAMPLES,
    )
    result.add_argument("corpus", nargs="?", metavar="CORPUS", help=", ".join(abouts))
    result.add_argument("--out", metavar="DIR", help="directory (default: data/CORPUS)")
    result.add_argument("--overwrite", action="store_true", help="replace files that are there")
    made = result.add_argument_group("grammar")
    for name, default in GRAMMAR_DEFAULTS.items():
        what = "of the drawing" if name == "seed" else "sentence pairs"
        made.add_argument(f"--{name}", type=int, metavar="N", help=f"{what} (default: {default})")
    downloaded = result.add_argument_group("downloads")
    downloaded.add_argument(
        "--mirror", metavar="URL", help="fetch the files from under this address, by their names"
    )
    downloaded.add_argument(
        "--ignore-checksum",
        action="store_true",
        help="accept files that differ from those that this version knows",
    )
    return result


def _run(arguments: Sequence[str] | None) -> None:
    options = parser().parse(arguments)
    name: str | None = options.corpus
    known = (GRAMMAR, *SOURCES)
    if name is None:
        raise InputError(f"CORPUS: expected one of {', '.join(known)}")
    if name not in known:
        raise unknown("corpus", name, known, "CORPUS")
    _check_options(name, options)
    out = Path(options.out or f"data/{name}")
    files = [out / f"{part}.{language}" for part in PARTS for language in LANGUAGES]
    present = [path for path in files if path.exists()]
    if present and not options.overwrite:
        raise InputError(f"{present[0]} exists; --overwrite replaces it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        corpus, origin = _made(options) if name == GRAMMAR else _downloaded(name, out, options)
        _write(corpus, origin, out)
    except KeyboardInterrupt:
        if name != GRAMMAR:
            print("\ninterrupted; run again to continue", file=sys.stderr)
        raise
    except OSError as error:
        raise InputError(f"{error.filename or out}: {error.strerror}") from error
    for part in PARTS:
        print(f"{out / part}.{{de,en}}: {len(corpus[part]):,} sentence pairs")


def _check_options(name: str, options: argparse.Namespace) -> None:
    """Refuses options that the corpus would ignore, and numbers that make no sense."""
    if name == GRAMMAR:
        ignored = [flag for flag in ("mirror", "ignore_checksum") if getattr(options, flag)]
    else:
        ignored = [flag for flag in GRAMMAR_DEFAULTS if getattr(options, flag) is not None]
    if ignored:
        raise InputError(f"--{ignored[0].replace('_', '-')} does not go with {name}")
    for flag in GRAMMAR_DEFAULTS:
        number = getattr(options, flag)
        least = 0 if flag == "seed" else 1
        if number is not None and number < least:
            raise InputError(f"--{flag}: expected a whole number, {least} or more, not {number}")


def _made(options: argparse.Namespace) -> tuple[Corpus, str]:
    from nmt import grammar

    given = {name: getattr(options, name) for name in GRAMMAR_DEFAULTS}
    chosen = GRAMMAR_DEFAULTS | {name: value for name, value in given.items() if value is not None}
    arguments = " ".join(f"--{name} {number}" for name, number in chosen.items())
    return grammar.corpus(**chosen), (
        f"Synthetic sentences, drawn from a phrase grammar: nmt-data grammar {arguments}\n"
        "They show whether a model learns word order and agreement, and say nothing about how\n"
        "well it translates what people write.\n"
    )


def _downloaded(name: str, out: Path, options: argparse.Namespace) -> tuple[Corpus, str]:
    source = SOURCES[name]
    downloads = source.downloads
    if options.mirror:
        base = options.mirror.rstrip("/")
        downloads = tuple(
            dataclasses.replace(download, url=f"{base}/{download.name}") for download in downloads
        )
    paths = []
    with _progress() as bars:
        for download in downloads:
            task = bars.add_task(download.name, total=None)
            report = functools.partial(_report, bars, task)
            paths.append(fetch(download, out / "download", not options.ignore_checksum, report))
    origin = [f"{name}: {source.about}", f"Terms: {source.terms}", ""]
    for download, path in zip(downloads, paths, strict=True):
        origin += [download.url, f"  sha256 {checksum(path)}"]
    return source.read(paths), "\n".join(origin) + "\n"


def _report(bars: Any, task: Any, received: int, total: int | None) -> None:
    bars.update(task, completed=received, total=total)


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _write(corpus: Corpus, origin: str, out: Path) -> None:
    """All files, or none if something goes wrong before the last one is written."""
    with contextlib.ExitStack() as stack:
        for part in PARTS:
            for side, language in enumerate(LANGUAGES):
                path = out / f"{part}.{language}"
                remove_leftovers(path)
                temporary = stack.enter_context(replacing(path))
                with temporary.open("w", encoding="utf-8", newline="\n") as file:
                    file.writelines(pair[side] + "\n" for pair in corpus[part])
        readme = stack.enter_context(replacing(out / "README.txt"))
        readme.write_text(origin, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
