"""Options of configurations and command lines: what each takes, and errors that say where.

An option is a dataclass field made by `option`; a configuration is a dataclass of options, or of
such dataclasses. Values come from YAML files or from command lines, and are checked alike.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tfkfac.errors import InputError, unknown

Configuration = TypeVar("Configuration")


@dataclass(frozen=True)
class Kind:
    """What an option's value has to be.

    Args:
        expected: in words, for messages.
        parse: from text, a list of texts or a value of the right type; raises ValueError or
            TypeError.
        valid: whether a parsed value is in range.
        names: all values there are, for an option that chooses.
        metavar: what stands for the value in the command line's help.
    """

    expected: str
    parse: Callable[[Any], Any]
    valid: Callable[[Any], bool] = lambda value: True
    names: tuple[str, ...] = ()
    metavar: str = "N"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _flag(value: Any) -> bool:
    words = {"true": True, "false": False, "yes": True, "no": False}
    if str(value).lower() not in words:
        raise ValueError(value)
    return words[str(value).lower()]


def _whole(value: Any) -> int:
    return int(str(value))


def number(value: Any) -> float:
    """A finite number from text or a number; raises ValueError or TypeError."""
    if not math.isfinite(parsed := float(value)):
        raise ValueError(value)
    return parsed


TEXT = Kind("text", _text, lambda value: value != "", metavar="PATH")
FLAG = Kind("true or false", _flag)
COUNT = Kind("a whole number above 0", _whole, lambda value: value > 0)
WHOLE = Kind("a whole number, 0 or more", _whole, lambda value: value >= 0)
SEED = Kind("a whole number from 0 to 4294967295", _whole, lambda value: 0 <= value < 2**32)
POSITIVE = Kind("a number above 0", number, lambda value: value > 0)
NOT_NEGATIVE = Kind("a number, 0 or more", number, lambda value: value >= 0)
FRACTION = Kind("a number from 0 to below 1", number, lambda value: 0 <= value < 1)
SHARE = Kind("a number from 0 to 1", number, lambda value: 0 <= value <= 1)


def one_of(*names: str) -> Kind:
    """An option that chooses among names."""
    metavar = "{" + ",".join(names) + "}"
    return Kind(f"one of {', '.join(names)}", _text, lambda value: value in names, names, metavar)


def option(kind: Kind, default: Any, help: str, group: str = "") -> Any:
    """A dataclass field that knows its documentation; None as default also allows None."""
    return field(default=default, metadata={"group": group, "kind": kind, "help": help})


def convert(option: dataclasses.Field, value: Any, where: str) -> Any:
    """The value of an option from text, a list of texts, or None.

    Args:
        option: a field made by `option`.
        value: what a configuration or a command line says; "null" counts as None.
        where: what the error message calls the place, such as "--epochs".

    Raises:
        InputError: if the option takes no such value.
    """
    kind: Kind = option.metadata["kind"]
    if value is None or value == "null":
        if option.default is None:
            return None
        raise InputError(f"{where}: expected {kind.expected}, not null")
    try:
        parsed = kind.parse(value)
    except (TypeError, ValueError):
        raise InputError(f"{where}: expected {kind.expected}, not {value!r}") from None
    _check(kind, parsed, where)
    return parsed


def flag(name: str) -> str:
    """An option as the command line has it: `batch_size` as `--batch-size`."""
    return f"--{name.replace('_', '-')}"


def convert_flags(
    known: Mapping[str, dataclasses.Field], flags: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of those of the known options that a command line has; see `convert`."""
    return {
        name: convert(known[name], value, flag(name))
        for name, value in flags.items()
        if name in known
    }


def from_flags(configuration: type[Configuration], flags: Mapping[str, Any]) -> Configuration:
    """A configuration, a dataclass, of those of its options that a command line has.

    Raises:
        InputError: if one takes no such value.
    """
    known = {option.name: option for option in dataclasses.fields(configuration)}  # type: ignore[arg-type]
    return configuration(**convert_flags(known, flags))


def check(option: dataclasses.Field, value: Any) -> None:
    """Raises InputError, naming the option, if a value is out of its range."""
    if not (value is None and option.default is None):
        _check(option.metadata["kind"], value, option.name)


def _check(kind: Kind, value: Any, where: str) -> None:
    if kind.valid(value):
        return
    if kind.names:
        raise unknown("value", str(value), kind.names, where)
    raise InputError(f"{where}: expected {kind.expected}, not {value!r}")


def as_given(value: Any) -> str:
    """A value as a configuration has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(item if isinstance(item, str) else f"{item:g}" for item in value) or "none"
    if isinstance(value, Mapping):
        return ",".join(f"{name}={as_given(item)}" for name, item in value.items()) or "none"
    return "null" if value is None else str(value)


def preset_names(presets: Path) -> list[str]:
    """The configurations in a package's directory."""
    return sorted(path.stem for path in presets.glob("*.yaml"))


def find(name: str, presets: Path) -> Path:
    """The file of a configuration: a path, or the name of one in the directory `presets`.

    Raises:
        InputError: if there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    if (preset := presets / f"{name}.yaml").is_file():
        return preset
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"--config: no file {name}")
    raise unknown("configuration", name, preset_names(presets), "--config")


@dataclass(frozen=True)
class Entry:
    """One key of a YAML mapping: `where` is its file and line, `node` its value, unconverted."""

    key: str
    node: yaml.Node
    where: str

    @property
    def value(self) -> Any:
        """Scalars as they are written, since YAML takes 1e-3 for a string; null as None."""
        return _plain(self.node)


def read_entries(path: Path, example: str) -> Iterator[Entry]:
    """The keys of a YAML file in order; nothing for an empty file.

    Args:
        path: the file.
        example: a line as expected, for the error message, such as "epochs: 10".

    Raises:
        InputError: naming file and line, if it is not a mapping or has a key twice.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: no valid YAML ({error.problem})") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: no valid YAML ({error})") from error
    if root is not None:
        yield from entries(root, path, example)


def entries(node: yaml.Node, path: Path, example: str) -> Iterator[Entry]:
    """As `read_entries`, for a mapping inside the file at `path`."""
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{path}:{node.start_mark.line + 1}: expected lines such as '{example}'")
    seen = set()
    for key, value in node.value:
        where = f"{path}:{key.start_mark.line + 1}"
        name = str(key.value)
        if name in seen:
            raise InputError(f"{where}: {name} is set twice")
        seen.add(name)
        yield Entry(name, value, where)


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag == "tag:yaml.org,2002:null" else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _plain(value) for key, value in node.value}
    raise AssertionError(f"no YAML node: {node}")
