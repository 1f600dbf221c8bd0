"""Model directories that are damaged, foreign or newer: refused in one line."""

import shutil

import pytest

from nmt.model_directory import ModelDirectory, load_model
from tfkfac.errors import InputError


@pytest.fixture
def copied(copy_model, tmp_path):
    shutil.copytree(copy_model, tmp_path / "model")
    return tmp_path / "model"


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def edit(path, old, new):
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))


def test_a_directory_that_was_moved_loads(copied):
    model, contents = load_model(copied)
    assert model.config == contents.model_config
    assert contents.source is contents.target
    assert len(contents.source) == 36


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: shutil.rmtree(path), "no model directory (it has no config.yaml)"),
        (lambda path: (path / "config.yaml").unlink(), "no model directory (it has no config.yaml"),
        (lambda path: cut(path / "config.yaml"), "/config.yaml: a configuration, but not that of"),
        (lambda path: (path / "config.yaml").write_bytes(b"\xff"), "/config.yaml: damaged"),
        (lambda path: (path / "config.yaml").write_text("a: ["), "/config.yaml: damaged"),
        (
            lambda path: edit(path / "config.yaml", "format: 1", "format: 2"),
            ": made by a newer version of this program (format 2; this one reads up to 1); upgrade",
        ),
        (
            lambda path: edit(path / "config.yaml", "  heads: 2", "  heds: 2"),
            ": model: unknown option heds (did you mean heads?)",
        ),
        (
            lambda path: edit(
                path / "config.yaml", "source_vocabulary: 36", "source_vocabulary: 9"
            ),
            "/subwords.model: has 36 subwords, but the model was trained with 9",
        ),
        (lambda path: cut(path / "subwords.model"), "/subwords.model: "),
        (lambda path: (path / "subwords.model").unlink(), "/subwords.model: No such file"),
        (lambda path: cut(path / "best.weights.h5"), "/best.weights.h5: no weight file, or a dam"),
        (
            lambda path: edit(path / "config.yaml", "embedding_size: 64", "embedding_size: 32"),
            "/best.weights.h5: does not fit the model, or is damaged",
        ),
        (
            lambda path: [file.unlink() for file in path.glob("*.weights.h5")],
            ": has no best and no last checkpoint",
        ),
    ],
)
def test_what_does_not_load(copied, change, message):
    change(copied)
    with pytest.raises(InputError) as error:
        load_model(copied)
    assert str(copied) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_which_weights(copied):
    directory = ModelDirectory(copied)
    assert directory.weights() == copied / "best.weights.h5"
    assert directory.weights("averaged") == copied / "averaged.weights.h5"
    kept = copied / "checkpoints" / "00000100.weights.h5"
    assert directory.weights(str(kept)) == kept
    with pytest.raises(InputError, match="--checkpoint: neither one of best, last, averaged nor a"):
        directory.weights("bst")
    (copied / "best.weights.h5").unlink()
    assert directory.weights() == copied / "last.weights.h5"
    load_model(copied)  # the optimizer in it is left out


def test_a_new_training_removes_only_a_trainings_files(copied):
    contents = ModelDirectory(copied).read()
    (copied / "notes.txt").write_text("mine")
    (copied / ".9.last.weights.h5").write_text("half")
    ModelDirectory(copied).create(contents, {})
    names = {path.name for path in copied.iterdir()}
    assert names == {"notes.txt", "config.yaml", "subwords.model", "subwords.txt"}
