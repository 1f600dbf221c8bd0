"""The training command: tasks learned, a kill survived, wrong input refused in one line."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from nmt import (
    average,
    config_files,
    datasets,
    evaluate,
    export_command,
    score,
    serve,
    train,
    translate,
    weights,
)
from nmt.config import OBJECTIVES, OPTIMIZERS, Optimization
from nmt.model_directory import ModelDirectory
from nmt.train import effective_config, main, parser
from nmt.training import objectives, optimizers, run
from nmt.training import trainer as trainers
from tests.nmt.tasks import SMALL, SMALL_RNN, log, write_task
from tfkfac.errors import InputError

# Dropout and a learning rate that changes, so that all that a resumption needs matters.
FEW = [*SMALL, "--dropout", "0.1", "--warmup", "10", "--batch-tokens", "512"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """The options that name a small text."""
    return write_task(tmp_path_factory.mktemp("text"), list, pairs=300)


def stored(path):
    """All numbers in a file of weights: model, optimizer, random states."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def assert_same(ours, theirs):
    ours, theirs = stored(ours), stored(theirs)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def timeless(model):
    return [
        {name: value for name, value in row.items() if "second" not in name} for row in log(model)
    ]


def test_a_transformer_learns_to_copy(copy_model):
    rows = log(copy_model)
    assert [row["update"] for row in rows] == ["100", "200", "300"]
    assert max(float(row["bleu"]) for row in rows) >= 98
    assert rows[0]["bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|")
    assert float(rows[-1]["perplexity"]) == pytest.approx(
        np.exp(float(rows[-1]["validation_loss"]))
    )
    # cosine, after 50 updates of warm-up: (U - u + 1) / (U - w) of the way is left
    left = np.array([201, 101, 1]) / 250
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, 0.005 * (1 - np.cos(np.pi * left)) / 2)
    for name in ("tokens", "seconds", "total_seconds", "cpu_seconds"):
        values = [float(row[name]) for row in rows]
        assert values == sorted(values)
        assert values[0] > 0


def test_what_a_model_directory_holds(copy_model):
    names = {path.name for path in copy_model.iterdir()}
    assert names == {
        *("config.yaml", "subwords.model", "subwords.txt", "log.csv", "validation.txt"),
        *("best.weights.h5", "last.weights.h5", "averaged.weights.h5"),
        *("checkpoints", "tensorboard"),
    }
    kept = sorted(path.name for path in (copy_model / "checkpoints").iterdir())
    assert kept == [f"{update:08d}.weights.h5" for update in (100, 200, 300)]
    assert any((copy_model / "tensorboard").iterdir())
    content = (copy_model / "config.yaml").read_text()
    assert "  # most updates, counted from the training's beginning\n  updates: 300\n" in content
    assert "record:\n  format: 1\n  source_vocabulary: 36\n" in content
    assert len((copy_model / "subwords.txt").read_text().splitlines()) == 36
    # The translations that were measured, of the best validation: a copy of the source.
    translations = (copy_model / "validation.txt").read_text().splitlines()
    source = ModelDirectory(copy_model).read().config.data.validation_source or ""
    lines = Path(source).read_text().splitlines()
    same = [ours == theirs for ours, theirs in zip(translations, lines, strict=True)]
    assert sum(same) >= 38


def test_an_average_is_the_mean_of_what_was_kept(copy_model):
    kept = [stored(path) for path in sorted((copy_model / "checkpoints").iterdir())]
    average = stored(copy_model / "averaged.weights.h5")
    assert average.keys() == kept[0].keys()
    for name, value in average.items():
        np.testing.assert_allclose(value, np.mean([file[name] for file in kept], axis=0), atol=1e-6)


def test_a_recurrent_network_learns_to_sort(tmp_path):
    arguments = [*SMALL_RNN, *write_task(tmp_path, sorted), "--out", str(tmp_path / "model")]
    arguments += ["--dropout", "0", "--learning-rate", "0.01", "--warmup", "20"]
    arguments += ["--schedule", "cosine", "--updates", "300", "--validate-every", "300"]
    assert main(arguments) == 0
    assert float(log(tmp_path / "model")[0]["bleu"]) >= 98


