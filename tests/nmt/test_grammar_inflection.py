"""Inflection: nouns, adjectives and verbs of both languages as grammars have them."""

import pytest

from nmt.grammar import english, german
from tests.nmt.grammar_words import ALL_VERBS, NOUNS, phrase

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
