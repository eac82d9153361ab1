# SPDX-License-Identifier: Apache-2.0
"""Damaged extents as people see them: the first, and how many more."""

from __future__ import annotations

from types import SimpleNamespace

from deltaimg.cli.damage import SHOWN, list_extents
from deltaimg.model import DamagedExtent


def list_lines(count: int, *, is_verbose: bool = False, fate: str = "") -> list[str]:
    extents = [DamagedExtent(start, start + 4096, "gone") for start in range(0, count * 8192, 8192)]
    return list(list_extents(extents, fate, SimpleNamespace(is_verbose=is_verbose)))  # type: ignore[arg-type]


def test_a_few_are_listed_and_of_many_the_first_and_how_many_more() -> None:
    assert list_lines(2, fate=" are missing") == [
        "bytes 0 to 4096 are missing: gone",
        "bytes 8192 to 12288 are missing: gone",
    ]
    assert len(list_lines(SHOWN)) == SHOWN
    lines = list_lines(SHOWN + 512)
    assert len(lines) == SHOWN + 1
    assert lines[-1] == "512 more extents, 2.0 MiB; -v shows all"
    assert len(list_lines(SHOWN + 512, is_verbose=True)) == SHOWN + 512


def test_a_snapshot_of_unknown_size_is_damaged_as_a_whole() -> None:
    extents = (DamagedExtent(0, 0, "its map is missing"),)
    assert list(list_extents(extents, "", SimpleNamespace(is_verbose=False))) == ["all of it: its map is missing"]  # type: ignore[arg-type]
