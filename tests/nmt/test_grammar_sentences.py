"""Meanings become sentences: word order and agreement of both languages."""

from dataclasses import replace

import pytest

from nmt.grammar import english, german, lexicon
from nmt.grammar.meaning import Clause, Question, Statement
from tests.nmt.grammar_words import (
    ADJECTIVES,
    HE,
    ME,
    MODALS,
    SHE,
    THEY,
    TIMES,
    VERBS,
    WE,
    YOU,
    phrase,
    place,
)

SEES = Clause(phrase("Mann"), VERBS["sehen"], accusative=phrase("Hund", "a"))
CALLS = Clause(phrase("Frau"), VERBS["anrufen"], accusative=phrase("Nachbar"))
TIRED = Clause(phrase("Katze"), None, predicate=ADJECTIVES["müde"])
FOLLOWS = Clause(ME, VERBS["folgen"], "past", dative=phrase("Kind", plural=True))
THANKS = Clause(ME, VERBS["danken"], dative=phrase("Frau"))
SLEEPS = Clause(phrase("Mädchen"), VERBS["einschlafen"])
TODAY = TIMES["heute"]
OFTEN, ALWAYS, SOMETIMES, NEVER = lexicon.FREQUENCIES
SAYING = {verb.german: verb for verb in lexicon.SAYING_VERBS}
TRYING = {verb.prefix + verb.german: verb for verb in lexicon.TRYING_VERBS}


def relative(noun, clause, gap, plural=False):
    """The noun with a clause in which it has the part `gap`."""
    return replace(phrase(noun, plural=plural), relative=replace(clause, gap=gap))


def he(noun):
    return german.pronoun_for(phrase(noun))


