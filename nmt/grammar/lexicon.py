"""The words of the phrase grammar."""

from __future__ import annotations

from nmt.grammar.meaning import Adjective, Adverb, Modal, Noun, Pronoun, Verb

# German singular, gender (* for a weak noun), plural; English singular, plural if irregular; kind.
_NOUNS = """
Mann m Männer | man men | person he
Frau f Frauen | woman women | person she
Kind n Kinder | child children | person it
Mädchen n Mädchen | girl | person she
Junge m* Jungen | boy | person he
Lehrer m Lehrer | teacher | person he
Ärztin f Ärztinnen | doctor | person she
Nachbar m* Nachbarn | neighbour | person he
Freund m Freunde | friend | person he
Student m* Studenten | student | person he
Großmutter f Großmütter | grandmother | person she
Bruder m Brüder | brother | person he
Schwester f Schwestern | sister | person she
Gast m Gäste | guest | person he
Verkäuferin f Verkäuferinnen | saleswoman saleswomen | person she
Bauer m* Bauern | farmer | person he
Polizist m* Polizisten | policeman policemen | person he
Tante f Tanten | aunt | person she
Onkel m Onkel | uncle | person he
Sängerin f Sängerinnen | singer | person she
Musiker m Musiker | musician | person he
Gärtner m Gärtner | gardener | person he
König m Könige | king | person he
Königin f Königinnen | queen | person she
Köchin f Köchinnen | cook | person she
Hund m Hunde | dog | animal it
Katze f Katzen | cat | animal it
Pferd n Pferde | horse | animal it
Vogel m Vögel | bird | animal it
Maus f Mäuse | mouse mice | animal it
Schwein n Schweine | pig | animal it
Kuh f Kühe | cow | animal it
Löwe m* Löwen | lion | animal it
Bär m* Bären | bear | animal it
Schaf n Schafe | sheep sheep | animal it
Ente f Enten | duck | animal it
Affe m* Affen | monkey | animal it
Huhn n Hühner | chicken | animal it
Ziege f Ziegen | goat | animal it
Kaninchen n Kaninchen | rabbit | animal it
Apfel m Äpfel | apple | food it
Brötchen n Brötchen | roll | food it
Kuchen m Kuchen | cake | food it
Suppe f Suppen | soup | food it
Ei n Eier | egg | food it
Birne f Birnen | pear | food it
Kartoffel f Kartoffeln | potato potatoes | food it
Salat m Salate | salad | food it
Orange f Orangen | orange | food it
Tomate f Tomaten | tomato tomatoes | food it
Keks m Kekse | biscuit | food it
Buch n Bücher | book | text it
Zeitung f Zeitungen | newspaper | text it
Brief m Briefe | letter | text it
Gedicht n Gedichte | poem | text it
Roman m Romane | novel | text it
Geschichte f Geschichten | story | text it
Bericht m Berichte | report | text it
Tisch m Tische | table | thing it
Stuhl m Stühle | chair | thing it
Lampe f Lampen | lamp | thing,machine it
Fahrrad n Fahrräder | bicycle | thing,machine it
Auto n Autos | car | thing,machine it
Uhr f Uhren | clock | thing,machine it
Radio n Radios | radio | thing,machine it
Schlüssel m Schlüssel | key | thing it
Tasche f Taschen | bag | thing,container it
Bild n Bilder | picture | thing it
Ball m Bälle | ball | thing it
Hut m Hüte | hat | thing,clothing it
Jacke f Jacken | jacket | thing,clothing it
Hemd n Hemden | shirt | thing,clothing it
Kleid n Kleider | dress | thing,clothing it
Mantel m Mäntel | coat | thing,clothing it
Koffer m Koffer | suitcase | thing,container it
Regenschirm m Regenschirme | umbrella | thing it
Messer n Messer | knife knives | thing it
Teller m Teller | plate | thing it
Flasche f Flaschen | bottle | thing,container it
Spiegel m Spiegel | mirror | thing it
Korb m Körbe | basket | thing it
Decke f Decken | blanket | thing it
Geschenk n Geschenke | present | thing it
Gitarre f Gitarren | guitar | thing it
Fenster n Fenster | window | door it
Tür f Türen | door | door it
Schrank m Schränke | cupboard | door it
Tor n Tore | gate | door it
"""
_NAMES = "Anna f, Paul m, Maria f, Felix m, Lena f, Jonas m, Clara f, Emil m"

