"""What a sentence of the phrase grammar says, apart from the language it says it in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """A countable noun, or a name, which is its own translation.

    Args:
        german, german_plural: nominative.
        gender: grammatical, "m", "f" or "n".
        english, english_plural: likewise.
        kinds: what it is, such as "person" or "thing"; verbs and adjectives go with some kinds.
        pronoun: English pronoun, "he", "she" or "it".
        weak: its German singular has the plural's form outside the nominative.
        name: takes no determiner.
    """

    german: str
    gender: str
    german_plural: str
    english: str
    english_plural: str
    kinds: frozenset[str]
    pronoun: str = "it"
    weak: bool = False
    name: bool = False


@dataclass(frozen=True)
class Adjective:
    """An adjective.

    Args:
        german: as a predicate.
        stem: what its endings are added to.
        kinds: of nouns that it may describe.
        group: two adjectives before a noun are of different groups, "opinion" or "size" before
            "age", "age" before "color".
        predicate: whether it is also used after "to be".
    """

    german: str
    stem: str
    english: str
    kinds: frozenset[str]
    group: str
    predicate: bool


@dataclass(frozen=True)
class Verb:
    """A verb.

    Args:
        german: infinitive, without a separable prefix.
        prefix: separable, or empty.
        changed: the stem in the second and third person singular, or empty.
        participle: with the prefix.
        auxiliary: "haben" or "sein", in the perfect.
        english, past: base and past form, perhaps of several words.
        particle: English, behind the objects, or empty.
        subjects: kinds of noun that can do it.
        accusative, dative: kinds of noun that can be its objects; empty: none.
    """

    german: str
    prefix: str
    changed: str
    participle: str
    auxiliary: str
    english: str
    past: str
    particle: str
    subjects: frozenset[str]
    accusative: frozenset[str]
    dative: frozenset[str]


@dataclass(frozen=True)
class Pronoun:
    """A personal pronoun: German nominative, accusative and dative, English subject and object."""

    german: tuple[str, str, str]
    english: tuple[str, str]
    person: int
    plural: bool


@dataclass(frozen=True)
class NounPhrase:
    """A noun with what belongs to it.

    Args:
        determiner: a key of the grammars' tables, "" for none.
        adjectives: in the order in which they are spoken.
        relative: a clause in which `gap` names the part that the noun plays.
    """

    noun: Noun
    determiner: str = ""
    plural: bool = False
    adjectives: tuple[Adjective, ...] = ()
    relative: Clause | None = None


@dataclass(frozen=True)
class Place:
    """Where something happens; the German preposition takes the dative."""

    german: str
    english: str
    phrase: NounPhrase


@dataclass(frozen=True)
class Adverb:
    """A time or a frequency, in words of both languages."""

    german: str
    english: str


@dataclass(frozen=True)
class Modal:
    """A modal verb; `english` with "to" is a full verb, otherwise an auxiliary."""

    german: str
    english: str


Phrase = NounPhrase | Pronoun


@dataclass(frozen=True)
class Clause:
    """Who does what to whom, when and where.

    Args:
        subject: unless it is the gap.
        verb: None in clauses that say what the subject is (`predicate`).
        tense: "present", "past" or "future".
        modal: with present tense only.
        negated: by a word for "not".
        gap: "subject", "accusative" or "dative" if a relative pronoun or a question word plays
            that part; the phrase is given all the same, for agreement.
    """

    subject: Phrase
    verb: Verb | None
    tense: str = "present"
    modal: Modal | None = None
    negated: bool = False
    predicate: Adjective | None = None
    accusative: Phrase | None = None
    dative: Phrase | None = None
    time: Adverb | None = None
    frequency: Adverb | None = None
    place: Place | None = None
    gap: str = ""


@dataclass(frozen=True)
class Statement:
    """A main clause, perhaps with a subordinate one.

    Args:
        front: the part before the German finite verb: "subject", "time", "place" or "accusative".
        subordinate: conjunction's key and clause.
        subordinate_first: it then takes the place of `front`.
        infinitive: a clause without subject and tense that depends on the verb ("tries to ...").
    """

    clause: Clause
    front: str = "subject"
    subordinate: tuple[str, Clause] | None = None
    subordinate_first: bool = False
    infinitive: Clause | None = None


@dataclass(frozen=True)
class Question:
    """A question: with a question word's key, or "" for one that is answered by yes or no."""

    clause: Clause
    word: str = ""


Sentence = Statement | Question


def agreement(subject: Phrase) -> tuple[int, bool]:
    """A subject's person, and whether it is plural."""
    if isinstance(subject, Pronoun):
        return subject.person, subject.plural
    return 3, subject.plural
