"""Meanings drawn at random, such as somebody might want to express."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TypeVar

from nmt.grammar import lexicon
from nmt.grammar.german import pronoun_for
from nmt.grammar.meaning import (
    Adjective,
    Adverb,
    Clause,
    Noun,
    NounPhrase,
    Phrase,
    Place,
    Pronoun,
    Question,
    Sentence,
    Statement,
    Verb,
)

T = TypeVar("T")

_SINGULAR = {
    "the": 9,
    "a": 5,
    "my": 2,
    "your": 1,
    "his": 2,
    "our": 2,
    "this": 2,
    "every": 1,
    "no": 1,
}
_PLURAL = {"the": 5, "": 3, "two": 2, "three": 1, "many": 1, "my": 1, "our": 1, "this": 1, "no": 1}
_OF_PLACES = {"the": 9, "a": 3, "our": 2, "this": 2, "his": 1}
_TENSES = {"present": 5, "past": 3, "future": 2}
_SUBJECT_PRONOUNS = {"I": 3, "you": 1, "he": 2, "she": 2, "we": 3, "you all": 1, "they": 2}
# Of the accusative, "sie" and "es" would leave open who is meant.
_ACCUSATIVE_PRONOUNS = {"I": 3, "you": 2, "he": 3, "we": 2}
_DATIVE_PRONOUNS = {"I": 3, "you": 2, "he": 3, "she": 2, "we": 2, "they": 3}
_CONJUNCTIONS = {"because": 4, "although": 2, "whenever": 2, "when": 2, "while": 2, "before": 1}
_GROUPS = ("opinion", "size", "age", "color")
_INDEFINITE = ("a", "", "many")
# Two of these in one clause would be hard to understand.
_QUANTIFIERS = ("no", "every")
_POSSESSIVES = ("my", "your", "his", "our")
# "Meine Frau" is a wife.
_NOT_POSSESSED = ("Mann", "Frau")
# What these verbs say is so everywhere.
_WITHOUT_PLACE = ("lieben", "kennen", "vertrauen", "verstehen", "vergessen")

# The subject of an infinitive, which does not show it.
_ANYBODY = lexicon.PRONOUNS["we"]


@cache
def _nouns(kinds: frozenset[str]) -> list[Noun]:
    return [noun for noun in lexicon.NOUNS if noun.kinds & kinds]


@cache
def _adjectives(kinds: frozenset[str]) -> list[Adjective]:
    return [word for word in lexicon.ADJECTIVES if word.kinds & kinds]


class Drawing:
    """Draws sentences.

    Each makes sense in so far as verbs, nouns and adjectives go together, and each German
    sentence has one translation: where German leaves a choice, the grammar makes it.

    Args:
        seed: of the random numbers.
    """

    def __init__(self, seed: int) -> None:
        # Its random() alone is promised to give the same numbers for ever.
        self._random = random.Random(seed).random

    def sentence(self) -> Sentence:
        """One sentence."""
        kinds: dict[Callable[[], Sentence], int] = {
            self._plain: 9,
            self._question: 3,
            self._conjoined: 4,
            self._reported: 2,
            self._attempt: 2,
            self._with_relative: 3,
        }
        return self._weighted(kinds)()

    # ------------------------------------------------------------------------ sentences

    def _plain(self) -> Statement:
        clause = self._clause(self._tense())
        fronts = ["subject"] * 3
        fronts += ["time"] * 3 if clause.time else []
        fronts += ["place"] * 2 if clause.place else []
        # Only the masculine accusative shows that it is not the subject.
        thing = clause.accusative
        if isinstance(thing, NounPhrase) and thing.determiner in ("the", "this", "my", "our"):
            fronts += ["accusative"] * 3 if thing.noun.gender == "m" and not thing.plural else []
        return Statement(clause, self._one(fronts))

    def _question(self) -> Question:
        clause = self._clause(self._tense())
        words = [""] * 4 + ["why"]
        words += [] if clause.place else ["where"]
        words += [] if clause.time or clause.frequency else ["when"]
        if isinstance(clause.subject, NounPhrase) and clause.predicate is None:
            words += ["who"] * 2
        word = self._one(words)
        if word != "who":
            return Question(clause, word)
        for gap in ("accusative", "dative"):
            asked = getattr(clause, gap)
            if (
                isinstance(asked, NounPhrase)
                and asked.determiner not in _QUANTIFIERS
                and self._chance(0.7)
            ):
                person = "person" in asked.noun.kinds
                if person or gap == "accusative":
                    return Question(
                        dataclasses.replace(clause, gap=gap), "who" if person else "what"
                    )
        somebody = NounPhrase(lexicon.NOUNS[0])
        return Question(dataclasses.replace(clause, subject=somebody, gap="subject"), "who")

    def _conjoined(self) -> Statement:
        """Two clauses and a conjunction; the second may speak of the first one's subject."""
        conjunction = self._weighted(_CONJUNCTIONS)
        tense = self._weighted({"present": 3, "past": 2})
        if conjunction in ("whenever", "when"):
            tense = "present" if conjunction == "whenever" else "past"
        early, late = self._clause(tense, short=True), self._clause(tense, short=True)
        first = self._chance(0.4)
        # Before a pronoun it is said whom it stands for, in whichever clause comes first.
        early = dataclasses.replace(early, time=None) if not first else early
        late = self._following(early, late)
        if first:
            return Statement(late, "", (conjunction, early), subordinate_first=True)
        return Statement(early, "subject", (conjunction, late))

    def _reported(self) -> Statement:
        """Somebody believes that ..., or does not know whether ..."""
        verb = self._one(lexicon.SAYING_VERBS)
        reported = self._clause(self._tense(), short=True)
        # What was believed of the future would need a tense of its own in English.
        past = reported.tense == "past" and self._chance(0.5)
        main = Clause(self._subject(verb), verb, "past" if past else "present")
        reported = self._following(main, reported)
        if verb.german == "wissen" and self._chance(0.6) and not self._is_quantified(main):
            return Statement(
                dataclasses.replace(main, negated=True), subordinate=("whether", reported)
            )
        return Statement(main, subordinate=("that", reported))

    def _attempt(self) -> Statement:
        """Somebody tries to ..."""
        verb = self._one(lexicon.TRYING_VERBS)
        main = Clause(self._subject(verb), verb, self._tense())
        if self._chance(0.3):
            main = dataclasses.replace(main, time=self._time(main.tense))
        done = self._clause("present", short=True, subject=_ANYBODY, modal=False)
        while done.verb is None or self._is_quantified(done):
            done = self._clause("present", short=True, subject=_ANYBODY, modal=False)
        infinitive = dataclasses.replace(done, time=None, frequency=None, negated=False)
        return Statement(main, "time" if main.time else "subject", infinitive=infinitive)

    def _with_relative(self) -> Statement:
        """A statement whose subject is told from others by a clause of its own."""
        statement = self._plain()
        subject = statement.clause.subject
        if not isinstance(subject, NounPhrase) or subject.noun.name:
            return statement
        plain = dataclasses.replace(subject, determiner="the", adjectives=())
        relative = self._relative(plain)
        if relative is None:
            return statement
        modified = dataclasses.replace(
            subject,
            determiner="a" if subject.determiner == "a" else "the",
            relative=relative,
        )
        clause = dataclasses.replace(statement.clause, subject=modified)
        # A clause behind the subject parts it from its verb; a fronted object would be far off.
        front = "subject" if statement.front == "accusative" else statement.front
        return dataclasses.replace(statement, clause=clause, front=front)

    def _relative(self, phrase: NounPhrase) -> Clause | None:
        tense = self._weighted({"present": 3, "past": 2})
        if self._chance(0.5):
            verbs = [verb for verb in lexicon.VERBS if phrase.noun.kinds & verb.subjects]
            if not verbs:
                return None
            clause = self._with_objects(Clause(phrase, self._one(verbs), tense))
            clear = clause.accusative is None or _are_told_apart(phrase, clause.accusative)
            return dataclasses.replace(clause, gap="subject") if clear else None
        gap = self._weighted({"accusative": 3, "dative": 1})
        verbs = [
            verb
            for verb in lexicon.VERBS
            if phrase.noun.kinds & getattr(verb, gap) and not (verb.accusative and verb.dative)
        ]
        if not verbs:
            return None
        verb = self._one(verbs)
        subject = self._subject(verb)
        if gap == "accusative" and not _are_told_apart(phrase, subject):
            return None
        return _with_object(Clause(subject, verb, tense, gap=gap), gap, phrase)

    # -------------------------------------------------------------------------- clauses

    def _clause(
        self,
        tense: str,
        short: bool = False,
        subject: Phrase | None = None,
        modal: bool = True,
    ) -> Clause:
        """A clause in the given tense; a short one has fewer circumstances."""
        if self._chance(0.12) and modal:
            return self._description(tense)
        verb = self._one(lexicon.VERBS)
        clause = Clause(subject or self._subject(verb), verb, tense)
        if modal and tense == "present" and self._chance(0.25):
            clause = dataclasses.replace(clause, modal=self._one(lexicon.MODALS))
        clause = self._with_objects(clause)
        scale = 0.4 if short else 1
        if self._chance(0.4 * scale):
            clause = dataclasses.replace(clause, time=self._time(tense))
        if self._chance(0.4 * scale) and verb.german not in _WITHOUT_PLACE:
            clause = dataclasses.replace(clause, place=self._place())
        lasting = clause.time is None or clause.time in lexicon.TIMES["any"]
        usual = lasting and not self._is_quantified(clause)
        if tense != "future" and usual and self._chance(0.2 * scale):
            clause = dataclasses.replace(clause, frequency=self._one(lexicon.FREQUENCIES))
        return self._perhaps_negated(clause)

    def _description(self, tense: str) -> Clause:
        """Somebody or something is, was or will be so."""
        adjective = self._one([word for word in lexicon.ADJECTIVES if word.predicate])
        subject: Phrase = self._noun_phrase(self._one(_nouns(adjective.kinds)))
        if "person" in adjective.kinds and self._chance(0.4):
            subject = self._pronoun(_SUBJECT_PRONOUNS)
        if isinstance(subject, NounPhrase):
            kept = tuple(word for word in subject.adjectives if word.group != adjective.group)
            subject = dataclasses.replace(subject, adjectives=kept)
        clause = Clause(subject, None, tense, predicate=adjective)
        if self._chance(0.3) and {"person", "opinion"} <= {*adjective.kinds, adjective.group}:
            clause = dataclasses.replace(clause, time=self._time(tense))
        return self._perhaps_negated(clause)

    def _with_objects(self, clause: Clause) -> Clause:
        verb = clause.verb
        assert verb is not None
        accusative: Phrase | None = None
        dative: Phrase | None = None
        if verb.accusative:
            accusative = self._noun_phrase(self._noun(verb.accusative), clause)
            if "person" in verb.accusative and not verb.dative and self._chance(0.3):
                accusative = self._object_pronoun(_ACCUSATIVE_PRONOUNS, clause, accusative)
        if verb.dative:
            dative = self._noun_phrase(self._noun(verb.dative), clause)
            if self._chance(0.4):
                dative = self._object_pronoun(_DATIVE_PRONOUNS, clause, dative)
        return dataclasses.replace(clause, accusative=accusative, dative=dative)

    def _object_pronoun(
        self, pronouns: dict[str, int], clause: Clause, otherwise: Phrase
    ) -> Phrase:
        """A pronoun other than the subject's, which would have to be reflexive."""
        pronoun = self._pronoun(pronouns)
        subject = clause.subject
        if isinstance(subject, Pronoun) and subject.person == pronoun.person:
            return otherwise
        return pronoun

    def _following(self, first: Clause, second: Clause) -> Clause:
        """`second` after `first`, whose subject it may take over as a pronoun.

        A third person's pronoun would be taken for that subject, so there is no other.
        """
        subject = second.subject
        third = isinstance(subject, Pronoun) and subject.person == 3
        before = first.subject
        if (
            isinstance(before, NounPhrase)
            and before.noun.kinds & self._subject_kinds(second)
            and not self._vague(before)
            and (third or self._chance(0.5))
        ):
            subject, third = pronoun_for(before), False
        if third:
            subject = lexicon.PRONOUNS["I"]
        second = dataclasses.replace(second, subject=subject)
        for role in ("accusative", "dative"):
            thing = getattr(second, role)
            if isinstance(thing, Pronoun) and (
                thing.person == 3
                or (isinstance(subject, Pronoun) and subject.person == thing.person)
            ):
                noun = self._noun(getattr(second.verb, role))
                second = _with_object(second, role, self._noun_phrase(noun, second))
        return second

    @staticmethod
    def _subject_kinds(clause: Clause) -> frozenset[str]:
        if clause.predicate:
            return clause.predicate.kinds
        assert clause.verb is not None
        return clause.verb.subjects

    @staticmethod
    def _vague(phrase: NounPhrase) -> bool:
        """Whether there is nobody in particular that a pronoun could stand for."""
        return phrase.determiner in _QUANTIFIERS

    def _perhaps_negated(self, clause: Clause) -> Clause:
        """The clause, negated now and then: unless "kein" or "nie" is or would be the way."""
        things = clause.accusative, clause.dative
        indefinite = any(
            isinstance(thing, NounPhrase)
            and thing.determiner in _INDEFINITE
            and not thing.noun.name
            for thing in things
        )
        if indefinite or clause.frequency or self._is_quantified(clause) or not self._chance(0.15):
            return clause
        return dataclasses.replace(clause, negated=True)

    @staticmethod
    def _is_quantified(clause: Clause) -> bool:
        """Whether one more word for "no" or "every" would be too much."""
        phrases = clause.subject, clause.accusative, clause.dative
        return clause.negated or any(
            isinstance(phrase, NounPhrase) and phrase.determiner in _QUANTIFIERS
            for phrase in phrases
        )

    # -------------------------------------------------------------------------- phrases

    def _subject(self, verb: Verb) -> Phrase:
        if "person" in verb.subjects and self._chance(0.35):
            return self._pronoun(_SUBJECT_PRONOUNS)
        return self._noun_phrase(self._noun(verb.subjects))

    def _noun(self, kinds: frozenset[str]) -> Noun:
        if "person" in kinds and self._chance(0.12):
            return self._one(lexicon.NAMES)
        return self._one(_nouns(kinds))

    def _noun_phrase(self, noun: Noun, clause: Clause | None = None) -> NounPhrase:
        """A phrase, with a quantifier only if there is none in `clause`."""
        if noun.name:
            return NounPhrase(noun)
        plural = self._chance(0.25)
        determiners = dict(_PLURAL if plural else _SINGULAR)
        unsuitable: tuple[str, ...] = ()
        if clause is not None and self._is_quantified(clause):
            unsuitable += _QUANTIFIERS
        if noun.german in _NOT_POSSESSED:
            unsuitable += _POSSESSIVES
        for determiner in unsuitable:
            determiners.pop(determiner, None)
        return NounPhrase(noun, self._weighted(determiners), plural, self._adjectives(noun))

    def _adjectives(self, noun: Noun) -> tuple[Adjective, ...]:
        count = self._weighted({0: 6, 1: 4, 2: 1})
        drawn = [self._one(_adjectives(noun.kinds)) for _ in range(count)]
        by_group = {word.group: word for word in drawn}
        if "opinion" in by_group and "size" in by_group:
            del by_group["size"]
        return tuple(sorted(by_group.values(), key=lambda word: _GROUPS.index(word.group)))

    def _place(self) -> Place:
        german, english, noun = self._one(lexicon.PLACES)
        adjectives = self._adjectives(noun) if self._chance(0.4) else ()
        return Place(
            german, english, NounPhrase(noun, self._weighted(_OF_PLACES), False, adjectives)
        )

    def _time(self, tense: str) -> Adverb:
        return self._one(lexicon.TIMES[tense] + lexicon.TIMES["any"])

    def _tense(self) -> str:
        return self._weighted(_TENSES)

    def _pronoun(self, weights: dict[str, int]) -> Pronoun:
        return lexicon.PRONOUNS[self._weighted(weights)]

    # --------------------------------------------------------------------------- chance

    def _chance(self, probability: float) -> bool:
        return self._random() < probability

    def _one(self, choices: Sequence[T]) -> T:
        return choices[int(self._random() * len(choices))]

    def _weighted(self, weights: Mapping[T, int]) -> T:
        place = self._random() * sum(weights.values())
        for choice, weight in weights.items():
            place -= weight
            if place < 0:
                return choice
        return choice


def _with_object(clause: Clause, role: str, phrase: Phrase) -> Clause:
    if role == "accusative":
        return dataclasses.replace(clause, accusative=phrase)
    return dataclasses.replace(clause, dative=phrase)


def _are_told_apart(head: NounPhrase, other: Phrase) -> bool:
    """Whether form or agreement shows who does what in "HEAD, die OTHER sieht"."""
    if isinstance(other, Pronoun):
        return other.german[0] != other.german[1] or other.plural != head.plural
    masculine = [
        phrase
        for phrase in (head, other)
        if phrase.noun.gender == "m" and not phrase.plural and not phrase.noun.name
    ]
    return bool(masculine) or other.plural != head.plural