def test_a_killed_training_resumes_as_if_it_had_not_been(text, tmp_path):
    """Bit for bit: weights, optimizer, random states, log, averages, best translations."""
    arguments = [*FEW, *text, "--updates", "24", "--validate-every", "8"]
    arguments += ["--checkpoint-every", "3", "--beam", "2", "--schedule", "plateau"]
    arguments += ["--plateau-patience", "1"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def start(*options):
        command = [sys.executable, "-m", "nmt.train", *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    # Processes of their own, all three: TensorFlow in this one may use other kernels.
    uninterrupted = start(*arguments, "--out", str(whole))
    killed = start(*arguments, "--out", str(broken))
    # After the first validation, wherever it may be by then.
    while not (broken / "checkpoints").is_dir() and killed.poll() is None:
        time.sleep(0.01)
    time.sleep(0.1)
    killed.kill()
    errors = killed.communicate()[1]
    assert killed.returncode == -9, f"it ended before it could be killed: {errors}"
    reached = weights.read_progress(broken / "last.weights.h5")["update"]
    assert 3 <= reached < 24
    # As if it had been killed while it wrote the log and a checkpoint, too.
    with (broken / "log.csv").open("a") as file:
        file.write("16,1,1,1\n17,")
    (broken / ".99.last.weights.h5").write_text("half")
    resumed = start("--out", str(broken), "--resume")
    output, errors = resumed.communicate()
    assert resumed.returncode == 0, errors
    assert f"resuming after update {reached} of 24\n" in output
    output, errors = uninterrupted.communicate()
    assert uninterrupted.returncode == 0, errors
    for name in ("last", "best", "averaged", "checkpoints/00000016", "checkpoints/00000024"):
        assert_same(whole / f"{name}.weights.h5", broken / f"{name}.weights.h5")
    assert timeless(whole) == timeless(broken)
    assert (whole / "validation.txt").read_text() == (broken / "validation.txt").read_text()
    assert not list(broken.glob(".*"))
    assert len(stored(whole / "last.weights.h5")) > 2 * len(stored(whole / "best.weights.h5"))


@pytest.fixture(scope="module")
def short(text, tmp_path_factory):
    """A training of four updates without validation."""
    model = tmp_path_factory.mktemp("short") / "model"
    arguments = [*FEW, *text[:4], "--updates", "4", "--checkpoint-every", "2"]
    assert main([*arguments, "--validate-every", "4", "--out", str(model)]) == 0
    return model


def test_a_finished_training_is_left_alone(short, capsys):
    before = (short / "last.weights.h5").read_bytes()
    assert main(["--out", str(short), "--resume"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "already finished: 4 updates"
    assert (short / "last.weights.h5").read_bytes() == before
    assert not (short / "best.weights.h5").exists()
    assert log(short)[0]["bleu"] == ""


def test_a_training_can_be_prolonged_and_resumed_elsewhere(short, tmp_path, capsys):
    """Until its minutes are over, which it looks for every 20 updates."""
    moved = tmp_path / "moved"
    shutil.copytree(short, moved)
    limits = ["--updates", "60", "--minutes", "1e-5"]
    assert main(["--out", str(moved), "--resume", *limits]) == 0
    output = capsys.readouterr().out
    assert "resuming after update 4 of 60\n" in output
    assert "finished: 1e-05 minutes\n" in output
    assert [row["update"] for row in log(moved)] == ["4", "8", "12", "16", "20"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "2"], "--resume: seed is 2, but the training in {} has 1; it must stay the"),
        (["--heads", "4"], "--resume: heads is 4, but the training in {} has 2; it must stay"),
        (["--source", "{text}", "--target", "{text}"], "--resume: {}/last.weights.h5 belongs to a"),
    ],
)
def test_resuming_must_not_become_another_training(arguments, message, short, text, capsys):
    arguments = [argument.replace("{text}", text[5]) for argument in arguments]
    before = (short / "last.weights.h5").read_bytes()
    assert main(["--out", str(short), "--resume", *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: " + message.format(short))
    assert (short / "last.weights.h5").read_bytes() == before


def test_a_training_starts_from_another_models_weights(short, text, tmp_path):
    arguments = [*FEW, *text[:4], "--init-from", str(short), "--out", str(tmp_path / "model")]
    arguments += ["--updates", "1", "--learning-rate", "1e-12", "--warmup", "0"]
    assert main(arguments) == 0
    assert (tmp_path / "model" / "subwords.model").read_bytes() == (
        short / "subwords.model"
    ).read_bytes()
    ours = stored(next((tmp_path / "model" / "checkpoints").iterdir()))
    theirs = stored(short / "checkpoints" / "00000004.weights.h5")
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-9)


def test_early_stopping_and_the_best_weights(text, tmp_path, capsys):
    """A learning rate so small that nothing changes: the first validation stays the best."""
    arguments = [*FEW, *text, "--patience", "2", "--validate-every", "1", "--beam", "1"]
    arguments += ["--learning-rate", "1e-12", "--updates", "50", "--average", "2"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "finished: no better validation in 2\n" in output
    assert [row["update"] for row in log(tmp_path)] == ["1", "2", "3"]
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["00000002.weights.h5", "00000003.weights.h5"]
    assert weights.read_progress(tmp_path / "last.weights.h5")["best_update"] == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--precision", "mixed_bfloat16"],
        ["--precision", "mixed_float16"],
        ["--optimizer", "kfac", "--optimizer-options", "damping=0.01,factor_interval=1"],
    ],
    ids=lambda options: "-".join(options).strip("-"),
)
def test_other_ways_to_train(options, text, tmp_path):
    """Each lowers the loss within a few updates."""
    arguments = [*FEW, *text[:4], *options, "--updates", "8", "--validate-every", "4"]
    assert main([*arguments, "--batch-tokens", "2048", "--out", str(tmp_path)]) == 0
    first, second = (float(row["loss"]) for row in log(tmp_path))
    assert second < first < 6
    assert (tmp_path / "kfac-report.txt").exists() == ("kfac" in options)


def test_xla_trains_likewise(tmp_path):
    """One shape of batch, since each is compiled by itself."""
    for side in ("source", "target"):
        (tmp_path / side).write_text("ba ko ti mu sel\n" * 20)
    text = ["--source", str(tmp_path / "source"), "--target", str(tmp_path / "target")]
    arguments = [*FEW, *text, "--vocabulary-size", "16", "--dropout", "0", "--updates", "3"]
    assert main([*arguments, "--jit", "--out", str(tmp_path / "jit")]) == 0
    assert main([*arguments, "--out", str(tmp_path / "plain")]) == 0
    ours, theirs = (stored(tmp_path / name / "last.weights.h5") for name in ("jit", "plain"))
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4, err_msg=name)


