"""nmt-export: what is exported translates as nmt-translate does, without the toolkit."""

import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from nmt import corpus, export_command, text
from nmt.decoding import DecodingOptions
from nmt.export import directory, standalone
from nmt.model_directory import load_model
from nmt.translation.batches import padded
from nmt.translation.translator import Translator
from tests.nmt.untrained import untrained
from tfkfac.errors import InputError

LINES = ["das haus", "", "ein baum\u00a0 steht  da", "   ", "e\u0301 日本_▁", "zu " * 60, "ab"]
# Loads exports in a process of its own, and says what it found and what it imported for that.
FRESH = """
import importlib.util, json, sys
found = []
for path in sys.argv[2:]:
    spec = importlib.util.spec_from_file_location("translate", path + "/translate.py")
    module = sys.modules["translate"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found.append(module.Translator(path)(json.loads(sys.argv[1])))
packages = {name.split(".")[0] for name in sys.modules}
own = packages & {"nmt", "tfkfac", "keras_nlp", "keras_hub", "tensorflow_text"}
print(json.dumps([found, sorted(own)]))
"""


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("models") / "transformer", "transformer")


@pytest.fixture(scope="module")
def rnn(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("models") / "rnn", "rnn")


def export(model, path, *options):
    arguments = ["--model", str(model), "--out", str(path), "--max-source", "20", *options]
    assert export_command.main(arguments) == 0
    return path


def found_by(model, options):
    """Our translations of the lines."""
    loaded, contents = load_model(model)
    translator = Translator([loaded], contents.source, contents.target, options, max_source=20)
    return translator(LINES)


def summary(translations):
    """For each line, (text, score, ids) of each hypothesis."""
    return [[(h.text, h.score, h.ids) for h in found.hypotheses] for found in translations]


def agree(ours, theirs, tolerance):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert [(text, list(ids)) for text, _, ids in one] == [
            (text, list(ids)) for text, _, ids in other
        ]
        assert [score for _, score, _ in one] == pytest.approx(
            [score for _, score, _ in other], abs=tolerance
        )


