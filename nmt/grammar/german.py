"""German: inflection and word order of the phrase grammar."""

from __future__ import annotations

from nmt.grammar.lexicon import PRONOUNS
from nmt.grammar.meaning import (
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
    agreement,
)

CASES = ("nominative", "accusative", "dative")
GENDERS = ("m", "f", "n", "plural")

Endings = dict[str, tuple[str, ...]]
# By case and gender: of "dieser", of "kein", of adjectives after either and after neither.
_LIKE_DIESER: Endings = {
    "nominative": ("er", "e", "es", "e"),
    "accusative": ("en", "e", "es", "e"),
    "dative": ("em", "er", "em", "en"),
}
_LIKE_KEIN: Endings = {
    "nominative": ("", "e", "", "e"),
    "accusative": ("en", "e", "", "e"),
    "dative": ("em", "er", "em", "en"),
}
_WEAK: Endings = {
    "nominative": ("e", "e", "e", "en"),
    "accusative": ("en", "e", "e", "en"),
    "dative": ("en", "en", "en", "en"),
}
_MIXED: Endings = {
    "nominative": ("er", "e", "es", "en"),
    "accusative": ("en", "e", "es", "en"),
    "dative": ("en", "en", "en", "en"),
}
_ARTICLE: Endings = {
    "nominative": ("der", "die", "das", "die"),
    "accusative": ("den", "die", "das", "die"),
    "dative": ("dem", "der", "dem", "den"),
}
_RELATIVE: Endings = {**_ARTICLE, "dative": ("dem", "der", "dem", "denen")}
_STEMS_LIKE_DIESER = {"this": "dies", "every": "jed"}
_STEMS_LIKE_KEIN = {
    "a": "ein",
    "no": "kein",
    "my": "mein",
    "your": "dein",
    "his": "sein",
    "our": "unser",
}
_INDEFINITE = ("a", "no", "many", "two", "three", "")
_UNINFLECTED = {"two": "zwei", "three": "drei", "": ""}

_CONJUNCTIONS = {
    "because": "weil",
    "although": "obwohl",
    "whenever": "wenn",
    "when": "als",
    "while": "während",
    "before": "bevor",
    "that": "dass",
    "whether": "ob",
}
_QUESTION_WORDS = {"where": "wo", "when": "wann", "why": "warum"}

# First and third person singular, second person singular.
_IRREGULAR = {
    "haben": ("habe", "hast", "hat"),
    "sein": ("bin", "bist", "ist"),
    "werden": ("werde", "wirst", "wird"),
    "wissen": ("weiß", "weißt", "weiß"),
    "können": ("kann", "kannst", "kann"),
    "müssen": ("muss", "musst", "muss"),
    "wollen": ("will", "willst", "will"),
    "sollen": ("soll", "sollst", "soll"),
    "dürfen": ("darf", "darfst", "darf"),
}
_SEIN_PLURAL = ("sind", "seid", "sind")
_WAR = ("war", "warst", "war"), ("waren", "wart", "waren")


def sentence(meaning: Sentence) -> str:
    """The German sentence, with a capital and a full stop or question mark."""
    if isinstance(meaning, Question):
        return _finished(_question(meaning), "?")
    return _finished(_statement(meaning), ".")


# ---------------------------------------------------------------------------- noun phrases


def gender(phrase: NounPhrase) -> str:
    """ "m", "f", "n" or "plural"."""
    return "plural" if phrase.plural else phrase.noun.gender


def noun_phrase(phrase: NounPhrase, case: str) -> str:
    """Determiner, adjectives and noun, all of which agree; a relative clause between commas."""
    column = GENDERS.index(gender(phrase))
    determiner, endings = _determiner(phrase.determiner, case, column)
    adjectives = [adjective.stem + endings[case][column] for adjective in phrase.adjectives]
    words = [determiner, *adjectives, _noun(phrase.noun, phrase.plural, case)]
    text = " ".join(word for word in words if word)
    if phrase.relative:
        clause = phrase.relative
        role = "nominative" if clause.gap == "subject" else clause.gap
        text += f", {_RELATIVE[role][column]} {_verb_last(clause)},"
    return text


