"""Text to subwords and back."""

import itertools
import os
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.subwords import BEGIN, END, PAD, UNKNOWN, Subwords, train_both
from nmt.text import normalized, one_line, refused_character
from tfkfac.errors import InputError

GERMAN = [
    "Zwei Männer stehen am Ofen und bereiten Essen zu.",
    "Ein kleines Mädchen klettert in ein Spielhaus aus Holz.",
    "Ein Mann in einem blauen Hemd steht auf einer Leiter und putzt ein Fenster.",
    "Die Straße, auf der sie läuft, ist heute größtenteils gesperrt!",
]
ENGLISH = [
    "Two men are at the stove preparing food.",
    "A little girl climbing into a wooden playhouse.",
    "A man in a blue shirt is standing on a ladder cleaning a window.",
    "The street that she runs on is mostly closed today!",
]
# Some texts that random characters seldom make: what subword models use themselves, and others.
TRICKY = st.lists(
    st.sampled_from(
        ["▁", "▅", "<s>", "</s>", "<pad>", "<unk>", "<0x0A>", "⁇", "\ufeff", "\u200d", "e\u0308"]
        + [
            "\u00a0",
            "\u2028",
            "\t",
            "  ",
            "a",
            "Straße",
            "\ufb01",
            "\u0344",
            "한",
            "👩‍👩‍👧",
            "\U0010ffff",
        ]
    )
).map("".join)
LINES = st.text() | TRICKY


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def subwords(request):
    return Subwords.train(GERMAN, 320, request.param)


@given(line=LINES)
def test_normalizing_twice_changes_nothing_more(line):
    once = normalized(line)
    assert normalized(once) == once
    assert "  " not in once and "▁" not in once and once == once.strip()
    assert unicodedata.is_normalized("NFC", once)


def test_normalizing_keeps_what_it_does_not_name():
    assert normalized(" Grüße\u00a0an\tdich \u2028 … ½ ﬁn ▁ ") == "Grüße an dich … ½ ﬁn _"
    assert normalized("u\u0308") == "ü"


@pytest.mark.parametrize("code", [0, 1, 10, 11, 12, 13, 27, 28, 31, 127, 0x80, 0x85, 0x9F, 0xD800])
def test_control_characters_are_refused_by_number_and_column(subwords, code):
    line = f"ein {chr(code)} Zeichen"
    found = refused_character(line)
    assert found is not None and f"U+{code:04X} at character 5" in found
    with pytest.raises(InputError, match=f"U\\+{code:04X} at character 5"):
        subwords.encode(line)
    with pytest.raises(InputError, match=f"U\\+{code:04X} at character 5"):
        subwords.encode_many(["fine", line])


@settings(deadline=None)
@given(line=LINES)
def test_every_line_comes_back_or_is_refused(subwords, line):
    if refused_character(line):
        with pytest.raises(InputError):
            subwords.encode(line)
        return
    ids = subwords.encode(line)
    assert all(END < number < len(subwords) for number in ids)
    assert subwords.decode(ids) == normalized(line)
    assert subwords.encode_many([line, "Holz", line]) == [ids, subwords.encode("Holz"), ids]


@settings(deadline=None)
@given(data=st.data())
def test_any_ids_decode_to_one_line(subwords, data):
    ids = data.draw(st.lists(st.integers(0, len(subwords) - 1)))
    text = subwords.decode(ids)
    assert refused_character(text) is None
    assert text == one_line(text) and len(text.splitlines()) <= 1
    assert subwords.decode([BEGIN, *ids, END, PAD, PAD]) == text


def test_pieces_spell_the_text(subwords):
    ids = subwords.encode("Zwei Männer")
    assert "".join(subwords.pieces(ids)) == "▁Zwei▁Männer"
    assert subwords.pieces([PAD, UNKNOWN, BEGIN, END]) == ["<pad>", "<unk>", "<s>", "</s>"]
    assert subwords.encode("") == subwords.encode(" \t ") == []
    assert subwords.decode([]) == ""


def test_without_bytes_unseen_characters_are_unknown():
    subwords = Subwords.train(GERMAN, 60, byte_fallback=False)
    assert UNKNOWN not in subwords.encode("Ein Mann")
    assert UNKNOWN in subwords.encode("Ж")
    assert "⁇" in subwords.decode(subwords.encode("Ж"))


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("byte_fallback", [True, False])
def test_a_vocabulary_larger_than_the_text_allows(kind, byte_fallback):
    options = {"kind": kind, "byte_fallback": byte_fallback}
    with pytest.raises(InputError, match="the largest possible is") as error:
        Subwords.train(GERMAN, 50_000, **options)
    largest = int(str(error.value).rsplit(" ", 1)[1])
    assert len(Subwords.train(GERMAN, largest, **options)) == largest
    with pytest.raises(InputError, match=f"the largest possible is {largest}$"):
        Subwords.train(GERMAN, largest + 1, **options)


