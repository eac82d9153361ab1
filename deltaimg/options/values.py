# SPDX-License-Identifier: Apache-2.0
"""Types of option values: how text becomes a value and back, and which values are valid."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from deltaimg.errors import UsageError
from deltaimg.model import GIB, KIB, MIB

_SIZE = re.compile(r"(\d{1,20})(\.\d{1,20})?\s*([KMGTPE]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,20})?)\s*%?", re.ASCII)
_COUNT = re.compile(r"\d{1,9}", re.ASCII)
_RATIO = re.compile(r"\d{1,9}(?:\.\d{1,20})?", re.ASCII)
_UNITS = ((GIB, "G"), (MIB, "M"), (KIB, "K"))


def accept(_value: Any) -> None:
    """Find no problem with any value."""


class ValueType(Struct, frozen=True):
    """A type of values.

    `find_problem` returns what is wrong with a value, as in "it must be 1 to 64", and None if it is valid. `choices` are
    all values there are, where they can be listed.
    """

    metavar: str
    parse: Callable[[str], Any]
    format: Callable[[Any], str] = str
    find_problem: Callable[[Any], str | None] = accept
    choices: tuple[str, ...] = ()


def parse_size(text: str) -> int:
    """Return the bytes that `4096`, `64K`, `1.5GiB` or the like mean, by powers of 1024; raises UsageError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"'{text}' is not a valid size", hint="write 65536, 64K, 1.5G or the like")
    unit: int = 1024 ** " KMGTPE".index(match[3].upper() or " ")
    return int(match[1]) * unit + int(float(match[2] or 0) * unit)


def format_size(size_bytes: int) -> str:
    """Return a size as `parse_size` reads it: `256M`."""
    for unit, letter in _UNITS:
        if size_bytes and size_bytes % unit == 0:
            return f"{size_bytes // unit}{letter}"
    return str(size_bytes)


def parse_percent(text: str) -> float:
    """Return the number that `5`, `0.5` or `5%` means; raises UsageError."""
    match = _PERCENT.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"'{text}' is not a valid percentage", hint="write 5, 0.5 or the like")
    return float(match[1])


def parse_count(text: str) -> int:
    """Return the whole number that `8` means; raises UsageError."""
    if not _COUNT.fullmatch(text.strip()):
        raise UsageError(f"'{text[:60]}' is not a valid whole number", hint="write 4, 8 or the like")
    return int(text)


def parse_ratio(text: str) -> float:
    """Return the number that `2` or `1.5` means; raises UsageError."""
    if not _RATIO.fullmatch(text.strip()):
        raise UsageError(f"'{text[:60]}' is not a valid number", hint="write 2, 1.5 or the like")
    return float(text)


def _format_number(value: float) -> str:
    return f"{value:g}"


def parse_time(text: str) -> datetime:
    """Return the moment that `2026-11-23` or `2026-11-23T02:30` means; raises UsageError.

    It is of the local time zone, unless it names another, as `2026-11-23T02:30Z` does.
    """
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"'{text[:60]}' is not a valid date or time", hint="write 2026-11-23, 2026-11-23T02:30 or 2026-11-23T02:30Z"
        ) from error


TEXT = ValueType("TEXT", str)
TIME = ValueType("TIME", parse_time, datetime.isoformat)
SIZE = ValueType("SIZE", parse_size, format_size, lambda size: "it must not be negative" if size < 0 else None)


def percent(least: float, most: float, *, is_least_valid: bool = True) -> ValueType:
    """Return the type of a percentage between two bounds."""

    def find_problem(value: float) -> str | None:
        if (least <= value if is_least_valid else least < value) and value <= most:
            return None
        return f"it must be {'' if is_least_valid else 'above '}{least:g} {'to' if is_least_valid else 'and at most'} {most:g}"

    return ValueType("PERCENT", parse_percent, _format_number, find_problem)


def count(least: int, most: int) -> ValueType:
    """Return the type of a whole number between two bounds."""
    problem = f"it must be {least} to {most}"
    return ValueType("N", parse_count, str, lambda value: None if least <= value <= most else problem)


def ratio(least: float) -> ValueType:
    """Return the type of a number that is at least `least`."""
    problem = f"it must be at least {least:g}"
    return ValueType("N", parse_ratio, _format_number, lambda value: None if value >= least else problem)


def choice(names: Sequence[str], metavar: str) -> ValueType:
    """Return the type of a word from a list."""
    problem = f"it must be one of {', '.join(names)}"
    return ValueType(metavar, str, str, lambda value: None if value in names else problem, tuple(names))
