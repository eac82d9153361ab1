# SPDX-License-Identifier: Apache-2.0
"""An option is defined once: the command line and Python take the same values, and refuse the same."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from dataclasses import dataclass

import pytest

import deltaimg.options
from deltaimg.delta.registry import _MAKERS
from deltaimg.errors import UsageError
from deltaimg.options.backup import DELTA_MODES
from deltaimg.options.definition import build, flag, list_options, name_option, option, validate
from deltaimg.options.values import SIZE, TEXT, choice, count, format_size, parse_size, percent, ratio


@dataclass(frozen=True, slots=True)
class Sample:
    """Options of every kind."""

    memory_bytes: int = option(256 << 20, SIZE, "Memory.", "--memory")
    delta_depth: int = option(8, count(1, 64), "Depth.")
    share: float = option(2.0, percent(0, 100, is_least_valid=False), "Share.")
    bound: float = option(2.0, ratio(1), "Bound.")
    how: str = option("auto", choice(("auto", "none"), "HOW"), "How.")
    tags: tuple[str, ...] = option((), TEXT, "Tags.", "--tag", "-t", is_repeatable=True)
    is_live: bool = flag("Live.", "--allow-live")
    other: int = 5


def test_text_becomes_values_and_what_is_not_given_is_the_default() -> None:
    given = {"memory_bytes": "8M", "delta_depth": "3", "share": "5%", "tags": ["a", "b"], "is_live": True, "how": None}
    assert build(Sample, given) == Sample(8 << 20, 3, 5.0, tags=("a", "b"), is_live=True)
    assert build(Sample, {}) == Sample()


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("memory_bytes", "many", "'many' is not a valid size"),
        ("delta_depth", "65", "--delta-depth 65: it must be 1 to 64"),
        ("delta_depth", "x", "'x' is not a valid whole number"),
        ("share", "0", "--share 0: it must be above 0 and at most 100"),
        ("bound", "0.5", "--bound 0.5: it must be at least 1"),
        ("how", "some", "--how some: it must be one of auto, none"),
    ],
)
def test_what_is_not_valid_is_refused_by_name(field: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(Sample, {field: text})


@pytest.mark.parametrize("changed", [{"delta_depth": 0}, {"share": 101.0}, {"how": "some"}, {"memory_bytes": -1}])
def test_python_gets_the_same_refusals(changed: dict[str, object]) -> None:
    validate(Sample())
    with pytest.raises(UsageError, match=f"{next(iter(changed))} .*it must"):
        validate(dataclasses.replace(Sample(), **changed))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 1, 1000, 1024, 3 << 19, 256 << 20, 5 << 30])
def test_a_size_is_shown_as_it_is_read(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_all_options_that_exist_have_help_valid_defaults_and_names_of_their_own() -> None:
    found = 0
    for module in pkgutil.iter_modules(deltaimg.options.__path__):
        for each in vars(importlib.import_module(f"deltaimg.options.{module.name}")).values():
            if isinstance(each, type) and dataclasses.is_dataclass(each) and list(list_options(each)):
                validate(each())
                names = [name_option(field, info) for field, info in list_options(each)]
                assert len(set(names)) == len(names)
                assert all(info.help.endswith(".") for _, info in list_options(each))
                found += 1
    assert found


def test_every_mode_of_deltas_has_codecs() -> None:
    assert set(DELTA_MODES) == set(_MAKERS)
