"""What a training begins with: subwords, and the text in them."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from nmt.config import Config
from nmt.corpus import EncodedPairs, Filters, Report, encode_pairs, read_pairs
from nmt.model_directory import Contents, ModelDirectory
from nmt.subwords import VocabularyError, train_both
from tfkfac.errors import InputError


def new_contents(config: Config) -> Contents:
    """Configuration and subwords of a new training: trained on its text, or those it starts from.

    Raises:
        InputError: if the text cannot be read, or allows no such vocabulary.
    """
    if config.training.init_from is not None:
        start = ModelDirectory(config.training.init_from).read()
        config = dataclasses.replace(config, subwords=start.config.subwords)
        return Contents(config, start.source, start.target)
    options = config.subwords

    def side(number: int) -> Iterator[str]:
        source, target = _files(config)
        for pair in read_pairs(source, target, drop_bad=config.data.drop_bad):
            yield pair[number]

    try:
        source, target = train_both(
            side(0),
            side(1),
            options.vocabulary_size,
            options.target_vocabulary_size,
            options.segmentation,
            character_coverage=options.character_coverage,
            byte_fallback=options.byte_fallback,
            seed=config.training.seed,
        )
    except VocabularyError as error:
        raise InputError(_with_option(str(error), config)) from error
    return Contents(config, source, target)


def _with_option(message: str, config: Config) -> str:
    """The message of a `VocabularyError` with the files it is about, and the option to change."""
    text = ", ".join(map(str, _files(config)))
    option = "vocabulary_size"
    if config.subwords.target_vocabulary_size is not None:
        option += " or target_vocabulary_size"
    return f"{text}: {message} ({option})"


def training_pairs(
    contents: Contents, progress: Callable[[int], object]
) -> tuple[EncodedPairs, Report]:
    """The text to train on, and what was left out of it.

    Args:
        contents: configuration and subwords.
        progress: called now and then with the number of pairs read.

    Raises:
        InputError: if it cannot be read, or nothing is left.
    """
    data = contents.config.data
    filters = Filters(data.max_subwords, data.max_length_ratio, data.drop_bad)
    return encode_pairs(
        *_files(contents.config), contents.source, contents.target, filters, progress
    )


def fingerprint(pairs: EncodedPairs) -> int:
    """A number that changes with the text."""
    result = 0
    for side in (pairs.source, pairs.target):
        for array in (side.ids, side.offsets):
            result = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, result)
    return result


def _files(config: Config) -> tuple[Path, Path]:
    assert config.data.source is not None  # Config.complete sees to it
    assert config.data.target is not None
    return Path(config.data.source), Path(config.data.target)
