"""Configurations: what is read, what is refused, and what the message says."""

import dataclasses
import re

import pytest

from models import config
from models.config import OPTIONS, TrainingConfig, convert
from models.run_directory import RunDirectory
from models.train import effective_config
from tfkfac.errors import InputError


def write(path, text):
    path.write_text(text)
    return path


def test_reads_values_of_every_kind(tmp_path):
    path = write(
        tmp_path / "run.yaml",
        """\
# A comment.
optimizer: kfac
data: null
learning_rate: 5e-2     # a string to YAML 1.1
damping: 1
epochs: 3
jit: yes
decay_epochs: [35, 7.5e+1]
damping_decay_epochs: []
""",
    )
    assert config.read(path) == {
        "optimizer": "kfac",
        "data": None,
        "learning_rate": 0.05,
        "damping": 1.0,
        "epochs": 3,
        "jit": True,
        "decay_epochs": (35.0, 75.0),
        "damping_decay_epochs": (),
    }


def test_an_empty_file_sets_nothing(tmp_path):
    assert config.read(write(tmp_path / "run.yaml", "# nothing\n")) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3\nlearning_rat: 1\n", ":2: unknown option learning_rat (did you mean learning_"),
        ("zzz: 1\n", ":1: unknown option zzz (known: dataset, data, model"),
        ("epochs: 3\n\nepochs: 4\n", ":3: epochs is set twice"),
        ("epochs: many\n", ":1: epochs: expected a whole number above 0, not 'many'"),
        ("epochs: 2.5\n", ":1: epochs: expected a whole number above 0, not '2.5'"),
        ("epochs: 0\n", ":1: epochs: expected a whole number above 0, not 0"),
        ("epochs: null\n", ":1: epochs: expected a whole number above 0, not null"),
        ("jit: perhaps\n", ":1: jit: expected true or false, not 'perhaps'"),
        ("momentum: 1\n", ":1: momentum: expected a number from 0 to below 1, not 1.0"),
        ("damping: .nan\n", ":1: damping: expected a number above 0, not '.nan'"),
        ("damping: inf\n", ":1: damping: expected a number above 0, not 'inf'"),
        ("damping: [1]\n", ":1: damping: expected a number above 0, not ['1']"),
        ("damping: {a: 1}\n", ":1: damping: expected a number above 0"),
        ("decay_epochs: [3, 2]\n", ":1: decay_epochs: expected increasing epochs above 0"),
        ("optimizer: sdg\n", ":1: optimizer: unknown value sdg (did you mean sgd?)"),
        ("model: resnet-20\n", ":1: model: unknown value resnet-20 (did you mean resnet20?)"),
        ("- epochs\n", ":1: expected lines such as 'epochs: 10'"),
        ("epochs: [3\n", ":2: no valid YAML"),
        ("epochs: 3\n\tbad: 1\n", ":2: no valid YAML"),
        ("epochs: \x00", ": no valid YAML"),
    ],
)
def test_wrong_files_are_named_with_the_line(tmp_path, text, message):
    path = write(tmp_path / "run.yaml", text)
    with pytest.raises(InputError, match=re.escape(f"{path}{message}")):
        config.read(path)


def test_unreadable_files(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match=r"bytes.yaml: .*decode"):
        config.read(tmp_path / "bytes.yaml")
    with pytest.raises(InputError, match=r"absent.yaml: .*No such file"):
        config.read(tmp_path / "absent.yaml")


