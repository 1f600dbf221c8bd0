"""nmt-translate and nmt-score: one line out for each line in, whatever the batches."""

import dataclasses
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmt import average, score, translate
from nmt.decoding import DecodingOptions
from nmt.model_directory import load_model
from nmt.subwords import END, Subwords
from nmt.translation import alignments, formats, models, words, writing
from nmt.translation.batches import by_length, padded
from nmt.translation.models import Models
from nmt.translation.reading import WINDOW, Lines, _Pipe
from nmt.translation.translator import Translator
from tests.nmt.tasks import WORDS
from tfkfac.errors import InputError

SEARCH = DecodingOptions(beam=2, n_best=2, attention=True)
SAMPLES = DecodingOptions(sample=True, temperature=3.0, top_k=20, seed=1, attention=True)
LINES = ["ba ko ti", "", "mu", "sel dor pan gri lo xe fa wim", "   ", "ko ko", "\t", "ti ba"]


@pytest.fixture(scope="module")
def loaded(copy_model):
    return load_model(copy_model)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{line}\n" for line in LINES))
    return path


def run(capfd, *arguments, command=translate):
    """The lines of output of a command that succeeds."""
    assert command.main([str(argument) for argument in arguments]) == 0
    return capfd.readouterr().out.splitlines()


def test_one_line_out_for_each_line_in(copy_model, text, capfd):
    assert run(capfd, "--model", copy_model, "--input", text) == [
        " ".join(line.split()) for line in LINES
    ]


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lines=st.lists(
        st.lists(st.sampled_from([*WORDS, "neu", "ß", "日本"]), max_size=6).map(" ".join),
        max_size=9,
    ),
    batch_size=st.integers(1, 4),
    options=st.sampled_from([SEARCH, SAMPLES]),
)
def test_every_line_is_translated_by_itself(translators, lines, batch_size, options):
    together = translators(options, batch_size)(lines, first=3)
    assert len(together) == len(lines)
    for number, line in enumerate(lines):
        (alone,) = translators(options, 1)([line], first=3 + number)
        assert (alone.source_ids == ()) == (line == "")
        assert (alone.hypotheses == ()) == (line == "")
        for ours, theirs in zip(alone.hypotheses, together[number].hypotheses, strict=True):
            assert ours.ids == theirs.ids
            np.testing.assert_allclose(ours.score, theirs.score, rtol=1e-4)
            np.testing.assert_allclose(ours.attention, theirs.attention, atol=1e-4)


@pytest.fixture(scope="module")
def translators(loaded):
    """Translators by options and batch size; decoding is compiled once for each options."""
    model, contents = loaded
    made = {}

    def translator(options, batch_size=64):
        if options not in made:
            made[options] = Translator([model], contents.source, contents.target, options)
        made[options]._batch_size = batch_size
        return made[options]

    return translator


