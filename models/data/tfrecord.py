"""TFRecord files, read by the number of the record, with their checksums compared.

A record is an 8-byte length and its 4-byte checksum, then the data and their 4-byte checksum. A
checksum is a CRC-32C, rotated and shifted so that it is none of data that hold checksums.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import google_crc32c

from tfkfac.errors import InputError

HEADER, TRAILER = 12, 4  # bytes before and after the data


def record_extents(path: str) -> Iterator[tuple[int, int]]:
    """(offset, length) of the data of each record, found from their lengths without reading them.

    Raises:
        InputError: if a length's checksum is wrong, or the file does not end where a record ends.
    """
    end = os.path.getsize(path)
    position = 0
    with open(path, "rb") as file:
        while position < end:
            file.seek(position)
            length = _length(file.read(HEADER), path, position)
            if position + HEADER + length + TRAILER > end:
                raise InputError(f"{path}: cut short: the record at byte {position} has no end")
            yield position + HEADER, length
            position += HEADER + length + TRAILER


def read_record(path: str, offset: int, length: int) -> bytes:
    """The data of a record of `record_extents`.

    Raises:
        InputError: if their checksum is wrong.
    """
    with open(path, "rb") as file:
        file.seek(offset)
        stored = file.read(length + TRAILER)
    return _data(stored, path, offset - HEADER)


def only_record(content: bytes, path: str) -> bytes:
    """The data of the one record in the content of a file, such as an uncompressed one.

    Raises:
        InputError: if there are more or less, or a checksum is wrong.
    """
    length = _length(content[:HEADER], path, 0)
    whole = HEADER + length + TRAILER
    if len(content) != whole:
        raise InputError(f"{path}: {len(content)} bytes, where one record of {whole} should be")
    return _data(content[HEADER:], path, 0)


def _length(header: bytes, path: str, position: int) -> int:
    if len(header) < HEADER or _checksum(header[:8]) != header[8:]:
        raise InputError(f"{path}: damaged or not a TFRecord file (at byte {position})")
    return struct.unpack("<Q", header[:8])[0]


def _data(stored: bytes, path: str, position: int) -> bytes:
    data = stored[:-TRAILER]
    if _checksum(data) != stored[-TRAILER:]:
        raise InputError(f"{path}: damaged: the record at byte {position} has a wrong checksum")
    return data


def _checksum(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    rotated = (crc >> 15 | crc << 17) + 0xA282EAD8
    return struct.pack("<I", rotated & 0xFFFFFFFF)
