"""Files that appear whole or not at all."""

import os
import threading

import pytest

from tfkfac.files import remove_leftovers, replacing


def test_a_file_is_replaced_as_a_whole_or_stays(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        assert temporary.suffix == path.suffix
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_symbolic_link_stays(tmp_path):
    """Such as /dev/stdout."""
    (tmp_path / "elsewhere").mkdir()
    path, link = tmp_path / "elsewhere" / "notes.txt", tmp_path / "link"
    link.symlink_to(path)
    for text in ("new", "newer"):
        with replacing(link) as temporary:
            temporary.write_text(text)
        assert link.is_symlink()
        assert path.read_text() == text


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    """Nor is a device: the superuser would lose /dev/null."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    with replacing(path) as same:
        same.write_text("through")
    reader.join()
    assert read == ["through"]
    assert path.is_fifo()
    with replacing(type(path)("/dev/null")) as same:
        assert str(same) == "/dev/null"


def test_what_killed_processes_left_is_removed(tmp_path):
    path = tmp_path / "notes.txt"
    for name in ("notes.txt", ".17.notes.txt", ".17.other.txt"):
        (tmp_path / name).touch()
    remove_leftovers(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".17.other.txt", "notes.txt"]
