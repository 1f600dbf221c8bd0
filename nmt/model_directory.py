"""The directory of a trained model: all that translating needs, and the record of its training.

config.yaml             all options in effect, the format, the versions it was made with
subwords.model          SentencePiece's; or source.model and target.model
subwords.txt            the vocabulary, a piece a line; or source.txt and target.txt
best.weights.h5         weights of the best validation
last.weights.h5         state of the training; what --resume goes on with
averaged.weights.h5     mean of the last or best validations' weights
checkpoints/            those weights
log.csv                 a line for each validation
validation.txt          the translations of the best validation
tensorboard/            TensorBoard's logs, if wanted
alignments/             pictures of soft alignments, if wanted
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nmt import config_files
from nmt.config import Config
from nmt.models.config import ModelConfig
from nmt.subwords import Subwords
from tfkfac.errors import InputError
from tfkfac.files import check_new_directory, remove_leftovers, replacing

# Of the directory as described above; a reader refuses what is newer.
FORMAT = 1
CHECKPOINTS = ("best", "last", "averaged")


@dataclass(frozen=True)
class Contents:
    """What a model directory says of its model, without the weights.

    Args:
        config: of the training.
        source, target: subwords of both languages; the same object if they are joint.
    """

    config: Config
    source: Subwords
    target: Subwords

    @property
    def model_config(self) -> ModelConfig:
        """The model's own configuration."""
        return self.config.model_config(len(self.source), len(self.target))

    @property
    def longest(self) -> int | None:
        """Subwords of the longest sentence that the model can read, END not counted; None: any."""
        positions = self.config.positions
        return None if positions is None else positions - 1