def test_interruption_says_what_is_safe(text, tmp_path, monkeypatch, capsys):
    class Interrupted(trainers.TrainingStep):
        def __call__(self, batch, update, learning_rate):
            if update == 3:
                raise KeyboardInterrupt
            return super().__call__(batch, update, learning_rate)

    monkeypatch.setattr(trainers, "TrainingStep", Interrupted)
    arguments = [*FEW, *text[:4], "--out", str(tmp_path)]
    assert main([*arguments, "--checkpoint-every", "2"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"interrupted; the checkpoint of update 2 is safe in {tmp_path}/last.weights.h5; "
        f"continue with: nmt-train --out {tmp_path} --resume"
    )
    assert not list(tmp_path.glob(".*"))


def test_a_loss_that_is_no_number_ends_the_training(text, tmp_path, capsys):
    arguments = [*FEW, *text[:4], "--learning-rate", "1e30", "--warmup", "0"]
    assert main([*arguments, "--checkpoint-every", "5", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: the loss is nan at update 5; the checkpoints before it are ke")
    assert not (tmp_path / "last.weights.h5").exists()


@pytest.mark.parametrize(
    ("source", "target", "arguments", "message"),
    [
        (b"a\nb\n", b"a\n", [], "{}/source has 2 lines, but {}/target has 1; line n of one must"),
        (b"", b"", [], "{}/source: empty; expected a sentence a line"),
        (b"a\n\xff\n", b"a\nb\n", [], "{}/source:2: not UTF-8"),
        (b"a\n\n", b"a\nb\n", [], "{}/source:2: blank, but {}/target:2 is not"),
        (b"a\nb\x00\n", b"a\nb\n", [], "{}/source:2: control character U+0000 at character 2"),
        (b"a\n", b"x" * 100_000 + b"\n", [], "{}/target:1: longer than 10,000 characters"),
        (
            *(b"ab\n" * 9, b"ab\n" * 9, []),
            "{}/source, {}/target: subwords: a vocabulary of 8000 is larger than the text allows; "
            "the largest possible is 264 (vocabulary_size)",
        ),
        (b"\n\n", b"\n\n", [], "{}/source, {}/target: subwords: there is no text to learn"),
        (b"a\n", b"b\n", ["--heads", "3"], "--heads: 3 does not divide embedding_size 256"),
        (b"a\n", b"b\n", ["--updtes", "3"], "nmt-train: unknown option --updtes (did you mean --"),
        (b"a\n", b"b\n", ["--config", "tiny"], "--config: unknown configuration tiny"),
        (b"a\n", b"b\n", ["--init-from", "{}"], "{}: no model directory (it has no config.yaml)"),
        (b"a\n", b"b\n", ["--source", "{}/x"], "--source {}/x: no such file"),
        (b"a\n", b"b\n", ["--source", "{}"], "--source {}: a directory, not a file"),
        (
            b"a\n",
            b"b\n",
            ["--source", "/dev/null"],
            "--source /dev/null: a pipe, not a fil",
        ),
        (b"a\n", b"b\n", ["--resume"], "{}/out: no model directory (it has no config.yaml)"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    source, target, arguments, message, tmp_path, capsys
):
    (tmp_path / "source").write_bytes(source)
    (tmp_path / "target").write_bytes(target)
    given = ["--source", str(tmp_path / "source"), "--target", str(tmp_path / "target")]
    arguments = [argument.replace("{}", str(tmp_path)) for argument in arguments]
    assert main([*given, *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: " + message.replace("{}", str(tmp_path)))
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_directory_is_not_overwritten_by_accident(tmp_path, text, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main([*text, "--out", str(tmp_path)]) == 2
    assert "already exists; continue it with --resume, replace it with" in capsys.readouterr().err


def test_help_and_errors_answer_without_tensorflow():
    check = (
        "import sys; from nmt import average, export_command, score, serve\n"
        "from nmt import train, translate\n"
        "commands = [average, export_command, score, serve, train, translate]\n"
        "codes = [command.main(['--modle', 'x']) for command in commands]\n"
        "codes += [train.main(['--updates', '0']), translate.main(['--model', 'absent'])]\n"
        "for command in commands:\n"
        "    try: command.main(['--help'])\n"
        "    except SystemExit as end: codes.append(end.code)\n"
        "assert codes == [2] * 8 + [0] * 6, codes\n"
        "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "(default: inverse-sqrt)" not in result.stdout
    assert "--length-penalty N" in result.stdout


def test_help_shows_sections_and_defaults():
    shown = parser().format_help()
    for expected in ("subwords:", "(default: 0.1)", "tiny-rnn", "{unigram,bpe}"):
        assert expected in shown
    assert "==SUPPRESS==" not in shown
    assert "KFAC's names (default: none)" in " ".join(shown.split())


def test_options_of_one_name_take_a_value_everywhere_or_nowhere():
    """As `--attention` once was a kind of attention here and a flag there."""
    commands = (average, datasets, evaluate, export_command, score, serve, train, translate)
    kinds: dict[str, set[bool]] = {}
    for command in commands:
        for action in command.parser()._actions:
            for name in action.option_strings:
                kinds.setdefault(name, set()).add(action.nargs == 0)
    assert len(kinds) > 100
    assert [name for name, found in kinds.items() if len(found) > 1] == []


def test_a_configuration_to_start_from(capsys, tmp_path):
    assert main(["--config", "small-rnn", "--updates", "7", "--show-config"]) == 0
    path = tmp_path / "mine.yaml"
    path.write_text(capsys.readouterr().out)
    mine = config_files.read(path).config()
    assert (mine.model.architecture, mine.training.updates) == ("rnn", 7)
    flags = {"source": "a", "target": "b", "out": "c", "patience": "null", "schedule": "constant"}
    assert effective_config(flags, str(path)).training.updates == 7


def test_objectives_are_those_of_the_configuration():
    assert tuple(objectives.OBJECTIVES) == OBJECTIVES


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "kfac"])
def test_every_optimizer_makes_an_update(name):
    import keras

    variable = keras.Variable(np.ones((3, 2), np.float32))
    optimizer = optimizers.build(Optimization(optimizer=name, weight_decay=0.01, clip_norm=1.0))
    optimizer.build([variable])
    optimizer.apply([keras.ops.ones((3, 2))], [variable])
    assert np.all(np.isfinite(variable.numpy()))
    assert np.abs(variable.numpy() - 1).max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta_3": 1}, r"optimizer_options: adam: unknown argument beta_3 \(did you mean beta_2"),
        ({"clipnorm": 1}, "optimizer_options: no clipnorm here: gradients are clipped by clip_no"),
        ({"use_ema": True}, "optimizer_options: no use_ema here: nmt-train averages checkpoints"),
    ],
)
def test_optimizer_options_that_there_are_not(options, message):
    with pytest.raises(InputError, match=message):
        optimizers.build(Optimization(optimizer_options=options))


def test_kfac_with_another_optimizer_inside():
    import keras

    options = {"optimizer": "adam", "damping": 0.5}
    built = optimizers.build(Optimization(optimizer="kfac", optimizer_options=options))
    assert isinstance(built.inner_optimizer, keras.optimizers.Adam)
    assert float(built.damping) == 0.5
    built.learning_rate = 0.25
    assert float(built.inner_optimizer.learning_rate) == 0.25


def test_several_ranks_and_xla(text, tmp_path, monkeypatch, capsys):
    from tfkfac.ranks import Ranks

    monkeypatch.setattr("tfkfac.ranks.start", lambda horovod: Ranks(0, 2))
    assert main([*FEW, *text, "--jit", "--out", str(tmp_path / "model")]) == 2
    assert "jit: XLA cannot compile Horovod's operations; 2 ranks" in capsys.readouterr().err


def test_an_unexpected_error_keeps_its_traceback(tmp_path, text, monkeypatch):
    def fails(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(run, "train", fails)
    with pytest.raises(ZeroDivisionError):
        main([*text, "--out", str(tmp_path)])
    assert os.listdir(tmp_path) == []