SENTENCES = [
    # Tenses, and the two parts of the verb.
    (Statement(SEES), "Der Mann sieht einen Hund.", "The man sees a dog."),
    (
        Statement(replace(SEES, tense="past")),
        "Der Mann hat einen Hund gesehen.",
        "The man saw a dog.",
    ),
    (
        Statement(replace(SEES, tense="future")),
        "Der Mann wird einen Hund sehen.",
        "The man will see a dog.",
    ),
    (Statement(CALLS), "Die Frau ruft den Nachbarn an.", "The woman calls the neighbour."),
    (
        Statement(replace(CALLS, tense="past")),
        "Die Frau hat den Nachbarn angerufen.",
        "The woman called the neighbour.",
    ),
    (
        Statement(replace(CALLS, modal=MODALS["müssen"])),
        "Die Frau muss den Nachbarn anrufen.",
        "The woman has to call the neighbour.",
    ),
    (
        Statement(replace(SLEEPS, tense="past")),
        "Das Mädchen ist eingeschlafen.",
        "The girl fell asleep.",
    ),
    (Statement(TIRED), "Die Katze ist müde.", "The cat is tired."),
    (Statement(replace(TIRED, tense="past", subject=WE)), "Wir waren müde.", "We were tired."),
    (
        Statement(replace(TIRED, tense="future", subject=ME)),
        "Ich werde müde sein.",
        "I will be tired.",
    ),
    # Verb second, whatever comes first; only the case tells who sees whom.
    (
        Statement(replace(SEES, time=TODAY), "time"),
        "Heute sieht der Mann einen Hund.",
        "Today the man sees a dog.",
    ),
    (
        Statement(replace(CALLS, accusative=phrase("Mann")), "accusative"),
        "Den Mann ruft die Frau an.",
        "The woman calls the man.",
    ),
    (
        Statement(replace(CALLS, place=place("in Garten", "the", "groß"), time=TODAY), "place"),
        "Im großen Garten ruft die Frau heute den Nachbarn an.",
        "In the big garden the woman calls the neighbour today.",
    ),
    (
        Statement(replace(CALLS, tense="past", accusative=HE, place=place("hinter Schule", "our"))),
        "Die Frau hat ihn hinter unserer Schule angerufen.",
        "The woman called him behind our school.",
    ),
    (
        Statement(
            Clause(
                SHE,
                VERBS["zurückgeben"],
                dative=phrase("Kind"),
                accusative=phrase("Ball"),
                time=TODAY,
            )
        ),
        "Sie gibt heute dem Kind den Ball zurück.",
        "She gives the child the ball back today.",
    ),
    # Negation and frequency.
    (
        Statement(replace(CALLS, negated=True)),
        "Die Frau ruft den Nachbarn nicht an.",
        "The woman does not call the neighbour.",
    ),
    (
        Statement(replace(CALLS, negated=True, tense="past", place=place("an See"))),
        "Die Frau hat den Nachbarn nicht am See angerufen.",
        "The woman did not call the neighbour by the lake.",
    ),
    (
        Statement(replace(CALLS, negated=True, modal=MODALS["können"])),
        "Die Frau kann den Nachbarn nicht anrufen.",
        "The woman cannot call the neighbour.",
    ),
    (
        Statement(replace(CALLS, negated=True, modal=MODALS["müssen"])),
        "Die Frau muss den Nachbarn nicht anrufen.",
        "The woman does not have to call the neighbour.",
    ),
    (Statement(replace(TIRED, negated=True)), "Die Katze ist nicht müde.", "The cat is not tired."),
    (
        Statement(replace(SEES, accusative=phrase("Hund", "no"))),
        "Der Mann sieht keinen Hund.",
        "The man sees no dog.",
    ),
    (
        Statement(replace(SEES, frequency=OFTEN)),
        "Der Mann sieht oft einen Hund.",
        "The man often sees a dog.",
    ),
    (
        Statement(replace(CALLS, frequency=NEVER, tense="past")),
        "Die Frau hat den Nachbarn nie angerufen.",
        "The woman never called the neighbour.",
    ),
    # Questions.
    (Question(SEES), "Sieht der Mann einen Hund?", "Does the man see a dog?"),
    (
        Question(replace(CALLS, tense="past")),
        "Hat die Frau den Nachbarn angerufen?",
        "Did the woman call the neighbour?",
    ),
    (
        Question(replace(CALLS, modal=MODALS["dürfen"])),
        "Darf die Frau den Nachbarn anrufen?",
        "May the woman call the neighbour?",
    ),
    (
        Question(replace(TIRED, tense="past"), "why"),
        "Warum war die Katze müde?",
        "Why was the cat tired?",
    ),
    (
        Question(replace(SLEEPS, subject=YOU), "where"),
        "Wo schläfst du ein?",
        "Where do you fall asleep?",
    ),
    (
        Question(replace(CALLS, gap="accusative"), "who"),
        "Wen ruft die Frau an?",
        "Who does the woman call?",
    ),
    (
        Question(replace(CALLS, gap="subject"), "who"),
        "Wer ruft den Nachbarn an?",
        "Who calls the neighbour?",
    ),
    (
        Question(Clause(WE, VERBS["helfen"], "future", dative=HE, gap="dative"), "who"),
        "Wem werden wir helfen?",
        "Who will we help?",
    ),
    (
        Question(replace(SEES, gap="accusative", subject=THEY), "what"),
        "Was sehen sie?",
        "What do they see?",
    ),
    # Subordinate clauses: the finite verb comes last, and separable verbs are whole.
    (
        Statement(TIRED, subordinate=("because", CALLS)),
        "Die Katze ist müde, weil die Frau den Nachbarn anruft.",
        "The cat is tired because the woman calls the neighbour.",
    ),
    (
        Statement(
            TIRED, subordinate=("although", replace(CALLS, tense="past")), subordinate_first=True
        ),
        "Obwohl die Frau den Nachbarn angerufen hat, ist die Katze müde.",
        "Although the woman called the neighbour, the cat is tired.",
    ),
    (
        Statement(
            Clause(ME, SAYING["wissen"], negated=True),
            subordinate=("whether", replace(CALLS, modal=MODALS["wollen"])),
        ),
        "Ich weiß nicht, ob die Frau den Nachbarn anrufen will.",
        "I do not know whether the woman wants to call the neighbour.",
    ),
    (
        Statement(
            Clause(HE, SAYING["glauben"]), subordinate=("that", replace(TIRED, tense="future"))
        ),
        "Er glaubt, dass die Katze müde sein wird.",
        "He believes that the cat will be tired.",
    ),
    # A pronoun has the gender of the German noun, and in English that of the being.
    (
        Statement(SLEEPS, subordinate=("because", replace(TIRED, subject=he("Mädchen")))),
        "Das Mädchen schläft ein, weil es müde ist.",
        "The girl falls asleep because she is tired.",
    ),
    (
        Statement(
            replace(SLEEPS, subject=phrase("Hund")),
            subordinate=("because", replace(TIRED, subject=he("Hund"))),
        ),
        "Der Hund schläft ein, weil er müde ist.",
        "The dog falls asleep because it is tired.",
    ),
    # Relative clauses: gender of the noun, case of its part in the clause.
    (
        Statement(
            replace(
                TIRED, subject=relative("Mann", replace(CALLS, subject=phrase("Mann")), "subject")
            )
        ),
        "Der Mann, der den Nachbarn anruft, ist müde.",
        "The man who calls the neighbour is tired.",
    ),
    (
        Statement(replace(TIRED, subject=relative("Hund", SEES, "accusative"), time=TODAY), "time"),
        "Heute ist der Hund, den der Mann sieht, müde.",
        "Today the dog that the man sees is tired.",
    ),
    (
        Statement(
            replace(
                SLEEPS,
                subject=relative("Kind", FOLLOWS, "dative", plural=True),
                modal=MODALS["können"],
            )
        ),
        "Die Kinder, denen ich gefolgt bin, können einschlafen.",
        "The children that I followed can fall asleep.",
    ),
    (
        Statement(
            replace(SLEEPS, subject=relative("Frau", THANKS, "dative"), tense="past", time=TODAY),
            "time",
            ("when", TIRED),
        ),
        "Heute ist die Frau, der ich danke, eingeschlafen, als die Katze müde ist.",
        "Today the woman that I thank fell asleep when the cat is tired.",
    ),
    (
        Question(
            replace(
                TIRED,
                predicate=ADJECTIVES["klug"],
                subject=relative("Pferd", replace(SLEEPS, subject=phrase("Pferd")), "subject"),
            )
        ),
        "Ist das Pferd, das einschläft, klug?",
        "Is the horse that falls asleep clever?",
    ),
    # Infinitives with "zu", inside a separable verb.
    (
        Statement(
            Clause(SHE, TRYING["versuchen"], "past"),
            infinitive=replace(CALLS, place=place("auf Markt")),
        ),
        "Sie hat versucht, den Nachbarn auf dem Markt anzurufen.",
        "She tried to call the neighbour at the market.",
    ),
    (
        Statement(Clause(WE, TRYING["vorhaben"], time=TODAY), "time", infinitive=SEES),
        "Heute haben wir vor, einen Hund zu sehen.",
        "Today we intend to see a dog.",
    ),
]


@pytest.mark.parametrize(("meaning", "in_german", "in_english"), SENTENCES)
def test_sentences(meaning, in_german, in_english):
    assert german.sentence(meaning) == in_german
    assert english.sentence(meaning) == in_english
