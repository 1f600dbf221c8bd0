"""The log of a trial as MLPerf's: lines of `:::MLLOG` and a JSON object each.

Keys and event types are those of MLPerf's logging package, for whatever reads its logs.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

PREFIX = ":::MLLOG "
POINT, START, END = "POINT_IN_TIME", "INTERVAL_START", "INTERVAL_END"


class Log:
    """A file of events, each written at once.

    Args:
        path: of the file, which is made anew; None writes nothing.
        clock: seconds since 1970.

    Example:

    >>> with Log(None) as log:
    ...     log.point("seed", 1)
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        self._file = None if path is None else path.open("w", encoding="utf-8")
        self._clock = clock

    def point(self, key: str, value: Any = None, **metadata: Any) -> None:
        """Something that is so, or happens now."""
        self._write(POINT, key, value, metadata)

    def start(self, key: str, **metadata: Any) -> None:
        """Something begins; `key` ends in `_start`."""
        self._write(START, key, None, metadata)

    def stop(self, key: str, **metadata: Any) -> None:
        """Something ends; `key` ends in `_stop`."""
        self._write(END, key, None, metadata)

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, event: str, key: str, value: Any, metadata: dict[str, Any]) -> None:
        if self._file is None:
            return
        if isinstance(value, float) and not math.isfinite(value):
            value = None
        entry = {
            "namespace": "",
            "time_ms": round(1000 * self._clock()),
            "event_type": event,
            "key": key,
            "value": value,
            "metadata": metadata,
        }
        self._file.write(f"{PREFIX}{json.dumps(entry)}\n")
        self._file.flush()


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a log, in their order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line.removeprefix(PREFIX)) for line in lines if line.startswith(PREFIX)]