# Where: German preposition, noun | English preposition, noun.
_PLACES = """
in Garten m Gärten | in garden
in Küche f Küchen | in kitchen
in Haus n Häuser | in house
in Schule f Schulen | in school
in Stadt f Städte | in town
in Park m Parks | in park
in Wald m Wälder | in forest
in Zimmer n Zimmer | in room
in Dorf n Dörfer | in village
in Museum n Museen | in museum
auf Markt m Märkte | at market
auf Straße f Straßen | on street
auf Berg m Berge | on mountain
auf Insel f Inseln | on island
auf Wiese f Wiesen | in meadow
an Fluss m Flüsse | by river
an See m Seen | by lake
an Bahnhof m Bahnhöfe | at station
vor Haus n Häuser | in_front_of house
vor Kirche f Kirchen | in_front_of church
hinter Schule f Schulen | behind school
hinter Mauer f Mauern | behind wall
unter Baum m Bäume | under tree
neben Brücke f Brücken | next_to bridge
"""

# German, attributive stem if another | English | kinds | group; * if not used as a predicate.
_ADJECTIVES = """
groß | big | person animal food thing door place | size
klein | small | person animal food thing door place | size
lang | long | text | size
kurz | short | text | size
schwer | heavy | thing | size
stark | strong | person animal | size
freundlich | friendly | person animal | opinion
klug | clever | person animal | opinion
glücklich | happy | person | opinion
traurig | sad | person | opinion
müde müd | tired | person animal | opinion
hungrig | hungry | person animal | opinion
krank | sick | person animal | opinion
vorsichtig | careful | person | opinion
berühmt | famous | person text | opinion
schön | beautiful | text thing door place | opinion
teuer teur | expensive | food text thing | opinion
billig | cheap | food text thing | opinion
spannend | exciting | text | opinion
langweilig | boring | text | opinion
lustig | funny | person text | opinion
süß | sweet | food | opinion
frisch | fresh | food | opinion
kaputt | broken | machine door | opinion
sauber | clean | clothing door | opinion
ruhig | quiet | person animal place | opinion
alt | old | person animal text thing door place | age
jung | young | person animal | age
neu | new | text thing door | age
schwarz | black | animal thing door | color*
weiß | white | animal thing door | color*
braun | brown | animal thing door | color*
rot | red | thing door | color*
blau | blue | thing door | color*
grün | green | thing door | color*
"""

