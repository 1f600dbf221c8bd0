"""Configurations: what is read, what is refused, and what the message says."""

import dataclasses
import re
from pathlib import Path

import pytest

from nmt import config_files
from nmt.config import OPTIMIZERS, OPTIONS, SECTION_OF, SECTIONS, Config, Data, Optimization
from nmt.config_files import RECORD, Values, find, from_flags, preset_names, read, text
from nmt.documented import meanings, options_of
from nmt.models import ModelConfig
from tfkfac.errors import InputError
from tfkfac.options import as_given


def write(path, content):
    path.write_text(content)
    return path


def test_reads_values_of_every_kind(tmp_path):
    path = write(
        tmp_path / "run.yaml",
        """\
# A comment.
data:
  source: a.de
  max_length_ratio: null
model:
  architecture: rnn
  embedding_size: 64
  output_size: null
  input_feeding: no
optimization:
  learning_rate: 5e-4     # a string to YAML 1.1
  optimizer_options: {beta_2: 9.8e-1, amsgrad: true, momentum: 1}
loss:
""",
    )
    assert read(path).values == {
        "source": "a.de",
        "max_length_ratio": None,
        "architecture": "rnn",
        "embedding_size": 64,
        "output_size": None,
        "input_feeding": False,
        "learning_rate": 0.0005,
        "optimizer_options": {"beta_2": 0.98, "amsgrad": True, "momentum": 1},
    }


def test_flags_take_precedence_and_are_text(tmp_path):
    path = write(tmp_path / "run.yaml", "training:\n  updates: 5\n  seed: 3\n")
    flags = {"updates": "7", "optimizer_options": "beta_2=0.5,epsilon=1e-9", "jit": True}
    config = from_flags(flags, read(path)).config()
    assert (config.training.updates, config.training.seed) == (7, 3)
    assert config.optimization.optimizer_options == {"beta_2": 0.5, "epsilon": 1e-9}
    assert config.execution.jit is True
    assert config.value("updates") == 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("training:\n  update: 3\n", ":2: training: unknown option update (did you mean updates?)"),
        ("trainin:\n  updates: 3\n", ":1: unknown section trainin (did you mean training?)"),
        ("updates: 3\n", ":1: updates belongs into section training"),
        ("data:\n  seed: 3\n", ":2: seed belongs into section training, not data"),
        ("loss: 3\n", ":1: expected lines such as 'objective: ...'"),
        ("loss:\n- objective\n", ":2: expected lines such as 'objective: ...'"),
        ("training:\n  seed: 1\n  seed: 2\n", ":3: seed is set twice"),
        ("training:\n  seed: 1\ntraining:\n  seed: 2\n", ":3: training is set twice"),
        ("training:\n  seed: -1\n", ":2: seed: expected a whole number from 0 to 4294967295"),
        ("training:\n  updates: 2.5\n", ":2: updates: expected a whole number above 0, not '2.5'"),
        ("training:\n  updates: null\n", ":2: updates: expected a whole number above 0, not null"),
        ("execution:\n  jit: perhaps\n", ":2: jit: expected true or false, not 'perhaps'"),
        ("optimization:\n  optimizer: adm\n", ":2: optimizer: unknown value adm (did you mean ad"),
        ("optimization:\n  optimizer_options: 3\n", ":2: optimizer_options: expected settings"),
        ("model:\n  heads: 3\n", ":2: heads: 3 does not divide embedding_size 256"),
        ("model:\n  architecture: rn\n", ":2: architecture: unknown value rn (did you mean rnn?)"),
        ("model:\n  dropout: 1\n", ":2: dropout: expected a share in [0, 1), got 1.0"),
        (
            "subwords:\n  target_vocabulary_size: 9\nmodel:\n  tied_embeddings: all\n",
            ":4: tied_embeddings: all needs",
        ),
        ("data:\n  source: a.de\n", ":2: source: needs target, its other side, too"),
        (
            "optimization:\n  schedule: linear\n  warmup: 9\ntraining:\n  updates: 9\n",
            ":3: warmup: 9 leaves nothing of updates 9",
        ),
        ("training:\n  batch_tokens: 50\n", ":2: batch_tokens: 50 cannot hold a sentence of max_"),
        (
            "model:\n  positions: learned\n  max_positions: 100\ndata:\n  max_subwords: 100\n",
            ":5: max_subwords: 100 and the end do not fit max_positions 100",
        ),
        ("training: [3\n", ":2: no valid YAML"),
    ],
)
def test_wrong_files_are_named_with_the_line(tmp_path, content, message):
    path = write(tmp_path / "run.yaml", content)
    with pytest.raises(InputError) as error:
        read(path).config()
    assert str(error.value).startswith(f"{path}{message}")
    assert "\n" not in str(error.value)


