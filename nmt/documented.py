"""Options out of a class that is documented already, so that each is described in one place."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Collection, Mapping
from typing import Any

from tfkfac.errors import InputError
from tfkfac.options import FLAG, Kind, convert_flags, flag, number, option

_WHOLE = Kind("a whole number", lambda value: int(str(value)))
_NUMBER = Kind("a number", number)
_NAME = Kind("text", str, lambda value: value != "", metavar="NAME")
_KINDS = {"int": _WHOLE, "float": _NUMBER, "str": _NAME, "bool": FLAG}
# "    heads: attention heads, ..." and the lines indented further that continue it.
_ARGUMENT = re.compile(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", re.MULTILINE)


def meanings(documented: type) -> dict[str, str]:
    """What the "Args:" of a class's docstring say of each argument, on one line, without markup.

    None is null there, as in configurations and on command lines.
    """
    text = inspect.getdoc(documented) or ""
    return {
        name: _without_markup(re.sub(r"\s+", " ", meaning))
        for name, meaning in _ARGUMENT.findall(text)
    }


def _without_markup(text: str) -> str:
    text = text.replace('`"', "").replace('"`', "").replace("`", "")
    return re.sub(r"\bNone\b", "null", text)


def options_of(documented: type, leave_out: Collection[str] = ()) -> dict[str, dataclasses.Field]:
    """The fields of a dataclass as options: types from annotations, help from its docstring.

    Ranges are left to the class, which checks them when it is made.

    Args:
        documented: a dataclass whose fields are whole numbers, numbers, text or flags, or None.
        leave_out: fields that are no options.
    """
    help = meanings(documented)
    result = {}
    for known in dataclasses.fields(documented):
        if known.name in leave_out:
            continue
        kind = _KINDS[str(known.type).removesuffix(" | None")]
        made = option(kind, known.default, help.get(known.name, "").rstrip("."))
        made.name, made.type = known.name, known.type
        result[known.name] = made
    return result


def section_of(documented: type, name: str, leave_out: Collection[str] = ()) -> Any:
    """A dataclass called `name` of the options of another one; see `options_of`."""
    fields = options_of(documented, leave_out)
    return dataclasses.make_dataclass(
        name,
        [(key, known.type, _copy(known)) for key, known in fields.items()],
        frozen=True,
    )


def _copy(known: dataclasses.Field) -> Any:
    return dataclasses.field(default=known.default, metadata=known.metadata)


def explanation(documented: type) -> str:
    """What the docstring of a class says before its arguments, without markup."""
    text = (inspect.getdoc(documented) or "").split("\nArgs:")[0]
    return _without_markup(text).strip()


def from_flags(documented: type, flags: Mapping[str, Any], **others: Any) -> Any:
    """An object of a class, from those of its options that a command line has.

    Args:
        documented: see `options_of`.
        flags: values by name, not yet converted; what is no option of the class is passed over.
        others: arguments that are no options.

    Raises:
        InputError: if the class refuses a value; the message begins with the option.
    """
    known = options_of(documented, leave_out=others)
    values = convert_flags(known, flags)
    try:
        return documented(**values, **others)
    except InputError as error:
        name = str(error).split(":")[0]
        if name not in known:
            raise
        raise InputError(f"{flag(name)}{str(error).removeprefix(name)}") from None
