"""Scores, and the command that prints them."""

import gzip
import io
import json
import math
import random
import sys

import pytest
import sacrebleu

from nmt.evaluate import main
from nmt.metrics import compare, scores
from tfkfac.errors import InputError

REFERENCE = [
    "The cat sits on the mat near the door.",
    "A dog barks at the moon every night.",
    "We did not see the old bridge yesterday.",
    "My sister is going to sing in the park.",
]


def corrupted(share, seed, lines=REFERENCE * 40):
    """Translations in which about `share` of the words are wrong."""
    generator = random.Random(seed)
    return [
        " ".join("wrong" if generator.random() < share else word for word in line.split())
        for line in lines
    ]


def values(hypotheses, references, **options):
    return {score.metric: score.value for score in scores(hypotheses, references, **options)}


ALL = ("bleu", "chrf", "chrf++", "ter")


def test_a_perfect_and_a_worthless_translation():
    perfect = values(REFERENCE, [REFERENCE], metrics=ALL)
    assert perfect == pytest.approx({"BLEU": 100, "chrF": 100, "chrF++": 100, "TER": 0})
    worthless = values(["xqz"] * 4, [["ab cd ef"] * 4], metrics=ALL)
    assert worthless == pytest.approx({"BLEU": 0, "chrF": 0, "chrF++": 0, "TER": 100})


def test_bleu_by_hand():
    # All n-grams match, but 5 tokens stand for 6: only the brevity penalty is left.
    score = values(["one two three four five"], [["one two three four five six"]])
    assert score["BLEU"] == pytest.approx(100 * math.exp(1 - 6 / 5))
    # 5 of 6 words, 3 of 5, 2 of 4 and 1 of 3 longer n-grams match.
    score = values(["a b c d x f"], [["a b c d e f"]])
    assert score["BLEU"] == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)


def test_punctuation_is_split_off_and_case_counts_unless_it_is_told_not_to():
    assert values(["The cat sat there."], [["The cat sat there ."]])["BLEU"] == pytest.approx(100)
    upper = [line.upper() for line in REFERENCE]
    assert values(upper, [REFERENCE])["BLEU"] < 10
    lowercase = scores(upper, [REFERENCE], lowercase=True, metrics=ALL)
    assert [score.value for score in lowercase] == pytest.approx([100, 100, 100, 0])
    # chrF's signature calls it mixed whatever it does: that is sacreBLEU's.
    assert "case:lc" in lowercase[0].signature


def test_signatures():
    bleu, chrf = scores(REFERENCE, [REFERENCE, REFERENCE])
    version = f"version:{sacrebleu.__version__}"
    assert bleu.signature == f"nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|{version}"
    assert chrf.signature == f"nrefs:2|case:mixed|eff:yes|nc:6|nw:0|space:no|{version}"
    (char,) = scores(REFERENCE, [REFERENCE], metrics=["bleu"], tokenizer="char")
    assert "tok:char" in char.signature


def test_the_better_of_two_references_counts():
    one, other = ["a b c d e", "x"], ["y", "f g h i j"]
    assert values(["a b c d e", "f g h i j"], [one, other])["BLEU"] == pytest.approx(100)


def test_paired_bootstrap_tells_systems_apart_that_differ():
    reference = REFERENCE * 40
    good, bad = corrupted(0.1, 1), corrupted(0.3, 2)
    rows = compare([bad, good, corrupted(0.1, 3), bad], [reference], samples=300)
    plain = [values(system, [reference]) for system in (bad, good)]
    for row, expected in zip(rows, plain, strict=False):
        assert {score.metric: score.value for score in row} == pytest.approx(expected)
    assert [score.p_value for score in rows[0]] == [None, None]
    assert all(score.p_value is not None and score.p_value < 0.01 for score in rows[1])
    assert [score.p_value for score in rows[3]] == [1, 1]
    # As good but for one word, though wrong in other lines.
    other = [*good[4:], *good[:3], "wrong " + good[3]]
    against_equal = compare([good, other], [reference], samples=300)[1]
    assert all(score.p_value is not None and score.p_value > 0.1 for score in against_equal)
    for score in rows[1]:
        assert score.mean is not None and score.interval is not None
        assert abs(score.mean - score.value) < score.interval
        assert "bs:300" in score.signature and "seed:12345" in score.signature
    assert compare([bad, good], [reference], samples=300)[1] == rows[1]


def test_bad_arguments(monkeypatch):
    with pytest.raises(InputError, match="have 3 and 4 lines"):
        scores(REFERENCE[:3], [REFERENCE])
    with pytest.raises(InputError, match="nothing to score"):
        scores([], [[]])
    with pytest.raises(InputError, match="nothing to score"):
        scores(REFERENCE, [])
    with pytest.raises(InputError, match="unknown metric blue .did you mean bleu"):
        scores(REFERENCE, [REFERENCE], metrics=["blue"])
    with pytest.raises(InputError, match="unknown tokenizer none"):
        scores(REFERENCE, [REFERENCE], tokenizer="none")
    with pytest.raises(InputError, match="two hypotheses"):
        compare([REFERENCE], [REFERENCE])
    for seed in ("0", "-1", "x"):
        monkeypatch.setenv("SACREBLEU_SEED", seed)
        with pytest.raises(InputError, match=f"SACREBLEU_SEED: .* not '{seed}'"):
            compare([REFERENCE, REFERENCE], [REFERENCE])


