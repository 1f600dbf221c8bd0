"""Words out of subwords: their scores, and how they are aligned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nmt.subwords import BEGIN, END, PAD, Subwords

# How SentencePiece writes the space that begins a word.
_SPACE = "▁"


@dataclass(frozen=True)
class Word:
    """A word of a sentence, as white space separates them.

    Args:
        text: the word.
        places: which of the sentence's subwords it is made of.
    """

    text: str
    places: tuple[int, ...]


def words(subwords: Subwords, ids: Sequence[int]) -> list[Word]:
    """The words that subwords spell; special ones, such as END, belong to none."""
    groups: list[list[int]] = []
    started = False  # whether the last group spells anything yet
    for place, piece in enumerate(subwords.pieces(ids)):
        if ids[place] in (PAD, BEGIN, END):
            continue
        if not groups or (piece.startswith(_SPACE) and started):
            groups.append([])
            started = False
        groups[-1].append(place)
        started = started or piece != _SPACE
    spelt = [(subwords.decode([ids[i] for i in group]), tuple(group)) for group in groups]
    return [Word(text, places) for text, places in spelt if text]


def scores(found: Sequence[Word], log_probabilities: Sequence[float]) -> list[float]:
    """The log-probability of each word: the sum of its subwords'."""
    return [sum(log_probabilities[place] for place in word.places) for word in found]


def attention(source: Sequence[Word], target: Sequence[Word], weights: np.ndarray) -> np.ndarray:
    """Attention between words.

    Args:
        source, target: words of both sentences.
        weights: [target subwords, source subwords].

    Returns:
        [target words, source words]: the mean over a target word's subwords of what they attend
        to a source word's subwords together. Rows do not sum to 1: END, too, is attended to.
    """
    result = np.zeros((len(target), len(source)))
    for row, target_word in enumerate(target):
        mean = weights[list(target_word.places)].mean(axis=0)
        result[row] = [mean[list(word.places)].sum() for word in source]
    return result
