"""The errors that end a command with one line instead of a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 24  # more would hide the message


class InputError(ValueError):
    """An option, a configuration or a data file is wrong (exit code 2).

    The message is one line that names the option, file and line, and says what is expected.
    """


class TrainingError(RuntimeError):
    """A training cannot go on, though its input was in order (exit code 1)."""


def unknown(what: str, name: str, known: Iterable[str], where: str) -> InputError:
    """The error for a name that is none of the known ones, with the nearest of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(known[:_LISTED]) + (", ..." if len(known) > _LISTED else "")
    hint = f"did you mean {near[0]}?" if near else f"known: {listed}"
    return InputError(f"{where}: unknown {what} {name} ({hint})")
