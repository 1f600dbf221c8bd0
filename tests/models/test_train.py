"""The training command, in this process: digits with SGD, interrupted, resumed, refused."""

import csv
import shutil
import subprocess
import sys
import types
import zipfile

import keras
import numpy as np
import pytest

from models import checkpoint, recording, resnet, training
from models.averaging import BatchNormAverage
from models.config import TrainingConfig
from models.run_directory import COLUMNS, Progress, RunDirectory
from models.train import main, parser
from tfkfac.errors import InputError, TrainingError
from tfkfac.ranks import Ranks, launched_as_first

DIGITS = ["--dataset", "digits", "--batch-size", "64", "--learning-rate", "0.1", "--seed", "3"]


def log(run):
    with (run / "log.csv").open() as file:
        return list(csv.DictReader(file))


def finished(run):
    """How far the training in a directory has come."""
    progress = RunDirectory(run).progress()
    assert progress is not None
    return progress


def weights(path):
    """All variables in a checkpoint, the optimizer's included."""
    model = keras.models.load_model(path)
    return [np.asarray(v) for v in (*model.variables, *model.optimizer.variables)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A training of four epochs, and what it would have left if killed after the second."""
    root = tmp_path_factory.mktemp("runs")

    class Copying(recording.Recorder):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            if self.progress.epoch == 2:
                shutil.copytree(root / "whole", root / "broken")

    arguments = [*DIGITS, "--epochs", "4", "--warmup-epochs", "1", "--out", str(root / "whole")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "Recorder", Copying)
        assert main(arguments) == 0
    return root


def test_digits_are_learnt(runs):
    rows = log(runs / "whole")
    assert tuple(rows[0]) == COLUMNS
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["step"] for row in rows] == ["22", "44", "66", "88"]
    assert float(rows[-1]["val_accuracy"]) > 0.9  # chance is 0.1
    # linear: full after a warm-up of 22 steps, zero at step 88; each row has its last step's rate
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == pytest.approx([0.1, 0.1 * 45 / 66, 0.1 * 23 / 66, 0.1 * 1 / 66])
    for name in ("seconds", "total_seconds", "cpu_seconds"):
        times = [float(row[name]) for row in rows]
        assert times == sorted(times)
        assert times[0] > 0
    for row in rows:
        assert float(row["seconds"]) < float(row["total_seconds"])


def test_the_checkpoints_are_keras_models(runs):
    rows = log(runs / "whole")
    run = RunDirectory(runs / "whole")
    best = max(rows, key=lambda row: float(row["val_accuracy"]))
    with zipfile.ZipFile(run.best) as archive:
        assert f'"epoch": {best["epoch"]},' in archive.read("training.json").decode()
    model = keras.models.load_model(run.best)
    data = training.load_data(TrainingConfig())
    measured = model.evaluate(data.evaluation(360), return_dict=True, verbose=0)
    assert measured["accuracy"] == pytest.approx(float(best["val_accuracy"]))
    assert finished(run.path).epoch == 4
    assert not [file for file in run.path.iterdir() if file.name.startswith(".")]


def test_the_configuration_in_effect_is_kept(runs):
    text = (runs / "whole" / "config.yaml").read_text()
    assert "learning_rate: 0.1\n" in text
    assert f"keras: {keras.__version__}\n" in text
    saved = RunDirectory(runs / "whole").saved_config()
    assert (saved.model, saved.epochs, saved.seed) == ("resnet8", 4, 3)


def test_an_interrupted_training_resumes_as_if_it_had_not_been(runs, capsys):
    """Bit for bit: weights, optimizer state and log."""
    broken = RunDirectory(runs / "broken")
    assert finished(broken.path).epoch == 2
    # As if it had been killed after the log's line, while it wrote the checkpoint of epoch 3.
    with broken.log.open("a") as file:
        file.write("3,66,1,1,1,1,1,1,1,1\n4,")
    (broken.path / ".99.last.keras").write_text("half")
    assert main(["--out", str(broken.path), "--resume"]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[1] == "resuming with epoch 3 of 4"
    assert output[2].startswith("epoch 3/4  loss ")
    for ours, theirs in zip(
        weights(broken.last), weights(runs / "whole" / "last.keras"), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    timeless = [name for name in COLUMNS if "seconds" not in name]
    for ours, theirs in zip(log(broken.path), log(runs / "whole"), strict=True):
        assert [ours[name] for name in timeless] == [theirs[name] for name in timeless]
    assert finished(broken.path).best_epoch == finished(runs / "whole").best_epoch
    assert not (broken.path / ".99.last.keras").exists()


def test_interruption_says_what_is_safe(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    assert main([*DIGITS, "--out", str(tmp_path)]) == 130
    assert "no epoch was finished, so there is no checkpoint" in capsys.readouterr().err
    with zipfile.ZipFile(tmp_path / "last.keras", "w") as archive:
        archive.writestr("training.json", '{"epoch": 5, "steps_per_epoch": 22, "ranks": 1}')
    assert main([*DIGITS, "--out", str(tmp_path), "--overwrite"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"interrupted; the checkpoint of epoch 5 is safe in {tmp_path}/last.keras; "
        f"continue with: models-train --out {tmp_path} --resume"
    )


def test_a_finished_training_is_left_alone(runs, capsys):
    before = (runs / "whole" / "last.keras").read_bytes()
    assert main(["--out", str(runs / "whole"), "--resume"]) == 0
    assert "already finished: epoch 4 of 4" in capsys.readouterr().out
    assert (runs / "whole" / "last.keras").read_bytes() == before


def test_another_number_of_steps_is_another_training(runs):
    fresh = Progress(epoch=0, steps_per_epoch=11, ranks=1)
    with pytest.raises(InputError, match="steps_per_epoch 22, but this training has 11"):
        training._resumed(RunDirectory(runs / "whole"), None, fresh)


@pytest.mark.parametrize(("depth", "optimizer"), [(14, "sgd"), (8, "adam")])
def test_a_checkpoint_of_another_training(runs, depth, optimizer):
    """Keras by itself only warns where the optimizer's state does not fit."""
    other = resnet.cifar_resnet(depth, (8, 8, 1), width=8)
    other.compile(optimizer)
    other.optimizer.build(other.trainable_variables)
    with pytest.raises(InputError, match=r"last.keras: does not fit this model and optimizer"):
        checkpoint.restore(other, runs / "whole" / "last.keras")


def test_a_run_directory_is_not_overwritten_by_accident(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main([*DIGITS, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: --out {tmp_path}: already exists; continue it with --resume, replace it with "
        "--overwrite, or choose another\n"
    )
    assert main(["--out", str(tmp_path / "notes.txt")]) == 2
    assert "not a directory" in capsys.readouterr().err


def test_overwriting_removes_a_trainings_files_only(tmp_path):
    run = RunDirectory(tmp_path)
    for name in ("notes.txt", "log.csv", "last.keras", "best.keras", "config.yaml"):
        (tmp_path / name).write_text("old")
    run.check_new(overwrite=True)
    run.clear()
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_loss_that_is_no_number_ends_the_training(tmp_path, capsys):
    arguments = ["--learning-rate", "1e30", "--epochs", "3", "--steps-per-epoch", "4"]
    assert main([*DIGITS, *arguments, "--label-smoothing", "0.1", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: the loss is nan in epoch 1; the checkpoints before it are kept")
    assert not (tmp_path / "last.keras").exists()
    assert len(log(tmp_path)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimzer", "sgd"], "models-train: unknown option --optimzer (did you mean --optimi"),
        (["--optimizer", "kfca"], "--optimizer: unknown value kfca (did you mean kfac?)"),
        (["--epochs", "-1"], "--epochs: expected a whole number above 0, not -1"),
        (["--epochs"], "--epochs: expected one argument"),
        (["--epo", "3"], "models-train: unknown option --epo (did you mean --epochs?)"),
        (["extra"], "models-train: unexpected argument extra"),
        (["--config", "digit"], "--config: unknown configuration digit (did you mean digits?)"),
        (["--resume", "--overwrite"], "--resume and --overwrite contradict each other"),
        (["--steps-per-execution", "5"], "steps_per_execution 5 does not divide the 11 steps of"),
        (["--batch-size", "5000"], "digits: 1437 training examples do not fill one batch of 5000"),
        (["--dataset", "imagenet"], "dataset imagenet needs --data DIRECTORY holding train/CLASS"),
        (["--dataset", "cifar10", "--data", "a.npz"], "a.npz: no such file; expected an .npz file"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(arguments, message, tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*arguments, "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not out.exists()


def test_tensorboard_that_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["--tensorboard", "--out", str(tmp_path / "run")]) == 2
    assert "pip install tensorboard" in capsys.readouterr().err


def test_help_and_errors_answer_without_tensorflow():
    check = (
        "import sys; from models.train import main\n"
        "codes = [main(['--optimzer', 'sgd']), main(['--epochs', '0'])]\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: codes.append(end.code)\n"
        "from models import plot\n"
        "assert codes == [2, 2, 0], codes\n"
        "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "--learning-rate N" in result.stdout


def test_help_shows_groups_and_defaults():
    text = parser().format_help()
    for expected in ("K-FAC (ignored by", "(default: 0.003)", "(default: linear)", "{sgd,adamw,"):
        assert expected in text
    assert "None" not in text
    assert "==SUPPRESS==" not in text


def test_horovod_that_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "horovod", None)
    monkeypatch.setenv("HOROVOD_RANK", "0")
    assert main(["--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: HOROVOD_RANK is set, as by horovodrun, but Horovod for")
    monkeypatch.delenv("HOROVOD_RANK")
    assert main(["--horovod", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("error: --horovod, but Horovod for TensorFlow is")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "adamw"], "optimizer adamw does not average gradients over ranks"),
        (["--optimizer", "kfac", "--jit"], "XLA cannot compile Horovod's operations"),
        (
            ["--optimizer", "kfac", "--dataset", "cifar10"],
            "cifar10 on several ranks needs --data FILE.npz",
        ),
    ],
)
def test_what_several_ranks_cannot_do(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tfkfac.ranks.start", lambda horovod: Ranks(0, 2))
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


def test_batch_norm_statistics_are_averaged(monkeypatch):
    """With another rank, played here, whose statistics are all 3; weights and seeds stay."""

    def grouped_allreduce(tensors, name, op):
        assert op == "mean"
        return [(tensor + 3) / 2 for tensor in tensors]

    fake = types.SimpleNamespace(grouped_allreduce=grouped_allreduce, Average="mean")
    monkeypatch.setitem(sys.modules, "horovod", types.SimpleNamespace(tensorflow=fake))
    monkeypatch.setitem(sys.modules, "horovod.tensorflow", fake)
    layers = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    model = keras.Sequential([keras.Input((2,)), *layers])
    seed = np.asarray(layers[1].seed_generator.state)
    callback = BatchNormAverage()
    callback.set_model(model)
    callback.on_test_begin()
    gamma, beta, mean, variance = (np.asarray(v).tolist() for v in layers[0].weights)
    assert (gamma, beta, mean, variance) == ([1, 1], [0, 0], [1.5, 1.5], [2, 2])
    np.testing.assert_array_equal(layers[1].seed_generator.state, seed)


def test_which_process_is_the_first(monkeypatch):
    for name in ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert launched_as_first(horovod=True)
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    assert not launched_as_first(horovod=True)
    assert launched_as_first(horovod=False)
    monkeypatch.setenv("HOROVOD_RANK", "2")
    assert not launched_as_first(horovod=False)


def test_damaged_images_are_an_input_error(tmp_path):
    config = TrainingConfig(dataset="imagenet", data=str(tmp_path))
    import tensorflow as tf

    message = "assertion failed: [neither JPEG nor PNG:] [a/b.JPEG]\n\t [[{{node Assert}}]]"
    error = tf.errors.InvalidArgumentError(None, None, message)
    assert str(training._damaged_data(error, config)) == (
        f"{tmp_path}: assertion failed: [neither JPEG nor PNG:] [a/b.JPEG]"
    )
    other = tf.errors.InvalidArgumentError(None, None, "Incompatible shapes: [1] vs. [2]")
    assert training._damaged_data(other, config) is None


def test_a_failing_save_keeps_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.keras"
    path.write_text("old")

    class Failing:
        def save(self, target):
            target.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(Failing(), path, Progress(epoch=1, steps_per_epoch=1, ranks=1))
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["last.keras"]


def test_an_unexpected_error_keeps_its_traceback(tmp_path, monkeypatch):
    """Only wrong input and diverged trainings become one line."""

    def fails(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(training, "train", fails)
    with pytest.raises(ZeroDivisionError):
        main(["--out", str(tmp_path / "run")])
    assert not issubclass(TrainingError, InputError)