def test_wrong_flags_are_named_as_they_are_given():
    with pytest.raises(InputError, match="^--batch-tokens: expected a whole number above 0, not"):
        from_flags({"batch_tokens": "x"})
    with pytest.raises(InputError, match="^--heads: 3 does not divide"):
        from_flags({"heads": "3"}).config()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("source", "source: missing; give --source FILE"),
        ("out", "out: missing; give --out DIRECTORY"),
        ("validation_source", "--patience: needs validation_source and validation_target"),
    ],
)
def test_what_a_training_cannot_do_without(missing, message):
    flags = {"source": "a", "target": "b", "validation_source": "c", "validation_target": "d"}
    flags |= {"out": "e", "patience": "3"}
    assert from_flags(flags).config(complete=True)
    del flags[missing]
    flags.pop({"source": "target", "validation_source": "validation_target"}.get(missing, ""), None)
    with pytest.raises(InputError, match=f"^{message}"):
        from_flags(flags).config(complete=True)


def test_presets_train_on_two_files_alone():
    """Without early stopping and plateau, unless the command line asks for them."""
    for name in preset_names():
        flags = {"source": "a", "target": "b", "out": "c"}
        values = from_flags(flags, read(find(name)))
        values.drop_what_needs_validation()
        config = values.config(complete=True)
        assert config.validation.patience is None
        assert config.optimization.schedule != "plateau"
        values = from_flags({**flags, "patience": "3"}, read(find(name)))
        values.drop_what_needs_validation()
        with pytest.raises(InputError, match="^--patience: needs validation_source"):
            values.config(complete=True)
        values = from_flags({**flags, "validation_source": "d"}, read(find(name)))
        before = dict(values.values)
        values.drop_what_needs_validation()
        assert values.values == before


def test_a_written_configuration_reads_as_the_same(tmp_path):
    original = Config(
        data=Data(source="a: b.de", target="c#d", max_length_ratio=2.5),
        optimization=Optimization(optimizer="kfac", optimizer_options={"damping": 1e-5}),
    )
    path = write(tmp_path / "run.yaml", text(original, {"format": 1, "keras": "3"}))
    assert f"{RECORD}:\n  format: 1\n" in path.read_text()
    assert read(path).config() == original


def test_names_are_unique_and_no_section_is_called_like_an_option():
    names = [known.name for section in SECTIONS.values() for known in dataclasses.fields(section)]
    assert len(names) == len(set(names)) == len(OPTIONS)
    assert not set(names) & set(SECTIONS)
    assert SECTION_OF["heads"] == "model"


def test_every_option_is_documented_and_has_a_valid_default():
    for name, known in OPTIONS.items():
        assert len(known.metadata["help"]) > 5, name
        factory = known.default_factory
        default = known.default if factory is dataclasses.MISSING else factory()
        if default is not None:
            values = Values()
            values.set(name, as_given(default), name)
            assert values.values[name] == default


def test_help_of_documented_classes():
    class Documented:
        """One.

        Args:
            first: what it is,
                over `"two"` lines.
            second: short, or None.

        Raises:
            InputError: never.
        """

    assert meanings(Documented)["first"] == "what it is, over two lines."
    assert meanings(Documented)["second"] == "short, or null."
    assert options_of(ModelConfig)["heads"].default == 4


@pytest.mark.parametrize("name", preset_names())
def test_presets(name):
    path = find(name)
    config = read(path).config()
    assert config.model.architecture in name
    for line in path.read_text().splitlines():
        if re.match(r"  \w+:", line):
            assert "  # " in line or " # " in line, line


def test_there_are_presets_of_three_sizes():
    kinds = [
        f"{size}-{kind}" for size in ("base", "small", "tiny") for kind in ("rnn", "transformer")
    ]
    assert preset_names() == kinds
    with pytest.raises(InputError, match=r"unknown configuration tiny \(did you mean tiny-rnn\?\)"):
        find("tiny")


def test_optimizers_are_those_of_keras():
    keras = pytest.importorskip("keras")
    # The first changes weights for inference, which no checkpoint here knows of; the others
    # are no optimizers by themselves.
    left_out = {"schedulefreeadamw", "lossscaleoptimizer", "multioptimizer", "optimizer"}
    known = {
        name.lower()
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type) and issubclass(value, keras.optimizers.Optimizer)
    }
    assert {*OPTIMIZERS} == (known - left_out) | {"kfac"}
    assert config_files.PRESETS.is_dir()


def test_configurations_of_documented_results_are_still_read():
    folder = Path(__file__).parents[2] / "docs" / "results" / "multi30k"
    for name in ("transformer", "rnn"):
        config = read(folder / name / "config.yaml").config(complete=True)
        assert config.model.architecture == name
        assert config.data.source == "data/multi30k/train.de"
