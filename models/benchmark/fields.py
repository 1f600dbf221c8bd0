"""Whether the fields of a dataclass hold what their annotations say: JSON promises nothing."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

_LARGE = 2**63  # whole numbers of JSON have no end, those of other programs have


def mistyped(instance: Any) -> Iterator[str]:
    """What is wrong with the fields of a dataclass's instance, and of those in it.

    A whole number passes for a float, but none that is infinite or beyond 64 bits; True is no
    number.

    Example:

    >>> @dataclasses.dataclass
    ... class Point:
    ...     x: float | None
    >>> list(mistyped(Point("1")))
    ["x is '1', not float | None"]
    """
    kind: Any = type(instance)
    hints = _hints(kind)
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if dataclasses.is_dataclass(value):
            yield from (f"{field.name}.{problem}" for problem in mistyped(value))
        elif not fits(value, hints[field.name]):
            yield f"{field.name} is {value!r:.60}, not {_name(hints[field.name])}"
        elif isinstance(value, tuple):
            for place, entry in enumerate(value, start=1):
                if dataclasses.is_dataclass(entry):
                    yield from (f"{field.name} {place}: {problem}" for problem in mistyped(entry))


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type: a class, a union, `tuple[X, ...]` or a mapping."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, one) for one in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(entry, arguments[0]) for entry in value)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if hint is float and isinstance(value, float):
        return math.isfinite(value)
    if hint in (int, float):
        return type(value) is int and abs(value) < _LARGE
    return isinstance(value, hint)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint)