# German, prefix/infinitive, changed stem, participle (+ for sein) | English, past, (particle)
# | subjects | accusative | dative
_LIVING = "person animal"
_GOODS = "food text thing"
_ANY = "person animal food text thing"
_VERBS = f"""
sehen sieh gesehen | see saw | {_LIVING} | {_ANY} |
suchen - gesucht | look_for looked_for | {_LIVING} | {_ANY} |
finden - gefunden | find found | {_LIVING} | {_ANY} |
malen - gemalt | paint painted | person | person animal food thing |
fotografieren - fotografiert | photograph photographed | person | person animal thing |
an/sehen sieh angesehen | look_at looked_at | {_LIVING} | person animal thing |
hören - gehört | hear heard | {_LIVING} | person animal |
kaufen - gekauft | buy bought | person | {_GOODS} |
verkaufen - verkauft | sell sold | person | {_GOODS} |
bringen - gebracht | bring brought | person | {_GOODS} |
verlieren - verloren | lose lost | person | thing text |
vergessen vergiss vergessen | forget forgot | person | person thing text |
verstecken - versteckt | hide hid | {_LIVING} | food thing |
holen - geholt | fetch fetched | {_LIVING} | {_GOODS} |
tragen träg getragen | carry carried | person | thing animal |
mit/nehmen nimm mitgenommen | take took (along) | person | {_GOODS} |
zurück/bringen - zurückgebracht | bring brought (back) | person | {_GOODS} |
weg/werfen wirf weggeworfen | throw threw (away) | person | food thing |
lesen lies gelesen | read read | person | text |
schreiben - geschrieben | write wrote | person | text |
verstehen - verstanden | understand understood | person | person text |
essen iss gegessen | eat ate | {_LIVING} | food |
auf/essen iss aufgegessen | eat ate (up) | {_LIVING} | food |
waschen wäsch gewaschen | wash washed | person | animal food clothing |
an/ziehen - angezogen | put put (on) | person | clothing |
reparieren - repariert | repair repaired | person | machine |
öffnen - geöffnet | open opened | person | door container |
zu/machen - zugemacht | close closed | person | door container |
lieben - geliebt | love loved | {_LIVING} | person animal |
füttern - gefüttert | feed fed | person | animal |
jagen - gejagt | chase chased | {_LIVING} | animal |
beißen - gebissen | bite bit | animal | person animal |
kennen - gekannt | know knew | person | person |
fragen - gefragt | ask asked | person | person |
besuchen - besucht | visit visited | person | person |
treffen triff getroffen | meet met | person | person |
begrüßen - begrüßt | greet greeted | person | person |
an/rufen - angerufen | call called | person | person |
ein/laden läd eingeladen | invite invited | person | person |
ab/holen - abgeholt | pick picked (up) | person | person |
auf/wecken - aufgeweckt | wake woke (up) | {_LIVING} | person animal |
kennen/lernen - kennengelernt | get_to_know got_to_know | person | person |
helfen hilf geholfen | help helped | {_LIVING} | | person animal
folgen - gefolgt+ | follow followed | {_LIVING} | | person animal
danken - gedankt | thank thanked | person | | person
antworten - geantwortet | answer answered | person | | person
vertrauen - vertraut | trust trusted | person | | person
zu/hören - zugehört | listen_to listened_to | {_LIVING} | | person
geben gib gegeben | give gave | person | {_GOODS} | person
zeigen - gezeigt | show showed | person | {_GOODS} animal | person
schicken - geschickt | send sent | person | {_GOODS} | person
leihen - geliehen | lend lent | person | text thing | person
zurück/geben gib zurückgegeben | give gave (back) | person | {_GOODS} | person
vor/lesen lies vorgelesen | read read (aloud) | person | text | person
schlafen schläf geschlafen | sleep slept | {_LIVING} | |
arbeiten - gearbeitet | work worked | person | |
lachen - gelacht | laugh laughed | person | |
weinen - geweint | cry cried | person | |
singen - gesungen | sing sang | person | |
tanzen - getanzt | dance danced | person | |
spielen - gespielt | play played | {_LIVING} | |
laufen läuf gelaufen+ | run ran | {_LIVING} | |
schwimmen - geschwommen+ | swim swam | {_LIVING} | |
warten - gewartet | wait waited | {_LIVING} | |
sitzen - gesessen | sit sat | {_LIVING} | |
auf/stehen - aufgestanden+ | get_up got_up | {_LIVING} | |
ein/schlafen schläf eingeschlafen+ | fall_asleep fell_asleep | {_LIVING} | |
auf/wachen - aufgewacht+ | wake_up woke_up | {_LIVING} | |
an/kommen - angekommen+ | arrive arrived | person | |
zurück/kommen - zurückgekommen+ | come_back came_back | {_LIVING} | |
weg/laufen läuf weggelaufen+ | run_away ran_away | {_LIVING} | |
fern/sehen sieh ferngesehen | watch_television watched_television | person | |
nach/denken - nachgedacht | reflect reflected | person | |
"""
# Their object is a clause: ", dass ..." and "that ...".
_SAYING = """
glauben - geglaubt | believe believed
wissen - gewusst | know knew
sagen - gesagt | say said
hoffen - gehofft | hope hoped
denken - gedacht | think thought
"""
# ", ... zu ..." and "to ...".
_TRYING = """
versuchen - versucht | try tried
vergessen vergiss vergessen | forget forgot
beschließen - beschlossen | decide decided
hoffen - gehofft | hope hoped
vor/haben - vorgehabt | intend intended
"""

MODALS = (
    Modal("können", "can"),
    Modal("müssen", "have to"),
    Modal("wollen", "want to"),
    Modal("sollen", "should"),
    Modal("dürfen", "may"),
)