def test_a_tokenizer_whose_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "MeCab", None)
    monkeypatch.delitem(sys.modules, "sacrebleu.tokenizers.tokenizer_ja_mecab", raising=False)
    with pytest.raises(InputError, match=r'pip install "sacrebleu\[ja\]"'):
        scores(REFERENCE, [REFERENCE], tokenizer="ja-mecab")


# ----------------------------------------------------------------------------- the command


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reference = REFERENCE * 40
    contents = {"ref.en": reference, "bad.en": corrupted(0.3, 2), "good.en": corrupted(0.1, 1)}
    for name, text in contents.items():
        (tmp_path / name).write_text("\n".join(text) + "\n")
    (tmp_path / "good.gz").write_bytes(gzip.compress((tmp_path / "good.en").read_bytes()))
    return contents


def test_a_table_of_several_systems(files, capsys):
    assert main(["--reference", "ref.en", "bad.en", "good.gz"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["BLEU", "chrF"]
    for line, name in ((lines[1], "bad.en"), (lines[2], "good.en")):
        bleu, chrf = values(files[name], [files["ref.en"]]).values()
        assert line.split()[1:] == [f"{bleu:.2f}", f"{chrf:.2f}"]
    assert lines[1].startswith("bad.en") and lines[2].startswith("good.gz")
    assert lines[3] == "" and lines[4].startswith("BLEU: nrefs:1|case:mixed|")
    assert lines[5].startswith("chrF: nrefs:1|") and len(lines) == 6


def test_significance_as_table_and_as_json(files, capsys):
    arguments = ["--reference", "ref.en", "--significance", "--samples", "200", "bad.en", "good.en"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert "±" in lines[1] and "p = " not in lines[1]
    assert "p = 0.00" in lines[2]
    assert lines[4] == "In brackets: bootstrap mean ± half the 95 % interval; p against bad.en"
    assert main([*arguments, "--format", "json"]) == 0
    systems = json.loads(capsys.readouterr().out)["systems"]
    assert [system["hypothesis"] for system in systems] == ["bad.en", "good.en"]
    assert set(systems[0]["scores"][0]) == {"metric", "value", "signature", "mean", "interval"}
    assert systems[1]["scores"][0]["p_value"] < 0.01
    assert "bs:200" in systems[1]["scores"][0]["signature"]


def test_standard_input_and_options(files, capsys, monkeypatch):
    text = "\n".join(files["good.en"]).upper().encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    arguments = [*("--reference", "ref.en") * 2, "--lowercase", "--format", "json"]
    assert main([*arguments, "--metrics", "ter,bleu,ter", "--tokenizer", "intl", "-"]) == 0
    ((system),) = json.loads(capsys.readouterr().out)["systems"]
    ter, bleu = system["scores"]
    assert (ter["metric"], bleu["metric"]) == ("TER", "BLEU")
    expected = values(files["good.en"], [files["ref.en"]], lowercase=True)["BLEU"]
    assert bleu["value"] == pytest.approx(expected)
    assert "nrefs:2|case:lc|eff:no|tok:intl" in bleu["signature"]


def test_blank_lines_are_scored_as_any_others(files, capsys, tmp_path):
    blank = ["", *files["good.en"][1:]]
    (tmp_path / "blank.en").write_text("\n".join(blank) + "\n")
    assert main(["--reference", "ref.en", "--format", "json", "good.en", "blank.en"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    good, fewer = (system["scores"][0]["value"] for system in json.loads(captured.out)["systems"])
    assert fewer == pytest.approx(values(blank, [files["ref.en"]])["BLEU"])
    assert fewer < good


def test_subwords_are_noticed(files, capsys, tmp_path):
    for mark in ("▁wort", "wo@@ rt"):
        (tmp_path / "pieces").write_text("\n".join([mark] * 160))
        assert main(["--reference", "ref.en", "pieces"]) == 0
        assert "warning: pieces seems to hold subwords" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--reference ref.en", "HYPOTHESIS: expected a file of translations"),
        ("good.en", "--reference: expected a file of reference translations"),
        ("--reference ref.en - -", "standard input can be read only once"),
        ("--reference ref.en none.en", "none.en: No such file or directory"),
        ("--reference ref.en short.en", "short.en has 2 lines, but ref.en has 160"),
        ("--reference ref.en --reference short.en good.en", "short.en has 2 lines, but ref.en"),
        ("--reference ref.en empty.en", "empty.en: empty; expected a sentence a line"),
        ("--reference ref.en latin.en", "latin.en:2: not UTF-8"),
        ("--reference ref.en --metrics bleu,bleurt good.en", "--metrics: unknown metric bleurt"),
        ("--reference ref.en --tokenizer 13 good.en", "--tokenizer: unknown tokenizer 13 (did you"),
        ("--reference ref.en --format jsn good.en", "--format: unknown value jsn (did you mean j"),
        ("--reference ref.en --json good.en", "nmt-evaluate: unknown option --json"),
        ("--reference ref.en --samples 0 good.en", "--samples: expected a whole number above 0"),
        ("--reference ref.en --significance good.en", "--significance: expected two hypotheses"),
        ("--reference ref.en --lower good.en", "unknown option --lower (did you mean --lowercase?"),
    ],
)
def test_mistakes_are_one_line(files, tmp_path, capsys, arguments, message):
    (tmp_path / "short.en").write_text("one\ntwo\n")
    (tmp_path / "empty.en").touch()
    (tmp_path / "latin.en").write_bytes(b"one\nM\xe4nner\n")
    assert main(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("error: ") and message in captured.err
