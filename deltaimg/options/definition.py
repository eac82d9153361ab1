# SPDX-License-Identifier: Apache-2.0
"""How an option is defined: a field of a frozen dataclass with an `OptionInfo`, made by `option` or `flag`.

The command line takes names, help and defaults from there, and `build` turns its text into the dataclass. Who makes the
dataclass in Python has it validated by the verb that takes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from msgspec import Struct

from deltaimg.errors import UsageError
from deltaimg.options.values import ValueType

Options = TypeVar("Options")
_KEY = "option"


class OptionInfo(Struct, frozen=True):
    """What people read of an option, and what its values are."""

    help: str
    type: ValueType | None
    """None: a flag, which is set or not."""
    names: tuple[str, ...] = ()
    """On the command line, such as `--tag` and `-t`; of the field's name if there are none."""
    default_text: str | None = None
    """What help shows as the default, where that is not the field's default."""
    is_repeatable: bool = False
    """The value is a tuple, of one for each time that the option is given."""
    environment: str | None = None
    """A variable that gives the value as well."""


def option(
    default: Any,
    type: ValueType,  # noqa: A002  what `OptionInfo` calls it
    help: str,  # noqa: A002
    *names: str,
    default_text: str | None = None,
    is_repeatable: bool = False,
    environment: str | None = None,
) -> Any:
    """Return the field of an option that has a value."""
    info = OptionInfo(help, type, names, default_text, is_repeatable, environment)
    return dataclasses.field(default=default, metadata={_KEY: info})


def flag(help: str, *names: str) -> Any:  # noqa: A002
    """Return the field of an option that is set or not; not, by default."""
    return dataclasses.field(default=False, metadata={_KEY: OptionInfo(help, None, names)})


def list_options(options_type: type[Any]) -> Iterator[tuple[dataclasses.Field[Any], OptionInfo]]:
    """Yield the options of a dataclass in order; fields that are no options are left out."""
    for field in dataclasses.fields(options_type):
        if _KEY in field.metadata:
            yield field, field.metadata[_KEY]


def name_option(field: dataclasses.Field[Any], info: OptionInfo) -> str:
    """Return an option's name on the command line."""
    return info.names[0] if info.names else "--" + field.name.replace("_", "-")


def build(options_type: type[Options], values: Mapping[str, Any]) -> Options:
    """Return options from the texts and flags of a command line, by field; None is the default. Raises UsageError."""
    found = {}
    for field, info in list_options(options_type):
        value = values.get(field.name)
        if value is None or (info.is_repeatable and not value):
            continue
        if info.type is not None:
            value = tuple(map(info.type.parse, value)) if info.is_repeatable else info.type.parse(value)
            _check(name_option(field, info), info, value)
        found[field.name] = value
    return options_type(**found)


def validate(options: Any) -> None:
    """Raise UsageError if a value is not valid."""
    for field, info in list_options(type(options)):
        value = getattr(options, field.name)
        if info.type is not None and value is not None:
            _check(field.name, info, value)


def _check(name: str, info: OptionInfo, value: Any) -> None:
    assert info.type is not None
    for each in value if info.is_repeatable else (value,):
        if problem := info.type.find_problem(each):
            raise UsageError(f"{name} {str(info.type.format(each))[:60]!s}: {problem}")