PRONOUNS = {
    "I": Pronoun(("ich", "mich", "mir"), ("I", "me"), 1, False),
    "you": Pronoun(("du", "dich", "dir"), ("you", "you"), 2, False),
    "he": Pronoun(("er", "ihn", "ihm"), ("he", "him"), 3, False),
    "she": Pronoun(("sie", "sie", "ihr"), ("she", "her"), 3, False),
    "it": Pronoun(("es", "es", "ihm"), ("it", "it"), 3, False),
    "we": Pronoun(("wir", "uns", "uns"), ("we", "us"), 1, True),
    "you all": Pronoun(("ihr", "euch", "euch"), ("you", "you"), 2, True),
    "they": Pronoun(("sie", "sie", "ihnen"), ("they", "them"), 3, True),
}

# By the tense they go with; the last go with all.
TIMES = {
    "present": (
        Adverb("jetzt", "now"),
        Adverb("jeden Tag", "every day"),
        Adverb("jeden Morgen", "every morning"),
    ),
    "past": (
        Adverb("gestern", "yesterday"),
        Adverb("letzte Woche", "last week"),
        Adverb("vor einer Stunde", "an hour ago"),
    ),
    "future": (
        Adverb("morgen", "tomorrow"),
        Adverb("nächste Woche", "next week"),
        Adverb("in zwei Tagen", "in two days"),
    ),
    "any": (
        Adverb("heute", "today"),
        Adverb("am Abend", "in the evening"),
        Adverb("am Sonntag", "on Sunday"),
    ),
}
FREQUENCIES = (
    Adverb("oft", "often"),
    Adverb("immer", "always"),
    Adverb("manchmal", "sometimes"),
    Adverb("nie", "never"),
)


def _fields(table: str) -> list[list[str]]:
    return [[field.strip() for field in line.split("|")] for line in table.strip().splitlines()]


def _noun(german: str, english: str, kinds: str) -> Noun:
    word, gender, plural = german.split()
    singular, *irregular = english.split()
    kind, pronoun = kinds.split()
    return Noun(
        german=word,
        gender=gender[0],
        german_plural=plural,
        english=singular,
        english_plural=irregular[0] if irregular else with_s(singular),
        kinds=frozenset(kind.split(",")),
        pronoun=pronoun,
        weak=gender.endswith("*"),
    )


def _place(german: str, english: str) -> tuple[str, str, Noun]:
    preposition, *word = german.split()
    english_preposition, english_word = english.split()
    noun = _noun(" ".join(word), english_word, "place it")
    return preposition, english_preposition.replace("_", " "), noun


def _adjective(german: str, english: str, kinds: str, group: str) -> Adjective:
    word, *stem = german.split()
    return Adjective(
        german=word,
        stem=stem[0] if stem else word,
        english=english,
        kinds=frozenset(kinds.split()),
        group=group.rstrip("*"),
        predicate=not group.endswith("*"),
    )


def _verb(
    german: str, english: str, subjects: str = "", accusative: str = "", dative: str = ""
) -> Verb:
    infinitive, changed, participle = german.split()
    base, past, *particle = english.split()
    prefix, _, stem = infinitive.rpartition("/")
    return Verb(
        german=stem,
        prefix=prefix,
        changed="" if changed == "-" else changed,
        participle=participle.rstrip("+"),
        auxiliary="sein" if participle.endswith("+") else "haben",
        english=base.replace("_", " "),
        past=past.replace("_", " "),
        particle=particle[0].strip("()") if particle else "",
        subjects=frozenset(subjects.split()),
        accusative=frozenset(accusative.split()),
        dative=frozenset(dative.split()),
    )


def with_s(word: str) -> str:
    """An English noun's regular plural, and likewise a verb's third person singular."""
    if word.endswith(("s", "sh", "ch", "x", "z")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


NOUNS = tuple(_noun(*fields) for fields in _fields(_NOUNS))
NAMES = tuple(
    Noun(
        name,
        gender,
        "",
        name,
        "",
        frozenset({"person"}),
        "he" if gender == "m" else "she",
        name=True,
    )
    for name, gender in (entry.split() for entry in _NAMES.split(","))
)
PLACES = tuple(_place(*fields) for fields in _fields(_PLACES))
ADJECTIVES = tuple(_adjective(*fields) for fields in _fields(_ADJECTIVES))
VERBS = tuple(_verb(*fields) for fields in _fields(_VERBS))
SAYING_VERBS = tuple(_verb(fields[0], fields[1], "person") for fields in _fields(_SAYING))
TRYING_VERBS = tuple(_verb(fields[0], fields[1], "person") for fields in _fields(_TRYING))
