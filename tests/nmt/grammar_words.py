"""The grammar's words and phrases by their German forms, for its tests."""

from nmt.grammar import lexicon
from nmt.grammar.meaning import NounPhrase, Place

NOUNS = {noun.german: noun for noun in (*lexicon.NOUNS, *lexicon.NAMES)}
VERBS = {verb.prefix + verb.german: verb for verb in lexicon.VERBS}
ADJECTIVES = {word.german: word for word in lexicon.ADJECTIVES}
ALL_VERBS = (*lexicon.VERBS, *lexicon.SAYING_VERBS, *lexicon.TRYING_VERBS)
MODALS = {modal.german: modal for modal in lexicon.MODALS}
TIMES = {time.german: time for times in lexicon.TIMES.values() for time in times}
PLACES = {
    f"{preposition} {noun.german}": (preposition, other, noun)
    for preposition, other, noun in lexicon.PLACES
}
ME, YOU, HE, SHE, IT, WE, YOU_ALL, THEY = lexicon.PRONOUNS.values()


def phrase(noun, determiner="the", plural=False, *adjectives):
    """A noun phrase by its German words."""
    return NounPhrase(
        NOUNS[noun], determiner, plural, tuple(ADJECTIVES[word] for word in adjectives)
    )


def place(key, determiner="the", *adjectives):
    """A place by its German preposition and noun."""
    preposition, other, noun = PLACES[key]
    words = tuple(ADJECTIVES[word] for word in adjectives)
    return Place(preposition, other, NounPhrase(noun, determiner, False, words))