def test_finding_a_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.find("digits") == config.PRESETS / "digits.yaml"
    write(tmp_path / "digits", "epochs: 1")
    assert str(config.find("digits")) == "digits"
    with pytest.raises(InputError, match=r"--config: no file mine.yaml"):
        config.find("mine.yaml")
    with pytest.raises(InputError, match=r"unknown configuration digit \(did you mean digits\?\)"):
        config.find("digit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: expected a whole number above 0, not 0"),
        ({"seed": 2**32}, "seed: expected a whole number from 0 to 4294967295"),
        ({"optimizer": "adam"}, r"optimizer: unknown value adam \(did you mean adamw\?\)"),
        ({"decay_epochs": (5.0,)}, "decay_epochs needs schedule step, but schedule is linear"),
        ({"warmup_epochs": 10.0}, "warmup_epochs 10 leaves nothing of epochs 10"),
        ({"stride_in_3x3": True}, "stride_in_3x3 is for resnet50, .* not for resnet8"),
        ({"data": "digits.npz"}, "digits comes with scikit-learn and takes no file"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(InputError, match=message):
        TrainingConfig(**options)


def test_defaults_that_depend_on_others_are_filled_in():
    resolved = TrainingConfig(dataset="cifar10", optimizer="adamw").resolved()
    assert (resolved.model, resolved.learning_rate) == ("resnet20", 0.001)
    assert resolved.out == "runs/cifar10-resnet20-adamw"
    kept = TrainingConfig(model="resnet56", learning_rate=3.0, out="x")
    assert kept.resolved() == kept


def test_a_written_configuration_reads_as_the_same(tmp_path):
    original = TrainingConfig(
        dataset="cifar10",
        data="null.npz",
        optimizer="kfac",
        learning_rate=1e-5,
        schedule="step",
        decay_epochs=(1.0, 2.5),
        jit=True,
        steps_per_epoch=7,
    ).resolved()
    path = write(tmp_path / "run.yaml", config.text(original, {"keras": "3"}))
    assert "versions:\n  keras: '3'\n" in path.read_text()
    assert TrainingConfig(**config.read(path)) == original


def test_every_option_is_documented_and_has_a_valid_default():
    for name, option in OPTIONS.items():
        assert len(option.metadata["help"]) > 5, name
        if isinstance(option.default, (str, int, float)):
            assert convert(name, str(option.default), name) == option.default


@pytest.mark.parametrize("name", config.preset_names())
def test_configurations_of_the_package(name):
    path = config.find(name)
    TrainingConfig(**config.read(path))
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert comments


def test_presets_for_comparison_differ_in_the_optimizer_only():
    differing = set()
    presets = [
        config.read(config.find(f"cifar10-resnet20-{optimizer}"))
        for optimizer in ("sgd", "kfac", "adamw", "muon")
    ]
    configs = [dataclasses.asdict(TrainingConfig(**preset)) for preset in presets]
    for name in OPTIONS:
        if len({str(values[name]) for values in configs}) > 1:
            differing.add(OPTIONS[name].metadata["group"])
    assert differing <= {"optimizer", "kfac"}


def test_the_command_line_takes_precedence(tmp_path):
    path = write(tmp_path / "run.yaml", "epochs: 3\nbatch_size: 32\n")
    result = effective_config({"epochs": "5", "jit": True}, str(path), resume=False)
    assert (result.epochs, result.batch_size, result.jit) == (5, 32, True)


def test_a_wrong_option_is_named_as_it_is_given():
    with pytest.raises(InputError, match="^--batch-size: expected a whole number above 0, not 'x'"):
        effective_config({"batch_size": "x"}, None, resume=False)


@pytest.fixture
def saved(tmp_path):
    original = TrainingConfig(epochs=4, batch_size=32, out="elsewhere").resolved()
    write(tmp_path / "config.yaml", config.text(original, {}))
    return tmp_path


def test_resuming_takes_the_saved_options(saved):
    result = effective_config({"out": str(saved)}, None, resume=True)
    assert (result.epochs, result.batch_size, result.out) == (4, 32, str(saved))


@pytest.mark.parametrize("options", [{"batch_size": "64"}, {"epochs": "9"}])
def test_resuming_must_not_become_another_training(saved, options):
    name, value = next(iter(options.items()))
    message = f"--resume: {name} is {value}, but the training in {saved} has"
    with pytest.raises(InputError, match=re.escape(message)):
        effective_config({"out": str(saved), **options}, None, resume=True)


def test_resuming_with_another_file(saved, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("other") / "run.yaml", "epochs: 4\n")
    with pytest.raises(InputError, match="batch_size is 128, but the training in .* has 32"):
        effective_config({"out": str(saved)}, str(path), resume=True)


def test_a_schedule_without_an_end_can_be_prolonged(saved):
    original = TrainingConfig(epochs=4, schedule="constant", out=str(saved)).resolved()
    write(saved / "config.yaml", config.text(original, {}))
    result = effective_config({"out": str(saved), "epochs": "9"}, None, resume=True)
    assert result.epochs == 9


def test_nothing_to_resume(tmp_path):
    with pytest.raises(InputError, match=r"--resume: no training in .*\(no config.yaml\)"):
        effective_config({"out": str(tmp_path)}, None, resume=True)


def test_a_damaged_checkpoint(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.progress() is None
    run.last.write_bytes(b"PK\x03\x04 no zip archive")
    with pytest.raises(InputError, match=r"last.keras: damaged or not a training's"):
        run.progress()
