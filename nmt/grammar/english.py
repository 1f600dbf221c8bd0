"""English: inflection and word order of the phrase grammar."""

from __future__ import annotations

from nmt.grammar.lexicon import with_s
from nmt.grammar.meaning import (
    Clause,
    NounPhrase,
    Phrase,
    Place,
    Pronoun,
    Question,
    Sentence,
    Statement,
    agreement,
)

_CONJUNCTIONS = {
    "because": "because",
    "although": "although",
    "whenever": "when",
    "when": "when",
    "while": "while",
    "before": "before",
    "that": "that",
    "whether": "whether",
}
_BE = {"present": (("am", "are", "is"), "are"), "past": (("was", "were", "was"), "were")}


def sentence(meaning: Sentence) -> str:
    """The English sentence, with a capital and a full stop or question mark."""
    if isinstance(meaning, Question):
        text, end = _question(meaning), "?"
    else:
        text, end = _statement(meaning), "."
    return text[0].upper() + text[1:] + end


def noun_phrase(phrase: NounPhrase) -> str:
    """Determiner, adjectives, noun, and a relative clause without commas."""
    noun = phrase.noun.english_plural if phrase.plural else phrase.noun.english
    words = [*(adjective.english for adjective in phrase.adjectives), noun]
    determiner = phrase.determiner
    if determiner == "this" and phrase.plural:
        determiner = "these"
    elif determiner == "a" and words[0][0] in "aeiou":
        determiner = "an"
    text = " ".join([determiner, *words]).strip()
    if clause := phrase.relative:
        person = clause.gap == "subject" and "person" in phrase.noun.kinds
        text += f" {'who' if person else 'that'} {_clause(clause)}"
    return text


def _phrase(phrase: Phrase, subject: bool = False) -> str:
    if isinstance(phrase, Pronoun):
        return phrase.english[0 if subject else 1]
    return noun_phrase(phrase)


def _place(place: Place) -> str:
    return f"{place.english} {noun_phrase(place.phrase)}"


def _third_person(base: str) -> str:
    first, *rest = base.split(" ")
    return " ".join(["has" if first == "have" else with_s(first), *rest])


def _verbs(clause: Clause, auxiliary_needed: bool) -> tuple[str, str]:
    """The auxiliary, if there is one, and the verb that follows.

    Args:
        auxiliary_needed: "do" is the auxiliary if there is no other, as in questions.
    """
    person, plural = agreement(clause.subject)
    base = clause.verb.english if clause.verb else "be"
    if clause.tense == "future":
        return "will", base
    if clause.verb is None:
        singular, plural_form = _BE[clause.tense]
        return plural_form if plural else singular[person - 1], ""
    past = clause.verb.past
    if clause.modal:
        if " " not in clause.modal.english:
            return clause.modal.english, base
        base = f"{clause.modal.english} {base}"
    third = clause.tense == "present" and person == 3 and not plural
    if auxiliary_needed:
        return "did" if clause.tense == "past" else "does" if third else "do", base
    if clause.tense == "past":
        return "", past
    return "", _third_person(base) if third else base


def _behind(clause: Clause, without: str = "") -> list[str]:
    """What follows the verb: objects, particle, predicate, place and time."""
    parts = {
        "dative": clause.dative and _phrase(clause.dative),
        "accusative": clause.accusative and _phrase(clause.accusative),
        "particle": clause.verb and clause.verb.particle,
        "predicate": clause.predicate and clause.predicate.english,
        "place": clause.place and _place(clause.place),
        "time": clause.time and clause.time.english,
    }
    return [text for role, text in parts.items() if role not in (without, clause.gap) and text]


def _clause(clause: Clause, without: str = "", inverted: bool = False) -> str:
    """A clause, main or subordinate: the order is the same.

    Args:
        without: a part that has been said before it.
        inverted: the auxiliary comes before the subject, as in questions.
    """
    auxiliary, verb = _verbs(clause, inverted or clause.negated)
    subject = "" if clause.gap == "subject" else _phrase(clause.subject, subject=True)
    frequency = clause.frequency.english if clause.frequency else ""
    negation = "not" if clause.negated else ""
    if auxiliary == "can" and negation and not inverted:
        auxiliary, negation = "cannot", ""
    start = [auxiliary, subject] if inverted else [subject, auxiliary]
    words = [*start, negation, frequency, verb, *_behind(clause, without)]
    return " ".join(word for word in words if word)


def _statement(meaning: Statement) -> str:
    clause = meaning.clause
    # An object before the verb would be the subject: English says it behind the verb again.
    front = meaning.front if meaning.front in ("time", "place") else ""
    fronted = ""
    if front == "time" and clause.time:
        fronted = f"{clause.time.english} "
    elif front == "place" and clause.place:
        fronted = f"{_place(clause.place)} "
    text = fronted + _clause(clause, without=front)
    if infinitive := meaning.infinitive:
        assert infinitive.verb is not None
        return " ".join([text, "to", infinitive.verb.english, *_behind(infinitive)])
    if meaning.subordinate is None:
        return text
    conjunction, subordinate = meaning.subordinate
    subordinate_text = f"{_CONJUNCTIONS[conjunction]} {_clause(subordinate)}"
    if meaning.subordinate_first:
        return f"{subordinate_text}, {text}"
    return f"{text} {subordinate_text}"


def _question(meaning: Question) -> str:
    text = _clause(meaning.clause, inverted=meaning.clause.gap != "subject")
    return f"{meaning.word} {text}".strip()
