"""TFRecord files as TensorFlow writes them, and every way of damaging one byte of them."""

import pytest
import tensorflow as tf

from models.data.tfrecord import only_record, read_record, record_extents
from tfkfac.errors import InputError

RECORDS = [b"first", b"", bytes(range(256))]


@pytest.fixture
def path(tmp_path):
    name = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(name) as writer:
        for record in RECORDS:
            writer.write(record)
    return name


def read_all(path):
    return [read_record(path, *extent) for extent in record_extents(path)]


def test_reads_what_tensorflow_writes(path):
    assert read_all(path) == RECORDS


def test_any_damaged_byte_is_noticed(path):
    with open(path, "rb") as file:
        whole = file.read()
    for place in range(len(whole)):
        with open(path, "wb") as file:
            file.write(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(InputError, match="a.tfrecord: damaged"):
            read_all(path)


def test_any_cut_is_noticed(path):
    with open(path, "rb") as file:
        whole = file.read()
    ends = {0, 21, 37}  # 16 bytes more than each record's: a file of fewer records
    for length in sorted(set(range(60)) - ends):
        with open(path, "wb") as file:
            file.write(whole[:length])
        with pytest.raises(InputError, match=r"a.tfrecord: (damaged or not|cut short)"):
            read_all(path)


def test_the_only_record_of_a_file(path):
    with open(path, "rb") as file:
        whole = file.read()
    assert only_record(whole[:21], "b") == b"first"
    with pytest.raises(InputError, match="b: 21 bytes, where one record of 16 should be"):
        only_record(whole[21:37] + whole[:5], "b")
    with pytest.raises(InputError, match="b: damaged: the record at byte 0 has a wrong checksum"):
        only_record(whole[:12] + b"farst" + whole[17:21], "b")