def pronoun_for(phrase: NounPhrase) -> Pronoun:
    """The pronoun that stands for a phrase: by grammatical gender, and in English by nature."""
    if phrase.plural:
        return PRONOUNS["they"]
    german = PRONOUNS[{"m": "he", "f": "she", "n": "it"}[phrase.noun.gender]].german
    return Pronoun(german, PRONOUNS[phrase.noun.pronoun].english, 3, False)


def _determiner(key: str, case: str, column: int) -> tuple[str, Endings]:
    """The word, and the endings of adjectives that follow it."""
    if key == "the":
        return _ARTICLE[case][column], _WEAK
    if key in _STEMS_LIKE_DIESER:
        return _STEMS_LIKE_DIESER[key] + _LIKE_DIESER[case][column], _WEAK
    if key in _STEMS_LIKE_KEIN:
        return _STEMS_LIKE_KEIN[key] + _LIKE_KEIN[case][column], _MIXED
    if key == "many":
        return "viele" + ("n" if case == "dative" else ""), _LIKE_DIESER
    return _UNINFLECTED[key], _LIKE_DIESER


def _noun(noun: Noun, plural: bool, case: str) -> str:
    if not plural:
        if noun.weak and case != "nominative":
            return noun.german_plural
        return noun.german
    if case == "dative" and not noun.german_plural.endswith(("n", "s")):
        return noun.german_plural + "n"
    return noun.german_plural


def _phrase(phrase: Phrase, case: str) -> str:
    if isinstance(phrase, Pronoun):
        return phrase.german[CASES.index(case)]
    return noun_phrase(phrase, case)


def _place(place: Place) -> str:
    text = f"{place.german} {noun_phrase(place.phrase, 'dative')}"
    if place.phrase.determiner == "the":
        for long, short in (("in dem ", "im "), ("an dem ", "am ")):
            if text.startswith(long):
                return short + text.removeprefix(long)
    return text


# ----------------------------------------------------------------------------------- verbs


def present(infinitive: str, changed: str, person: int, plural: bool) -> str:
    """The present tense.

    Args:
        infinitive: without a prefix.
        changed: the stem in the second and third person singular, if it is another.
        person: 1, 2 or 3.
    """
    if plural and infinitive == "sein":
        return _SEIN_PLURAL[person - 1]
    if not plural and infinitive in _IRREGULAR:
        return _IRREGULAR[infinitive][person - 1]
    if plural and person != 2:
        return infinitive
    stem = infinitive.removesuffix("n").removesuffix("e")
    if not plural and person == 1:
        return stem + "e"
    if not plural and changed:
        stem, link = changed, ""
    else:
        link = "e" if stem.endswith(("t", "d", "fn")) else ""
    if person == 3 or plural:
        return stem + link + "t"
    return stem + ("t" if stem.endswith(("s", "ß", "z")) else link + "st")


def _verb_parts(clause: Clause) -> tuple[str, str]:
    """The finite verb without its prefix, and what stands at the end of a main clause."""
    person, plural = agreement(clause.subject)
    verb = clause.verb
    if verb is None:
        if clause.tense == "past":
            return _WAR[plural][person - 1], ""
        if clause.tense == "future":
            return present("werden", "", person, plural), "sein"
        return present("sein", "", person, plural), ""
    infinitive = verb.prefix + verb.german
    if clause.modal:
        return present(clause.modal.german, "", person, plural), infinitive
    if clause.tense == "future":
        return present("werden", "", person, plural), infinitive
    if clause.tense == "past":
        return present(verb.auxiliary, "", person, plural), verb.participle
    return present(verb.german, verb.changed, person, plural), verb.prefix


def with_zu(verb: Verb) -> str:
    """The infinitive with "zu", which goes behind a separable prefix."""
    return f"{verb.prefix}zu{verb.german}" if verb.prefix else f"zu {verb.german}"


