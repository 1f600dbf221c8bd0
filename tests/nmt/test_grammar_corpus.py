"""The corpus: distinct pairs in disjoint parts, the same everywhere, with every word."""

import doctest
import itertools
import os
import subprocess
import sys

import pytest

from nmt import grammar
from nmt.grammar import lexicon
from nmt.grammar.drawing import Drawing
from nmt.grammar.meaning import Clause, Statement
from tests.nmt.grammar_words import ALL_VERBS, VERBS, phrase


def test_every_word_is_used():
    text = " ".join(f" {d} {e} " for d, e in itertools.islice(grammar.pairs(1), 8000))
    for verb in ALL_VERBS:
        assert verb.prefix + verb.german in text or verb.participle in text
    for noun in (*lexicon.NOUNS, *lexicon.NAMES):
        assert noun.german in text and noun.english in text
    for word in lexicon.ADJECTIVES:
        assert word.stem in text and word.english in text


def test_the_corpus_is_distinct_and_its_parts_are_disjoint():
    parts = grammar.corpus(3000, 200, 300, seed=4)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 3000,
        "valid": 200,
        "test": 300,
    }
    everything = [pair for part in parts.values() for pair in part]
    assert len({pair[0] for pair in everything}) == len({pair[1] for pair in everything}) == 3500
    assert all(one != other for one, other in everything)
    smaller = grammar.corpus(10, 200, 300, seed=4)
    assert smaller["test"] == parts["test"] and smaller["valid"] == parts["valid"]
    assert smaller["train"] == parts["train"][:10]
    assert grammar.corpus(0, 0, 50, seed=5)["test"] != parts["test"][:50]


def test_the_corpus_is_the_same_everywhere():
    code = (
        "import itertools, sys; from nmt.grammar import pairs\n"
        "for pair in itertools.islice(pairs(3), 300): sys.stdout.buffer.write(repr(pair).encode())"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": s},
        ).stdout
        for s in ("1", "2")
    ]
    expected = "".join(repr(pair) for pair in itertools.islice(grammar.pairs(3), 300)).encode()
    assert outputs == [expected, expected]
    assert doctest.testmod(grammar).failed == 0


def test_a_grammar_that_is_exhausted_says_so(monkeypatch):
    meaning = Statement(Clause(phrase("Hund"), VERBS["einschlafen"]))
    monkeypatch.setattr(grammar, "_PATIENCE", 3)
    monkeypatch.setattr(Drawing, "sentence", lambda self: meaning)
    pairs = grammar.pairs(1)
    assert next(pairs) == ("Der Hund schläft ein.", "The dog falls asleep.")
    with pytest.raises(ValueError, match="the grammar has hardly more than 1 sentence pairs"):
        next(pairs)
