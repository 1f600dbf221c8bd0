"""Drawn meanings: well-formed in both languages, with what a model has to learn."""

import itertools
from dataclasses import replace

import pytest

from nmt.grammar import english, german
from nmt.grammar.drawing import Drawing
from nmt.grammar.meaning import Question, Statement
from tests.nmt.grammar_words import ALL_VERBS


@pytest.fixture(scope="module")
def drawn():
    drawing = Drawing(5)
    return [drawing.sentence() for _ in range(6000)]


def test_drawn_subordinate_clauses_end_with_the_finite_verb(drawn):
    """English has it second, so that a model has to learn to move it."""
    finite = {
        german.present(verb.german, verb.changed, person, plural)
        for verb in (
            *ALL_VERBS,
            *(
                replace(ALL_VERBS[0], german=word, changed="")
                for word in (
                    "haben",
                    "sein",
                    "werden",
                    "können",
                    "müssen",
                    "wollen",
                    "sollen",
                    "dürfen",
                )
            ),
        )
        for person, plural in itertools.product((1, 2, 3), (False, True))
    } | {"war", "warst", "waren", "wart"}
    separable = {
        verb.prefix + german.present(verb.german, verb.changed, person, plural)
        for verb in ALL_VERBS
        for person, plural in itertools.product((1, 2, 3), (False, True))
    }
    counted = 0
    for meaning in drawn:
        if isinstance(meaning, Statement) and meaning.subordinate:
            text = german.sentence(meaning).rstrip(".")
            clause = text.split(", ")[0] if meaning.subordinate_first else text
            assert clause.split()[-1] in finite | separable, text
            counted += 1
    assert counted > 1000


def test_drawn_main_clauses_have_the_finite_verb_second(drawn):
    counted = dict.fromkeys(("subject", "time", "place", "accusative"), 0)
    for meaning in drawn:
        if not isinstance(meaning, Statement) or meaning.subordinate_first:
            continue
        clause, front = meaning.clause, meaning.front
        first = {
            "subject": lambda clause: german._phrase(clause.subject, "nominative"),
            "time": lambda clause: clause.time.german,
            "place": lambda clause: german._place(clause.place),
            "accusative": lambda clause: german.noun_phrase(clause.accusative, "accusative"),
        }[front](clause)
        finite, _ = german._verb_parts(clause)
        text = german.sentence(meaning)
        assert text[1:].startswith(f"{first} {finite}"[1:]), text
        counted[front] += 1
    assert min(counted.values()) > 50


def test_a_german_sentence_has_one_translation(drawn):
    drawing = Drawing(11)
    translations: dict[str, str] = {}
    for meaning in (*drawn, *(drawing.sentence() for _ in range(6000))):
        in_german, in_english = german.sentence(meaning), english.sentence(meaning)
        assert translations.setdefault(in_german, in_english) == in_english


def test_drawn_sentences_are_well_formed(drawn):
    for meaning in drawn:
        end = "?" if isinstance(meaning, Question) else "."
        for text in (german.sentence(meaning), english.sentence(meaning)):
            assert text[0].isupper() and text.endswith(end) and text[-2].isalpha(), text
            assert "  " not in text and " ," not in text and ",," not in text and ",." not in text
            assert "None" not in text
        words = english.sentence(meaning).lower().rstrip(end).split()
        for article, noun in itertools.pairwise(words):
            if article in ("a", "an"):
                assert (article == "an") == (noun[0] in "aeiou" or noun == "hour"), words
        if "," not in german.sentence(meaning):  # one clause
            assert sum(words.count(word) for word in ("no", "not", "never", "cannot")) < 2, words