def test_saved_models_need_nothing_of_the_toolkit(transformer, rnn, tmp_path):
    search = ["--beam", "4", "--n-best", "3", "--length-penalty", "0.5", "--no-repeat-ngram", "2"]
    exported = [
        export(model, tmp_path / model.name, *search, "--return-attention")
        for model in (transformer, rnn)
    ]
    command = [sys.executable, "-c", FRESH, json.dumps(LINES), *map(str, exported)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    found, own = json.loads(process.stdout.splitlines()[-1])
    assert own == []
    options = DecodingOptions(
        beam=4, n_best=3, length_penalty=0.5, no_repeat_ngram=2, attention=True
    )
    for model, path, theirs in zip((transformer, rnn), exported, found, strict=True):
        ours = found_by(model, options)
        assert [len(translation.hypotheses) for translation in ours] == [3, 0, 3, 0, 3, 3, 3]
        agree(summary(ours), theirs, 1e-5)
        word_by_word(ours, tf.saved_model.load(str(path / "model")))


def word_by_word(ours, loaded):
    """The SavedModel's tensors are ours: ids, log-probabilities and attention, padding apart."""
    ours = [translation for translation in ours if translation.hypotheses]
    source = padded([translation.source_ids for translation in ours])
    tensors = loaded.signatures["serving_default"](source=tf.constant(source))
    theirs = {name: tensor.numpy() for name, tensor in tensors.items()}
    for row, translation in enumerate(ours):
        width = len(translation.source_ids)
        for rank, hypothesis in enumerate(translation.hypotheses):
            length = len(hypothesis.ids)
            assert theirs["lengths"][row, rank] == length
            assert theirs["ids"][row, rank, :length].tolist() == list(hypothesis.ids)
            np.testing.assert_allclose(
                theirs["log_probabilities"][row, rank, :length],
                hypothesis.log_probabilities,
                atol=1e-4,
            )
            attention = theirs["attention"][row, rank, :length]
            np.testing.assert_allclose(attention[:, :width], hypothesis.attention, atol=1e-5)
            np.testing.assert_allclose(attention.sum(axis=1), 1, atol=1e-5)
            assert not attention[:, width:].any()


@pytest.mark.parametrize(
    ("model_options", "beam"),
    [
        ({}, 1),
        ({}, 4),
        (
            {
                **{"positions": "learned", "max_positions": "24", "max_subwords": "20"},
                **{
                    "tied_embeddings": "none",
                    "vocabulary_size": "280",
                    "target_vocabulary_size": "278",
                },
            },
            4,
        ),
    ],
)
def test_ctranslate2_finds_the_same(transformer, tmp_path, model_options, beam):
    """Its float32 differs by rounding; its own search agrees with ours on what is finished."""
    pytest.importorskip("ctranslate2")
    if model_options:
        transformer = untrained(tmp_path / "other", "transformer", **model_options)
    path = export(transformer, tmp_path / "exported", "--format", "ctranslate2")
    ours = summary(found_by(transformer, DecodingOptions(beam=beam, n_best=beam)))
    found = standalone.Translator(path, beam=beam, n_best=beam, threads=1)(LINES)
    agree(ours, found, 1e-4)


def test_int8_is_smaller_and_close(transformer, tmp_path, capsys):
    pytest.importorskip("ctranslate2")
    options = ["--format", "ctranslate2", "--quantization"]
    whole, small = (export(transformer, tmp_path / q, *options, q) for q in ("float32", "int8"))
    assert "int8, 0.1 MB" in capsys.readouterr().out
    sizes = [(path / "model" / "model.bin").stat().st_size for path in (whole, small)]
    assert sizes[1] < 0.6 * sizes[0]
    exact, close = (standalone.Translator(path, threads=1)(LINES) for path in (whole, small))
    for one, other in zip(exact, close, strict=True):
        assert len(one) == len(other)
        assert [h.score for h in one] == pytest.approx([h.score for h in other], abs=0.5)
    assert sum(one == other for one, other in zip(exact, close, strict=True)) >= 2  # blank ones
    command = [sys.executable, small / "translate.py"]
    marked = b"\xef\xbb\xbfdas haus\r\n\n"
    process = subprocess.run(command, input=marked, capture_output=True)
    assert process.stdout.decode() == f"{close[0][0].text}\n\n"
    assert (process.returncode, process.stderr) == (0, b"")
    reading, writing = os.pipe()
    os.close(reading)  # nobody reads
    process = subprocess.run(command, input=b"ab\n", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (process.returncode, process.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "not UTF-8 (byte 0xff at position 1)"),
        (b"a\0", "control character U+0000 at character 2"),
        (b"a" * 100_000, "longer than 10,000 characters"),
    ],
)
def test_exports_refuse_lines_as_the_toolkit_does(content, message):
    """After those before them."""
    stream = io.BytesIO(b"ab\n\n" + content + b"\nno more")
    windows = standalone._windows(standalone._lines(stream))
    assert next(windows) == ["ab", ""]
    with pytest.raises(ValueError, match=f"^standard input:3: {re.escape(message)}"):
        next(windows)
    stream.seek(0)
    ours = corpus.lines(stream, "standard input")
    assert [next(ours), next(ours)] == ["ab", ""]
    with pytest.raises(InputError, match=f"^standard input:3: {re.escape(message)}"):
        next(ours)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_exports_normalise_as_training_does(line):
    assert standalone._normalized(line) == text.normalized(line)


def test_wrong_options_and_directories(transformer, rnn, tmp_path, capfd):
    taken, other = tmp_path / "taken", tmp_path / "other"
    for path, file in ((taken, directory.DESCRIPTION), (other, "thesis.tex")):
        path.mkdir()
        (path / file).write_text("{}")
    for arguments, message in (
        (["--model", rnn, "--out", "{t}/new", "--format", "ctranslate2"], "is an RNN, and CTr"),
        (["--model", transformer], "--out: missing"),
        (["--model", transformer, "--out", "{t}/taken"], "already exists; replace it with --o"),
        (["--model", transformer, "--out", "{t}/other", "--overwrite"], "and is no export"),
        (["--model", transformer, "--out", "{t}/no/where"], "no directory"),
        (["--model", transformer, "--out", "{t}/new", "--quantization", "int8"], "needs --for"),
        (["--model", transformer, "--out", "{t}/new", "--format", "onnx"], "unknown value onnx"),
        (["--model", transformer, "--out", "{t}/new", "--sample"], "unknown option --sample"),
        (
            ["--model", transformer, transformer, "--out", "{t}/new", "--format", "ctranslate2"],
            "takes a single model",
        ),
        (["--model", other, "--out", "{t}/new"], "no model directory"),
    ):
        given_ones = [str(argument).replace("{t}", str(tmp_path)) for argument in arguments]
        assert export_command.main(given_ones) == 2
        captured = capfd.readouterr()
        assert message in captured.err and captured.err.count("\n") == 1, captured.err
    with (
        pytest.raises(InputError, match="No space left"),
        directory.new_directory(taken, overwrite=True) as temporary,
    ):
        (temporary / "half").write_text("")
        raise OSError(28, "No space left on device")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        *(directory.DESCRIPTION, "other", "taken", "thesis.tex")
    ]
    with directory.new_directory(taken, overwrite=True) as temporary:
        (temporary / "whole").write_text("")
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
        ["other", "taken", "thesis.tex", "whole"]
    )
