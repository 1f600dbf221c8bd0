"""The phrase grammar: inflection and word order as grammars of the two languages have them."""

import doctest
import itertools
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from nmt import grammar
from nmt.grammar import english, german, lexicon
from nmt.grammar.drawing import Drawing
from nmt.grammar.meaning import Clause, NounPhrase, Place, Question, Statement

NOUNS = {noun.german: noun for noun in (*lexicon.NOUNS, *lexicon.NAMES)}
VERBS = {verb.prefix + verb.german: verb for verb in lexicon.VERBS}
ADJECTIVES = {word.german: word for word in lexicon.ADJECTIVES}
MODALS = {modal.german: modal for modal in lexicon.MODALS}
TIMES = {time.german: time for times in lexicon.TIMES.values() for time in times}
PLACES = {
    f"{preposition} {noun.german}": (preposition, other, noun)
    for preposition, other, noun in lexicon.PLACES
}
ME, YOU, HE, SHE, IT, WE, YOU_ALL, THEY = lexicon.PRONOUNS.values()


def phrase(noun, determiner="the", plural=False, *adjectives):
    return NounPhrase(
        NOUNS[noun], determiner, plural, tuple(ADJECTIVES[word] for word in adjectives)
    )


def place(key, determiner="the", *adjectives):
    preposition, other, noun = PLACES[key]
    words = tuple(ADJECTIVES[word] for word in adjectives)
    return Place(preposition, other, NounPhrase(noun, determiner, False, words))


# ------------------------------------------------------------------------------ inflection

AGREEMENT = """
the   | Hund  | der kleine Hund    | den kleinen Hund    | dem kleinen Hund
the   | Katze | die kleine Katze   | die kleine Katze    | der kleinen Katze
the   | Pferd | das kleine Pferd   | das kleine Pferd    | dem kleinen Pferd
the   | Hund+ | die kleinen Hunde  | die kleinen Hunde   | den kleinen Hunden
a     | Hund  | ein kleiner Hund   | einen kleinen Hund  | einem kleinen Hund
a     | Katze | eine kleine Katze  | eine kleine Katze   | einer kleinen Katze
a     | Pferd | ein kleines Pferd  | ein kleines Pferd   | einem kleinen Pferd
no    | Hund  | kein kleiner Hund  | keinen kleinen Hund | keinem kleinen Hund
no    | Katze+ | keine kleinen Katzen | keine kleinen Katzen | keinen kleinen Katzen
our   | Hund  | unser kleiner Hund | unseren kleinen Hund | unserem kleinen Hund
our   | Katze | unsere kleine Katze | unsere kleine Katze | unserer kleinen Katze
our   | Pferd+ | unsere kleinen Pferde | unsere kleinen Pferde | unseren kleinen Pferden
this  | Hund  | dieser kleine Hund | diesen kleinen Hund | diesem kleinen Hund
this  | Katze | diese kleine Katze | diese kleine Katze  | dieser kleinen Katze
this  | Pferd | dieses kleine Pferd | dieses kleine Pferd | diesem kleinen Pferd
this  | Pferd+ | diese kleinen Pferde | diese kleinen Pferde | diesen kleinen Pferden
every | Hund  | jeder kleine Hund  | jeden kleinen Hund  | jedem kleinen Hund
many  | Hund+ | viele kleine Hunde | viele kleine Hunde  | vielen kleinen Hunden
two   | Hund+ | zwei kleine Hunde  | zwei kleine Hunde   | zwei kleinen Hunden
      | Hund+ | kleine Hunde       | kleine Hunde        | kleinen Hunden
"""


@pytest.mark.parametrize("line", AGREEMENT.strip().splitlines())
def test_determiner_adjective_and_noun_agree(line):
    determiner, noun, *expected = (field.strip() for field in line.split("|"))
    meant = phrase(noun.rstrip("+"), determiner, noun.endswith("+"), "klein")
    assert [german.noun_phrase(meant, case) for case in german.CASES] == expected


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("Junge", "der Junge den Jungen dem Jungen die Jungen den Jungen"),
        ("Student", "der Student den Studenten dem Studenten die Studenten den Studenten"),
        ("Bär", "der Bär den Bären dem Bären die Bären den Bären"),
        ("Nachbar", "der Nachbar den Nachbarn dem Nachbarn die Nachbarn den Nachbarn"),
        ("Mann", "der Mann den Mann dem Mann die Männer den Männern"),
        ("Auto", "das Auto das Auto dem Auto die Autos den Autos"),
        ("Apfel", "der Apfel den Apfel dem Apfel die Äpfel den Äpfeln"),
        ("Frau", "die Frau die Frau der Frau die Frauen den Frauen"),
    ],
)
def test_declension(noun, expected):
    forms = [german.noun_phrase(phrase(noun), case) for case in german.CASES]
    forms += [german.noun_phrase(phrase(noun, plural=True), case) for case in german.CASES[::2]]
    assert " ".join(forms) == expected


def test_adjectives_whose_stem_changes():
    assert german.noun_phrase(phrase("Uhr", "a", False, "teuer"), "dative") == "einer teuren Uhr"
    assert german.noun_phrase(phrase("Mann", "a", False, "müde"), "nominative") == "ein müder Mann"


