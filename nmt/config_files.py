"""Configurations from YAML files and command lines, with errors that name the place."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nmt.config import OPTIONS, SECTION_OF, SECTIONS, Config
from tfkfac import options
from tfkfac.errors import InputError, unknown

PRESETS = Path(__file__).parent / "configs"
# The section that a model directory adds to its configuration, and `read` skips.
RECORD = "record"


@dataclass
class Values:
    """Converted values of options by name, and where each was given, for error messages."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def set(self, name: str, value: Any, where: str) -> None:
        """Converts and takes a value, which replaces an earlier one."""
        self.values[name] = options.convert(OPTIONS[name], value, where)
        self.places[name] = where

    def drop_what_needs_validation(self) -> None:
        """Without validation text, turns off what a file asks for that needs it.

        So presets train on two files alone. What the command line asks for is left as it is, and
        found wanting by `config`.
        """
        if self.values.get("validation_source") or self.values.get("validation_target"):
            return
        for name, wanting, without in (
            ("patience", lambda value: value is not None, None),
            ("schedule", lambda value: value == "plateau", "constant"),
        ):
            in_file = not self.places.get(name, "--").startswith("--")
            if in_file and wanting(self.values[name]):
                self.values[name] = without

    def config(self, complete: bool = False) -> Config:
        """The configuration, with defaults for all other options.

        Args:
            complete: whether all must be there that a training needs.

        Raises:
            InputError: naming the place, if options contradict each other or one is missing.
        """
        sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
        for name, value in self.values.items():
            sections[SECTION_OF[name]][name] = value
        try:
            config = Config(**{name: SECTIONS[name](**own) for name, own in sections.items()})
            return config.complete() if complete else config
        except InputError as error:
            name = str(error).split(":")[0]
            if name not in self.places:
                raise
            raise InputError(f"{self.places[name]}{str(error).removeprefix(name)}") from None


def from_flags(flags: Mapping[str, Any], base: Values | None = None) -> Values:
    """Options of the command line, by name and not yet converted, on top of others."""
    result = base or Values()
    for name, value in flags.items():
        result.set(name, value, options.flag(name))
    return result


def read(path: Path) -> Values:
    """The options that a YAML file sets.

    Raises:
        InputError: naming file, line and option, if the file is not made of sections, sets an
            option twice, in another section or one that does not exist, or gives one a value
            that it does not take.
    """
    result = Values()
    for section in options.read_entries(path, "training:"):
        if section.key == RECORD:
            continue
        if section.key in OPTIONS and section.key not in SECTIONS:
            raise InputError(
                f"{section.where}: {section.key} belongs into section {SECTION_OF[section.key]}"
            )
        if section.key not in SECTIONS:
            raise unknown("section", section.key, SECTIONS, section.where)
        if section.value in (None, "", {}):
            continue
        own = [known.name for known in dataclasses.fields(SECTIONS[section.key])]
        for entry in options.entries(section.node, path, f"{own[0]}: ..."):
            if entry.key not in own:
                if entry.key in OPTIONS:
                    raise InputError(
                        f"{entry.where}: {entry.key} belongs into section "
                        f"{SECTION_OF[entry.key]}, not {section.key}"
                    )
                raise unknown(
                    "option", entry.key, [*own, *OPTIONS], f"{entry.where}: {section.key}"
                )
            result.set(entry.key, entry.value, f"{entry.where}: {entry.key}")
    return result


def preset_names() -> list[str]:
    """The configurations that come with the package."""
    return options.preset_names(PRESETS)


def find(name: str) -> Path:
    """The file of a configuration: a path, or the name of one that comes with the package.

    Raises:
        InputError: if there is neither.
    """
    return options.find(name, PRESETS)


def text(config: Config, record: Mapping[str, Any] | None = None) -> str:
    """The configuration as YAML that `read` accepts, each option explained.

    Args:
        config: what to write.
        record: what a model directory adds to it.
    """
    lines = []
    for name in SECTIONS:
        lines.append(f"{name}:")
        section = getattr(config, name)
        for known in dataclasses.fields(section):
            lines += textwrap.wrap(known.metadata["help"], 94, initial_indent="  # ",
                                   subsequent_indent="  # ")  # fmt: skip
            value = {known.name: getattr(section, known.name)}
            lines.append(textwrap.indent(yaml.safe_dump(value), "  "))
        lines.append("")
    if record is not None:
        lines.append(yaml.safe_dump({RECORD: dict(record)}, sort_keys=False))
    return "\n".join(line.rstrip("\n") for line in lines) + "\n"