def test_a_vocabulary_smaller_than_the_characters():
    with pytest.raises(InputError, match="of 270 is too small; .* need") as error:
        Subwords.train(GERMAN, 270)
    needed = int(str(error.value).split("need ")[1].split()[0])
    characters = set("".join(GERMAN)) - {" "} | {"▁"}
    assert needed == len(characters) + 4 + 256
    assert len(Subwords.train(GERMAN, needed, "bpe")) == needed


@pytest.mark.parametrize("lines", [[], [""], ["  ", "\t"]])
def test_no_text_to_learn_from(lines):
    with pytest.raises(InputError, match="no text"):
        Subwords.train(lines, 300)


def test_the_shortest_text_there_is():
    subwords = Subwords.train(["a"], 6, byte_fallback=False)
    assert subwords.decode(subwords.encode("a a")) == "a a"


def test_unknown_kind():
    with pytest.raises(InputError, match="unknown kind of subwords unigramm .did you mean unigram"):
        Subwords.train(GERMAN, 300, "unigramm")


def test_text_in_training_is_refused_as_in_encoding():
    with pytest.raises(InputError, match=r"control character U\+0000 at character 3"):
        Subwords.train([*GERMAN, "ab\0c"], 300)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_training_repeats_whatever_the_number_of_processors(kind, subwords):
    code = (
        "import os, sys; os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})\n"
        "from nmt.subwords import Subwords\n"
        f"lines = sys.stdin.read().splitlines()\n"
        f"sys.stdout.buffer.write(Subwords.train(lines, 320, {kind!r}).model)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        input="\n".join(GERMAN).encode(),
        capture_output=True,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    assert answer.stderr == b""
    assert answer.stdout == Subwords.train(GERMAN, 320, kind).model


def test_a_sample_of_many_lines_is_drawn_by_the_seed():
    lines = [" ".join(words) for words in itertools.permutations(["eins", "zwei", "drei", "vier"])]
    models = [
        Subwords.train(iter(lines * 20), 285, "bpe", maximum_lines=30, seed=seed).model
        for seed in (1, 1, 2)
    ]
    assert models[0] == models[1]
    full = Subwords.train(lines[:30], 285, "bpe").model
    assert Subwords.train(iter(lines[:30]), 285, "bpe", maximum_lines=30, seed=5).model == full


def test_the_sample_is_uniform():
    from nmt.subwords import _sample

    lines = [str(number) for number in range(40)]
    counts = dict.fromkeys(lines, 0)
    for seed in range(3000):
        sample = _sample(iter(lines), 10, seed)
        assert len(set(sample)) == 10
        for line in sample:
            counts[line] += 1
    # Expected 750 each with standard deviation 24.
    assert min(counts.values()) > 630 and max(counts.values()) < 870


def test_joint_and_separate_vocabularies():
    joint, same = train_both(GERMAN, ENGLISH, 330)
    assert joint is same
    assert joint.model == Subwords.train(GERMAN + ENGLISH, 330).model
    german, english = train_both(iter(GERMAN), iter(ENGLISH), 320, 310, kind="bpe")
    assert (len(german), len(english)) == (320, 310)
    assert german.model == Subwords.train(GERMAN, 320, "bpe").model
    assert english.model == Subwords.train(ENGLISH, 310, "bpe").model


def test_saved_and_loaded(subwords, tmp_path):
    path = tmp_path / "subwords.model"
    subwords.save(path)
    loaded = Subwords.load(path)
    assert loaded.model == subwords.model
    assert loaded.encode("Ein Mann") == subwords.encode("Ein Mann")
    assert [file.name for file in tmp_path.iterdir()] == ["subwords.model"]


def test_files_that_are_no_vocabulary(subwords, tmp_path):
    path = tmp_path / "subwords.model"
    with pytest.raises(InputError, match=f"{path}: No such file"):
        Subwords.load(path)
    for content in (b"", b"no model", subwords.model[: len(subwords.model) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"{path}: no SentencePiece model, or a damaged one"):
            Subwords.load(path)


def test_a_vocabulary_with_other_special_ids_is_refused(tmp_path):
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(GERMAN), model_writer=model, vocab_size=50, minloglevel=2
    )
    with pytest.raises(InputError, match=r"foreign: .* have ids \(-1, 0, 1, 2\)"):
        Subwords(model.getvalue(), "foreign")