# The second and third person singular of every verb.
PRESENT = """
siehst sieht, suchst sucht, findest findet, malst malt, fotografierst fotografiert, siehst sieht,
hörst hört, kaufst kauft, verkaufst verkauft, bringst bringt, verlierst verliert,
vergisst vergisst, versteckst versteckt, holst holt, trägst trägt, nimmst nimmt, bringst bringt,
wirfst wirft, liest liest, schreibst schreibt, verstehst versteht, isst isst, isst isst,
wäschst wäscht, ziehst zieht, reparierst repariert, öffnest öffnet, machst macht, liebst liebt,
fütterst füttert, jagst jagt, beißt beißt, kennst kennt, fragst fragt, besuchst besucht,
triffst trifft, begrüßt begrüßt, rufst ruft, lädst lädt, holst holt, weckst weckt, lernst lernt,
hilfst hilft, folgst folgt, dankst dankt, antwortest antwortet, vertraust vertraut, hörst hört,
gibst gibt, zeigst zeigt, schickst schickt, leihst leiht, gibst gibt, liest liest,
schläfst schläft, arbeitest arbeitet, lachst lacht, weinst weint, singst singt, tanzt tanzt,
spielst spielt, läufst läuft, schwimmst schwimmt, wartest wartet, sitzt sitzt, stehst steht,
schläfst schläft, wachst wacht, kommst kommt, kommst kommt, läufst läuft, siehst sieht,
denkst denkt, glaubst glaubt, weißt weiß, sagst sagt, hoffst hofft, denkst denkt,
versuchst versucht, vergisst vergisst, beschließt beschließt, hoffst hofft, hast hat
"""
ALL_VERBS = (*lexicon.VERBS, *lexicon.SAYING_VERBS, *lexicon.TRYING_VERBS)


def test_second_and_third_person_singular_of_every_verb():
    forms = [
        " ".join(german.present(verb.german, verb.changed, person, False) for person in (2, 3))
        for verb in ALL_VERBS
    ]
    assert forms == [pair.strip() for pair in PRESENT.replace("\n", " ").split(",")]


@pytest.mark.parametrize(
    ("infinitive", "changed", "expected"),
    [
        ("sehen", "sieh", "sehe siehst sieht sehen seht sehen"),
        ("laden", "läd", "lade lädst lädt laden ladet laden"),
        ("öffnen", "", "öffne öffnest öffnet öffnen öffnet öffnen"),
        ("füttern", "", "füttere fütterst füttert füttern füttert füttern"),
        ("sein", "", "bin bist ist sind seid sind"),
        ("haben", "", "habe hast hat haben habt haben"),
        ("werden", "", "werde wirst wird werden werdet werden"),
        ("wissen", "", "weiß weißt weiß wissen wisst wissen"),
        ("müssen", "", "muss musst muss müssen müsst müssen"),
        ("wollen", "", "will willst will wollen wollt wollen"),
    ],
)
def test_conjugation(infinitive, changed, expected):
    forms = [
        german.present(infinitive, changed, person, plural)
        for plural in (False, True)
        for person in (1, 2, 3)
    ]
    assert " ".join(forms) == expected


def test_participles_carry_the_prefix():
    for verb in ALL_VERBS:
        assert verb.participle.startswith(verb.prefix)
        middle = verb.participle.removeprefix(verb.prefix)
        without_ge = ("ver", "be", "ge")
        if not verb.german.endswith("ieren") and not verb.german.startswith(without_ge):
            assert middle.startswith("ge"), verb
        assert middle.endswith(("t", "n"))


@pytest.mark.parametrize(
    ("noun", "plural"),
    [
        ("Kind", "children"),
        ("Frau", "women"),
        ("Tante", "aunts"),
        ("Köchin", "cooks"),
        ("Geschichte", "stories"),
        ("Messer", "knives"),
        ("Maus", "mice"),
        ("Schaf", "sheep"),
        ("Kartoffel", "potatoes"),
        ("Affe", "monkeys"),
        ("Kleid", "dresses"),
        ("Radio", "radios"),
    ],
)
def test_english_plural(noun, plural):
    assert NOUNS[noun].english_plural == plural


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("cry", "cries"),
        ("play", "plays"),
        ("wash", "washes"),
        ("watch television", "watches television"),
        ("fetch", "fetches"),
        ("get to know", "gets to know"),
        ("have to go", "has to go"),
    ],
)
def test_english_third_person(base, expected):
    assert english._third_person(base) == expected


def test_indefinite_article():
    assert english.noun_phrase(phrase("Apfel", "a")) == "an apple"
    assert english.noun_phrase(phrase("Apfel", "a", False, "rot")) == "a red apple"
    assert english.noun_phrase(phrase("Hund", "a", False, "alt")) == "an old dog"
    assert english.noun_phrase(phrase("Regenschirm", "this", True)) == "these umbrellas"


# ------------------------------------------------------------------------------- sentences

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


# -------------------------------------------------------------------------------- drawing


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
    monkeypatch.setattr(grammar, "_PATIENCE", 3)
    monkeypatch.setattr(Drawing, "sentence", lambda self: SENTENCES[0][0])
    pairs = grammar.pairs(1)
    assert next(pairs) == SENTENCES[0][1:]
    with pytest.raises(ValueError, match="the grammar has hardly more than 1 sentence pairs"):
        next(pairs)