# ------------------------------------------------------------------------------ word order


def _middle(clause: Clause, without: str = "") -> list[str]:
    """All but subject and verb: what stands between the two parts of the verb.

    Pronouns come first, then time, objects, "nicht", and place. Frequency comes behind definite
    objects and before others.
    """
    parts = {
        "accusative": clause.accusative and _phrase(clause.accusative, "accusative"),
        "dative": clause.dative and _phrase(clause.dative, "dative"),
        "time": clause.time and clause.time.german,
        "frequency": clause.frequency and clause.frequency.german,
        "nicht": "nicht" if clause.negated else "",
        "place": clause.place and _place(clause.place),
        "predicate": clause.predicate and clause.predicate.german,
    }
    pronouns = [
        role for role in ("accusative", "dative") if isinstance(getattr(clause, role), Pronoun)
    ]
    objects = [role for role in ("dative", "accusative") if role not in pronouns]
    indefinite = [_is_indefinite(getattr(clause, role)) for role in objects] + [True]
    objects.insert(indefinite.index(True), "frequency")
    order = [*pronouns, "time", *objects, "nicht", "place", "predicate"]
    return [text for role in order if role not in (without, clause.gap) and (text := parts[role])]


def _is_indefinite(phrase: Phrase | None) -> bool:
    if not isinstance(phrase, NounPhrase) or phrase.noun.name:
        return False
    return phrase.determiner in _INDEFINITE


def _verb_last(clause: Clause) -> str:
    """A subordinate clause, without the word that introduces it."""
    finite, end = _verb_parts(clause)
    subject = [] if clause.gap == "subject" else [_phrase(clause.subject, "nominative")]
    separable = clause.verb is not None and end == clause.verb.prefix
    verbs = end + finite if separable else f"{end} {finite}".strip()
    return " ".join([*subject, *_middle(clause), verbs])


def _verb_second(clause: Clause, front: str, fronted: str = "") -> str:
    """A main clause.

    Args:
        front: the part before the finite verb; "" if `fronted` has its text, or there is none.
    """
    finite, end = _verb_parts(clause)
    subject = _phrase(clause.subject, "nominative")
    if front == "subject":
        fronted = subject
    elif front == "time" and clause.time:
        fronted = clause.time.german
    elif front == "place" and clause.place:
        fronted = _place(clause.place)
    elif front == "accusative" and clause.accusative:
        fronted = _phrase(clause.accusative, "accusative")
    behind = [] if "subject" in (front, clause.gap) else [subject]
    words = [fronted, finite, *behind, *_middle(clause, front), end]
    return " ".join(word for word in words if word)


def _statement(meaning: Statement) -> str:
    if meaning.subordinate is None:
        text = _verb_second(meaning.clause, meaning.front)
        if infinitive := meaning.infinitive:
            assert infinitive.verb is not None
            text += ", " + " ".join([*_middle(infinitive), with_zu(infinitive.verb)])
        return text
    conjunction, clause = meaning.subordinate
    subordinate = f"{_CONJUNCTIONS[conjunction]} {_verb_last(clause)}"
    if meaning.subordinate_first:
        return _verb_second(meaning.clause, "", subordinate + ",")
    return f"{_verb_second(meaning.clause, meaning.front)}, {subordinate}"


def _question(meaning: Question) -> str:
    word = _QUESTION_WORDS.get(meaning.word, "")
    if meaning.word in ("who", "what"):
        role = "nominative" if meaning.clause.gap == "subject" else meaning.clause.gap
        forms = {"nominative": "wer", "accusative": "wen", "dative": "wem"}
        word = forms[role] if meaning.word == "who" else "was"
    return _verb_second(meaning.clause, "", word)


def _finished(text: str, end: str) -> str:
    # A relative clause's second comma is the sentence's only one where both would meet.
    text = text.replace(",,", ",").removesuffix(",")
    return text[0].upper() + text[1:] + end