def test_n_best_as_text_and_as_json(translators, loaded):
    found = translators(SEARCH)(LINES)
    numbered = list(enumerate(zip(LINES, found, strict=True)))
    lines = [
        line
        for number, (source, translation) in numbered
        for line in formats.NBest().lines(number, source, translation)
    ]
    assert lines[0].startswith("0 ||| ba ko ti ||| -")
    assert lines[2] == "1 |||  ||| 0.0000"
    style = formats.JSONLines(loaded[1].target, word_scores=False)
    objects = [
        json.loads(line)
        for number, (source, translation) in numbered
        for line in style.lines(number, source, translation)
    ]
    assert [item["line"] for item in objects] == list(range(len(LINES)))
    assert [item["source"] for item in objects] == LINES
    listed = [
        f"{item['line']} ||| {one['text']} ||| {one['score']:.4f}"
        for item in objects
        for one in item["translations"]
    ]
    assert listed == [line for line in lines if not line.endswith(" 0.0000")]
    for item in objects:
        scores = [one["score"] for one in item["translations"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == (2 if item["source"].strip() else 0)


def test_scores_of_words_add_up_and_agree_with_nmt_score(copy_model, text, tmp_path, capfd):
    arguments = ["--model", copy_model, "--format", "json", "--word-scores"]
    decoded = [json.loads(line) for line in run(capfd, *arguments, "--input", text)]
    translations = tmp_path / "translations.txt"
    best = [(item["translations"] or [{"text": ""}])[0] for item in decoded]
    translations.write_text("".join(f"{item['text']}\n" for item in best))
    arguments += ["--source", text, "--target", translations]
    scored = [json.loads(line) for line in run(capfd, *arguments, command=score)]
    for found, given_one in zip(best, scored, strict=True):
        if not found["text"]:
            assert given_one["log_probability"] is None and given_one["subwords"] == 0
            continue
        total = sum(value for _, value in found["words"]) + found["end"]
        assert total == pytest.approx(found["log_probability"], abs=2e-3)
        assert [word for word, _ in found["words"]] == found["text"].split()
        assert given_one["log_probability"] == pytest.approx(found["log_probability"], abs=1e-3)
        assert [word for word, _ in given_one["words"]] == found["text"].split()
    mean = run(capfd, *(arguments[:2]), *arguments[5:], "--per-subword", command=score)
    for line, item in zip(mean, scored, strict=True):
        assert (line == "") == (item["subwords"] == 0)
        if line:
            expected = item["log_probability"] / item["subwords"]
            assert float(line) == pytest.approx(expected, abs=2e-4)


def test_pairs_that_do_not_match(copy_model, text, tmp_path, capfd):
    (tmp_path / "short.txt").write_text("ba\n")
    arguments = ["--model", str(copy_model), "--source", str(text)]
    assert score.main([*arguments, "--target", str(tmp_path / "short.txt")]) == 2
    assert "short.txt: ends after 1 lines, but the other side goes on" in capfd.readouterr().err


def test_pairs_with_a_blank_side_have_no_score(copy_model, tmp_path, capfd):
    source, target, aligned = (tmp_path / name for name in ("source", "target", "aligned"))
    source.write_text("ba ko\n\t \nti\n\nmu\n")
    target.write_text("ba ko\nba\n\u00a0\n \nmu\n")
    arguments = ["--model", copy_model, "--source", source, "--target", target]
    arguments = [str(argument) for argument in arguments]
    warnings = [
        f"warning: {source}:2: blank, but {target}:2 is not; the pair has no score",
        f"warning: {target}:3: blank, but {source}:3 is not; the pair has no score",
    ]
    assert score.main([*arguments, "--alignments", str(aligned)]) == 0
    captured = capfd.readouterr()
    assert captured.err.splitlines() == warnings
    first, *blank, last = captured.out.splitlines()
    assert float(first) < 0 and blank == ["", "", ""] and float(last) < 0
    assert [bool(line) for line in aligned.read_text().splitlines()] == [True, *[False] * 3, True]

    assert score.main([*arguments, "--format", "json", "--word-scores"]) == 0
    captured = capfd.readouterr()
    assert captured.err.splitlines() == warnings
    objects = [json.loads(line) for line in captured.out.splitlines()]
    none: dict[str, Any] = {"log_probability": None, "subwords": 0, "words": [], "end": None}
    assert objects[1:4] == [{"line": number, **none} for number in (1, 2, 3)]
    for line, item in ((first, objects[0]), (last, objects[4])):
        assert item["log_probability"] == pytest.approx(float(line), abs=2e-4)


def test_blank_sides_are_named_in_every_window(copy_model, tmp_path, capfd):
    """Lines are counted from the beginning of the file, not of the window."""
    count = WINDOW + 1
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("ba\n" + "\n" * (count - 1))
    target.write_text("\n" * (count - 1) + "ba\n")
    pair = ["--source", source, "--target", target]
    assert score.main([str(argument) for argument in ("--model", copy_model, *pair)]) == 0
    captured = capfd.readouterr()
    assert captured.out == "\n" * count
    places = [line.split(": ")[1] for line in captured.err.splitlines()]
    assert places == [f"{target}:1", f"{source}:{count}"]


def test_samples_follow_the_seed(translators):
    texts = ["ba ko ti mu sel"] * 20
    first = [found.text for found in translators(SAMPLES)(texts)]
    assert first == [found.text for found in translators(SAMPLES)(texts)]
    assert len(set(first)) > 10  # lines differ,
    later = [found.text for found in translators(SAMPLES)(texts, first=5)]
    assert later[:15] == first[5:]  # by their numbers,
    other = dataclasses.replace(SAMPLES, seed=2)
    assert first != [found.text for found in translators(other)(texts)]  # and by the seed


def test_alignments(translators, loaded, tmp_path):
    """A model that copies attends to the word that it copies."""
    _, contents = loaded
    found = translators(SEARCH)(LINES)
    for kind, path in (("pharaoh", "a.txt"), ("json", "a.json"), ("png", "maps")):
        subwords = contents.source, contents.target
        with alignments.Alignments(tmp_path / path, kind, *subwords) as writer:
            for number, one in enumerate(found):
                if one.hypotheses:
                    best = one.hypotheses[0]
                    writer.write(number, one.source_ids, best.ids, best.attention)
                else:
                    writer.write(number)
    pharaoh = (tmp_path / "a.txt").read_text().splitlines()
    expected = [" ".join(f"{i}-{i}" for i in range(len(line.split()))) for line in LINES]
    assert [line.count("-") for line in pharaoh] == [line.count("-") for line in expected]
    agreeing = [ours == theirs for ours, theirs in zip(pharaoh, expected, strict=True)]
    assert sum(agreeing) >= len(LINES) - 1
    objects = [json.loads(line) for line in (tmp_path / "a.json").read_text().splitlines()]
    assert objects[0]["source"] == objects[0]["target"] == ["ba", "ko", "ti"]
    assert np.shape(objects[0]["attention"]) == (3, 3)
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == [f"{number:08d}.png" for number in (1, 3, 4, 6, 8)]
    assert (tmp_path / "maps" / names[0]).read_bytes().startswith(b"\x89PNG")


def test_attention_between_words():
    """Two subwords of a target word average; those of a source word add up; END is left out."""
    source = [words.Word("ab", (0, 1)), words.Word("c", (2,))]
    target = [words.Word("xy", (0, 1)), words.Word("z", (2,))]
    weights = np.array(
        [[0.1, 0.2, 0.3, 0.4], [0.3, 0.4, 0.2, 0.1], [0.0, 0.1, 0.6, 0.3], [0.0, 0.0, 0.0, 1.0]]
    )
    result = words.attention(source, target, weights)
    np.testing.assert_allclose(result, [[0.5, 0.25], [0.1, 0.6]])
    assert alignments.pharaoh(result) == "0-0 1-1"
    assert alignments.pharaoh(np.zeros((0, 3))) == ""


@given(st.lists(st.sampled_from(["ab", "ein", "Ü.", "x", "日本", "a-b"]), max_size=5).map(" ".join))
def test_words_are_what_white_space_separates(line):
    ids = [*SUBWORDS.encode(line), END]
    found = words.words(SUBWORDS, ids)
    assert [word.text for word in found] == line.split()
    places = [place for word in found for place in word.places]
    assert places == list(range(len(ids) - 1))
    values = [float(place) for place in range(len(ids))]
    assert sum(words.scores(found, values), 0.0) == sum(values[:-1])


SUBWORDS = Subwords.train(["ein haus steht da", "ab und zu", "a-b x."] * 20, 276)


def test_an_ensemble_of_the_same_model_translates_as_it_does(translators, loaded):
    model, contents = loaded
    ensemble = Translator([model, model], contents.source, contents.target, SEARCH)
    for one, two in zip(translators(SEARCH)(LINES), ensemble(LINES), strict=True):
        assert [h.ids for h in one.hypotheses] == [h.ids for h in two.hypotheses]
        for ours, theirs in zip(one.hypotheses, two.hypotheses, strict=True):
            assert ours.score == pytest.approx(theirs.score, rel=1e-4)


def test_models_with_other_subwords_are_no_ensemble(copy_model, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(copy_model, other)
    lines = [f"{one}{two}" for one in WORDS for two in WORDS]
    Subwords.train(lines, 36, byte_fallback=False).save(other / "subwords.model")
    with pytest.raises(InputError, match="other has other source subwords than"):
        Models.of({"model": [str(copy_model), str(other)]})


def test_compressed_input_and_output_files(copy_model, text, tmp_path, capfd):
    with gzip.open(tmp_path / "text.gz", "wb") as file:
        file.write(text.read_bytes())
    out = tmp_path / "out.txt"
    assert run(capfd, "--model", copy_model, "--input", tmp_path / "text.gz", "--output", out) == []
    assert out.read_text().splitlines() == [" ".join(line.split()) for line in LINES]


def test_bad_lines_are_named_after_those_before_them(copy_model, tmp_path, capfd):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"ba ko\n\nti\n\xff\nmu\n")
    assert translate.main(["--model", str(copy_model), "--input", str(path)]) == 2
    captured = capfd.readouterr()
    assert captured.out == "ba ko\n\nti\n"
    assert captured.err == f"ready\nerror: {path}:4: not UTF-8 (byte 0xff at position 1)\n"
    with pytest.raises(InputError), writing.output(str(tmp_path / "out.txt")) as stream:
        stream.write("half")
        raise InputError("a bad line")
    assert [file.name for file in tmp_path.iterdir()] == ["bad.txt"]


def test_a_full_disk_is_named_and_leaves_nothing(loaded, tmp_path, monkeypatch):
    full = OSError(28, "No space left on device")

    def refuse(*arguments):
        raise full

    path = tmp_path / "out.txt"
    message = "cannot be written .No space left on device"
    with (
        pytest.raises(InputError, match=f"^{path}: {message}"),
        writing.output(str(path)) as stream,
    ):
        stream.write("half")
        raise full
    subwords = loaded[1].source, loaded[1].target
    monkeypatch.setattr(alignments, "pharaoh", refuse)
    path = tmp_path / "a.txt"
    with (
        pytest.raises(InputError, match=f"^{path}: {message}"),
        alignments.Alignments(path, "pharaoh", *subwords) as writer,
    ):
        writer.write(0)
    assert list(tmp_path.iterdir()) == []


def test_directories_are_no_files(tmp_path):
    path = tmp_path / "file"
    path.touch()
    writing.check(str(path), "--output")  # it will be replaced
    writing.check(str(tmp_path), "--alignments", directory=True)
    with pytest.raises(InputError, match=f"--output {tmp_path}: a directory, not a file"):
        writing.check(str(tmp_path), "--output")
    with pytest.raises(InputError, match=f"--alignments {path}: a file, not a directory"):
        writing.check(str(path), "--alignments", directory=True)


def test_long_lines_are_cut_and_named(loaded):
    model, contents = loaded
    translator = Translator([model], contents.source, contents.target, SEARCH, max_source=4)
    encoded = translator._encode(["ba", "", "ko " * 50])
    assert [len(row) for row, _ in encoded] == [2, 0, 5]
    cuts = [cut for _, cut in encoded]
    assert cuts == [0, 0, 46]
    assert models.cut_warnings(6, cuts, 4) == [
        "warning: line 9: 50 subwords, cut to 4 (--max-source)"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model: missing; give the directory of a trained model"),
        (["--model", "{m}", "--beam", "2", "--n-best", "3"], "--n-best: 3 hypotheses cannot come"),
        (["--model", "{m}", "--beam", "x"], "--beam: expected a whole number, not 'x'"),
        (["--model", "{m}", "--top-k", "3"], "--top-k: only has a meaning with sample"),
        (["--model", "{m}", "--word-scores"], "--word-scores: needs --format json"),
        (["--model", "{m}", "--alignment-format", "png"], "--alignment-format: needs --alignments"),
        (["--model", "{m}", "--alignments", "x", "--output", "./x"], "--alignments x: the same as"),
        (["--model", "{m}", "--input", "absent"], "absent: No such file or directory"),
        (["--model", "{m}", "--output", "no/where"], "--output no/where: no directory no"),
        (["--model", "{m}", "--checkpoint", "bst"], "--checkpoint: neither one of best, last, ave"),
        (["--model", "absent"], "absent: no model directory (it has no config.yaml)"),
    ],
)
def test_wrong_options_are_one_line(arguments, message, copy_model, capfd):
    arguments = [argument.replace("{m}", str(copy_model)) for argument in arguments]
    assert translate.main(arguments) == 2
    captured = capfd.readouterr()
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_pipes_readers_that_leave_and_interruption(copy_model, text):
    """One process each, started together: how they end is what is tested."""
    command = [sys.executable, "-m", "nmt.translate", "--model", str(copy_model), "--beam", "1"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    # What a shell starts in the background ignores Ctrl-C, and so do its children.
    listens = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    start: Any = subprocess.Popen
    piped, left, interrupted = (start(command, preexec_fn=listens, **pipes) for _ in range(3))
    for process in (piped, left, interrupted):
        assert process.stderr.readline() == b"ready\n"

    # A line is answered without waiting for the next one, or for the end.
    for line in LINES[:3]:
        piped.stdin.write(f"{line}\n".encode())
        piped.stdin.flush()
        assert piped.stdout.readline().decode() == f"{line}\n"
    output, error = piped.communicate("".join(f"{line}\n" for line in LINES[3:]).encode())
    assert output.decode().splitlines() == [" ".join(line.split()) for line in LINES[3:]]
    assert (piped.returncode, error) == (0, b"")

    left.stdout.close()
    left.stdin.write(b"ba ko\n" * 10)
    left.stdin.flush()
    assert (left.wait(), left.stderr.read()) == (141, b"")

    interrupted.send_signal(signal.SIGINT)
    assert (interrupted.wait(), interrupted.stderr.read()) == (130, b"")


def test_a_pipe_reads_lines_of_any_size():
    reading, writing = os.pipe()
    content = b"ab\n\n" + b"x" * 200_000 + b"\nlast"

    def write():
        with open(writing, "wb") as file:
            file.write(content)

    thread = threading.Thread(target=write)
    thread.start()
    pipe, plain = _Pipe(reading), io.BytesIO(content)
    for size in (10, 10, 7, 300_000, 2, 10, 10):
        assert pipe.readline(size) == plain.readline(size)
    assert pipe.ready()
    thread.join()
    os.close(reading)


def test_windows_are_bounded(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{number}\n" for number in range(10)))
    windows = list(Lines(path, size=4).windows())
    assert [len(window) for window in windows] == [4, 4, 2]
    assert [line for window in windows for line in window] == [str(n) for n in range(10)]


@given(st.lists(st.integers(0, 3000), max_size=30), st.integers(1, 8))
def test_batches_hold_each_sentence_once(lengths, size):
    batches = list(by_length(lengths, size))
    assert sorted(i for batch in batches for i in batch) == [
        i for i, length in enumerate(lengths) if length
    ]
    for batch in batches:
        assert len(batch) <= size
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= 8192
        assert padded([[7] * lengths[i] for i in batch]).shape == (len(batch), longest)


def test_averages_of_chosen_weights(copy_model, tmp_path, capsys):
    copied = tmp_path / "model"
    shutil.copytree(copy_model, copied)
    (copied / "averaged.weights.h5").unlink()
    assert average.main(["--model", str(copied), "--last", "2"]) == 0
    assert "mean of 2: 00000200.weights.h5, 00000300.weights.h5\n" in capsys.readouterr().out
    kept = str(copied / "checkpoints" / "00000100.weights.h5")
    out = str(tmp_path / "one.weights.h5")
    assert average.main(["--model", str(copied), "--weights", kept, kept, "--output", out]) == 0
    assert average.main(["--model", str(copied), "--last", "9"]) == 2
    assert "--last 9: there are only 3 in" in capsys.readouterr().err
    assert average.main(["--model", str(copied), "--output", "mean.npz"]) == 2
    assert average.main(["--model", str(copied), "--output", "no/mean.weights.h5"]) == 2
    assert "--output no/mean.weights.h5: no directory no" in capsys.readouterr().err
    assert average.main(["--model", str(tmp_path)]) == 2
