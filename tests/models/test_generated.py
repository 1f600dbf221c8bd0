"""The cache of generated examples."""

import numpy as np
import pytest

from models.data.generated import cached


class Maker:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"x": np.arange(600, dtype=np.int16).reshape(2, 300), "y": np.full(2, self.calls)}


@pytest.fixture
def maker():
    return Maker()


def the_file(directory):
    (path,) = directory.iterdir()
    return path


def test_made_once_and_read_again(tmp_path, maker):
    made = cached(tmp_path / "new", "noise", {"seed": 1}, maker)
    read = cached(tmp_path / "new", "noise", {"seed": 1}, maker)
    assert maker.calls == 1
    assert read.keys() == made.keys() == {"x", "y"}
    np.testing.assert_array_equal(read["x"], made["x"])
    assert read["x"].dtype == np.int16
    assert the_file(tmp_path / "new").name.startswith("noise-")


def test_other_parameters_are_other_files(tmp_path, maker):
    cached(tmp_path, "noise", {"seed": 1, "cells": 8}, maker)
    cached(tmp_path, "noise", {"cells": 8, "seed": 1}, maker)
    assert maker.calls == 1
    cached(tmp_path, "noise", {"seed": 2, "cells": 8}, maker)
    assert maker.calls == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_without_a_directory_nothing_is_kept(maker):
    cached(None, "noise", {}, maker)
    cached(None, "noise", {}, maker)
    assert maker.calls == 2


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def flip(path):
    data = bytearray(path.read_bytes())
    data[data.index(np.arange(100, 200, dtype=np.int16).tobytes())] ^= 1
    path.write_bytes(data)


def replace_with_another(path):
    """A sound archive whose values are not those that were digested."""
    with np.load(path) as archive:
        arrays = {**archive, "y": np.zeros(2)}
    np.savez(path, **arrays)


@pytest.mark.parametrize("damage", [cut, flip, replace_with_another, lambda p: p.write_text("")])
def test_a_damaged_file_is_noticed_and_remade(tmp_path, maker, capsys, damage):
    cached(tmp_path, "noise", {}, maker)
    damage(the_file(tmp_path))
    again = cached(tmp_path, "noise", {}, maker)
    assert maker.calls == 2
    assert again["y"][0] == 2
    message = capsys.readouterr().err
    assert str(the_file(tmp_path)) in message and "making it anew" in message
    cached(tmp_path, "noise", {}, maker)
    assert maker.calls == 2


def test_an_unwritable_directory_is_no_obstacle(tmp_path, maker, capsys):
    (tmp_path / "file").touch()
    assert cached(tmp_path / "file", "noise", {}, maker)["y"][0] == 1
    assert "going on without it" in capsys.readouterr().err


def test_nothing_is_left_of_a_failure(tmp_path):
    def fail():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cached(tmp_path, "noise", {}, fail)
    assert list(tmp_path.iterdir()) == []
