"""The directory of an export: the model, its subwords, what it is, and a program that uses it.

model/           the model in its format
subwords.model   SentencePiece's; or source.model and target.model
export.json      the format, the options of decoding, versions
translate.py     text to text with the above alone (`nmt.export.standalone`)
README.md        how to use it
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nmt.decoding.options import DecodingOptions
from nmt.subwords import Subwords
from tfkfac.errors import InputError

FORMATS = ("savedmodel", "ctranslate2")
VERSION = 1  # of export.json
DESCRIPTION = "export.json"
_NEEDS = {
    "savedmodel": ("a TensorFlow SavedModel of stock operations", "tensorflow sentencepiece"),
    "ctranslate2": ("a CTranslate2 model", "ctranslate2 sentencepiece"),
}


@dataclass(frozen=True)
class Export:
    """What an export says of itself.

    Args:
        format: one of `FORMATS`.
        source, target: subwords.
        decoding: how it translates by default.
        max_source: source subwords beyond so many are left off.
        positions: length of the longest sentence, END included, on either side.
        versions: of what it was made with.
        quantization: of CTranslate2's weights.
    """

    format: str
    source: Subwords
    target: Subwords
    decoding: DecodingOptions
    max_source: int
    positions: int
    versions: Mapping[str, str]
    quantization: str | None = None

    def write(self, directory: Path) -> None:
        """Writes all but the model itself."""
        names = ["subwords.model"] * 2
        if self.source.model != self.target.model:
            names = ["source.model", "target.model"]
        for name, subwords in zip(names, (self.source, self.target), strict=True):
            subwords.save(directory / name)
        decoding = {**dataclasses.asdict(self.decoding), "positions": self.positions}
        content = {
            "version": VERSION,
            "format": self.format,
            "quantization": self.quantization,
            "subwords": names,
            "max_source": self.max_source,
            "decoding": decoding,
            "versions": dict(self.versions),
        }
        text = json.dumps(content, indent=2) + "\n"
        (directory / DESCRIPTION).write_text(text, encoding="utf-8")
        shutil.copyfile(Path(__file__).with_name("standalone.py"), directory / "translate.py")
        (directory / "README.md").write_text(self._readme(), encoding="utf-8")

    def _readme(self) -> str:
        what, packages = _NEEDS[self.format]
        return _README.format(
            what=what,
            packages=packages,
            details=(_SAVED_MODEL if self.format == "savedmodel" else _CTRANSLATE2).strip(),
            beam=self.decoding.beam,
            n_best=self.decoding.n_best,
        )


@contextlib.contextmanager
def new_directory(path: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary directory beside `path`, which takes its place if the block succeeds.

    Raises:
        InputError: if there is something already that must not be replaced, or the system refuses.
    """
    check_new(path, overwrite)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    old = path.with_name(f".{os.getpid()}.old.{path.name}")
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"--out {path}: cannot be written ({reason})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_new(path: Path, overwrite: bool) -> None:
    """Raises InputError if an export at `path` would take the place of something else."""
    if not path.absolute().parent.is_dir():
        raise InputError(f"--out {path}: no directory {path.parent}")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / DESCRIPTION).is_file():
        raise InputError(f"--out {path}: already exists, and is no export; choose another")
    if not overwrite:
        raise InputError(
            f"--out {path}: already exists; replace it with --overwrite, or choose another"
        )


_README = """\
# A translation model

This directory holds {what} (`model/`), its subwords, and a program that translates with them:

    pip install {packages}
    python translate.py < text > translation

One line in, one line out; blank lines stay blank. In a program:

    from translate import Translator

    translator = Translator("this directory")
    for hypotheses in translator(["A sentence.", "Another one."]):
        print(hypotheses[0].text, hypotheses[0].score)

`export.json` has the options of decoding that are in effect (beam {beam}, {n_best} best), and the
constants of the score.

{details}
"""
_SAVED_MODEL = """
The signature `serving_default` maps `source`, int32 [batch, S], rows of subword ids that end with
END (3), then PAD (0), to

| output | | |
|---|---|---|
| `ids` | int32 [batch, n, T] | hypotheses, best first, each with END, then PAD |
| `lengths` | int32 [batch, n] | END included; 0 where there is no hypothesis |
| `scores` | float32 [batch, n] | by which they are ranked |
| `log_probabilities` | float32 [batch, n, T] | of each subword |
| `attention` | float32 [batch, n, T, S] | if exported with `--return-attention` |

Ids are those of SentencePiece. Text is to be normalised first, as `translate.py` does: Unicode NFC,
single spaces, U+2581 as an underscore.
"""
_CTRANSLATE2 = """
`model/` is what `ctranslate2.Translator` loads. It reads and writes SentencePiece's pieces, adds
`</s>` to the source by itself, and never writes `<pad>` or `<s>`. Text is to be normalised
first, as `translate.py` does: Unicode NFC, single spaces, U+2581 as an underscore.

CTranslate2's own length penalty divides by n ^ length_penalty; `translate.py` asks for all
hypotheses without one and ranks them by the score above.
"""
