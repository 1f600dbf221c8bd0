"""A phrase grammar of German and English, and the corpus that is drawn from it.

The corpus is synthetic: it needs no download, shows what a translation model has to learn (verbs
at the second and at the last place, separable verbs, agreement of gender, number and case), and
says nothing about how well a model translates what people write.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from nmt.grammar import english, german
from nmt.grammar.drawing import Drawing
from tfkfac.errors import InputError

# So many sentences in a row that were all drawn before: there are hardly any others.
_PATIENCE = 10_000


def pairs(seed: int) -> Iterator[tuple[str, str]]:
    """Pairs (German, English), in which no sentence of either language comes twice.

    The same seed gives the same pairs everywhere.

    >>> next(pairs(1))
    ('Der Polizist wird unsere Geschichte lesen.', 'The policeman will read our story.')

    Raises:
        InputError: when there are hardly any pairs left, after millions.
    """
    drawing = Drawing(seed)
    seen_german: set[str] = set()
    seen_english: set[str] = set()
    repeated = 0
    while repeated < _PATIENCE:
        sentence = drawing.sentence()
        pair = german.sentence(sentence), english.sentence(sentence)
        if pair[0] in seen_german or pair[1] in seen_english:
            repeated += 1
            continue
        repeated = 0
        seen_german.add(pair[0])
        seen_english.add(pair[1])
        yield pair
    raise InputError(f"the grammar has hardly more than {len(seen_german):,} sentence pairs")


def corpus(train: int, valid: int, test: int, seed: int = 1) -> dict[str, list[tuple[str, str]]]:
    """Sentence pairs for training, validation and test, no sentence in two of them.

    What validates and tests does not depend on how much there is to train on.

    Args:
        train, valid, test: numbers of pairs.
        seed: of the drawing.
    """
    drawn = pairs(seed)
    sizes = {"test": test, "valid": valid, "train": train}
    return {name: list(itertools.islice(drawn, size)) for name, size in sizes.items()}
