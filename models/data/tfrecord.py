"""TFRecord files, read by the number of the record."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from tfkfac.errors import InputError


def record_extents(path: str) -> Iterator[tuple[int, int]]:
    """(offset, length) of the data of each record, found from their lengths without reading them.

    An 8-byte length and a 4-byte checksum come before the data, a 4-byte checksum after it.

    Raises:
        InputError: if the file does not end where a record ends.
    """
    end = os.path.getsize(path)
    position = 0
    with open(path, "rb") as file:
        while position < end:
            file.seek(position)
            header = file.read(12)
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else end
            if position + 12 + length + 4 > end:
                raise InputError(f"{path}: damaged or not a TFRecord file (at byte {position})")
            yield position + 12, length
            position += 12 + length + 4