class ModelDirectory:
    """The files of one model.

    Args:
        path: the directory; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.log = self.path / "log.csv"
        self.validation = self.path / "validation.txt"
        self.kfac_report = self.path / "kfac-report.txt"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.alignments = self.path / "alignments"
        self.best, self.last, self.averaged = (
            self.path / f"{name}.weights.h5" for name in CHECKPOINTS
        )

    def kept(self, update: int) -> Path:
        """Where the weights of a validation are kept for averaging."""
        return self.checkpoints / f"{update:08d}.weights.h5"

    def check_new(self, overwrite: bool) -> None:
        """Raises InputError if a new training here would lose an old one's files."""
        check_new_directory(self.path, overwrite)

    def create(self, contents: Contents, versions: Mapping[str, str]) -> None:
        """Makes the directory of a new training, in place of an earlier one's files.

        The configuration comes last: without it there is no model directory.

        Raises:
            InputError: if it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._clear()
            for name, subwords in _named(contents).items():
                subwords.save(self.path / f"{name}.model")
        except OSError as error:
            raise InputError(f"{error.filename or self.path}: {error.strerror}") from error
        for name, subwords in _named(contents).items():
            pieces = subwords.pieces(range(len(subwords)))
            write_text(self.path / f"{name}.txt", "".join(f"{piece}\n" for piece in pieces))
        self.write_config(contents, versions)

    def write_config(self, contents: Contents, versions: Mapping[str, str]) -> None:
        """Writes the configuration and the record of what made the directory."""
        record = {
            "format": FORMAT,
            "source_vocabulary": len(contents.source),
            "target_vocabulary": len(contents.target),
            "versions": dict(versions),
        }
        write_text(self.config, config_files.text(contents.config, record))

    @property
    def _files(self) -> list[Path]:
        """Those that a training writes while it goes on, and the configuration."""
        texts = [self.config, self.log, self.validation, self.kfac_report]
        return [*texts, self.best, self.last, self.averaged]

    def _clear(self) -> None:
        """Removes what an earlier training left, and nothing else."""
        files = self._files
        for name in ("subwords", "source", "target"):
            files += [self.path / f"{name}.model", self.path / f"{name}.txt"]
        for file in files:
            file.unlink(missing_ok=True)
            remove_leftovers(file)
        for directory in (self.checkpoints, self.tensorboard, self.alignments):
            shutil.rmtree(directory, ignore_errors=True)

    def remove_leftovers(self) -> None:
        """Removes what a process left that was killed while it wrote."""
        for file in self._files:
            remove_leftovers(file)
        for file in self.checkpoints.glob(".*"):
            file.unlink(missing_ok=True)

    def read(self) -> Contents:
        """Configuration and subwords.

        Raises:
            InputError: if this is no model directory, a damaged or a newer one.
        """
        if not self.config.is_file():
            raise InputError(f"{self.path}: no model directory (it has no {self.config.name})")
        record = self._record()
        config = config_files.read(self.config).config()
        joint = config.subwords.target_vocabulary_size is None
        names = ("subwords", "subwords") if joint else ("source", "target")
        subwords = {name: Subwords.load(self.path / f"{name}.model") for name in set(names)}
        source, target = (subwords[name] for name in names)
        for key, name, own in (
            ("source_vocabulary", names[0], source),
            ("target_vocabulary", names[1], target),
        ):
            if record.get(key) != len(own):
                raise InputError(
                    f"{self.path / name}.model: has {len(own)} subwords, but the model was "
                    f"trained with {record.get(key)}: damaged, or of another model"
                )
        return Contents(config, source, target)

    def _record(self) -> dict[str, Any]:
        try:
            content = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{self.config}: damaged ({str(error).splitlines()[0]})") from error
        record = content.get(config_files.RECORD) if isinstance(content, dict) else None
        if not isinstance(record, dict) or not isinstance(record.get("format"), int):
            raise InputError(
                f"{self.config}: a configuration, but not that of a trained model (it has no "
                f"{config_files.RECORD})"
            )
        if record["format"] > FORMAT:
            raise InputError(
                f"{self.path}: made by a newer version of this program (format "
                f"{record['format']}; this one reads up to {FORMAT}); upgrade it"
            )
        return record

    def weights(self, checkpoint: str | None = None) -> Path:
        """The file of weights to translate with.

        Args:
            checkpoint: one of `CHECKPOINTS`, or a file; without: the best one, or the last one if
                there is no best one, as after a training without validation.

        Raises:
            InputError: if there is none.
        """
        if checkpoint is not None and checkpoint not in CHECKPOINTS:
            if not Path(checkpoint).is_file():
                raise InputError(
                    f"--checkpoint: neither one of {', '.join(CHECKPOINTS)} nor a file: "
                    f"{checkpoint}"
                )
            return Path(checkpoint)
        names = (checkpoint,) if checkpoint else ("best", "last")
        for name in names:
            if (path := self.path / f"{name}.weights.h5").is_file():
                return path
        raise InputError(f"{self.path}: has no {' and no '.join(names)} checkpoint")


def _named(contents: Contents) -> dict[str, Subwords]:
    if contents.source is contents.target:
        return {"subwords": contents.source}
    return {"source": contents.source, "target": contents.target}


def write_text(path: Path, text: str) -> None:
    """Writes a text file as a whole.

    Raises:
        InputError: if it cannot be written.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"{path}: cannot be written ({reason})") from error


def load_model(path: str | Path, checkpoint: str | None = None) -> tuple[Any, Contents]:
    """The model in a directory, with its weights, and what the directory says of it.

    Args:
        path: the model directory.
        checkpoint: see `ModelDirectory.weights`.

    Raises:
        InputError: if the directory is none, damaged, or made by a newer version.

    Example:

    >>> model, contents = load_model("model")  # doctest: +SKIP
    >>> contents.source.encode("Guten Tag")  # doctest: +SKIP
    """
    from nmt import weights
    from nmt.models import build_model  # not before: the import takes seconds

    directory = ModelDirectory(path)
    contents = directory.read()
    file = directory.weights(checkpoint)
    model = build_model(contents.model_config)
    weights.load(model, file)
    return model, contents
