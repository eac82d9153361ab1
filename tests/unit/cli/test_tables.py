# SPDX-License-Identifier: Apache-2.0
"""Tables in files, in wide and in narrow terminals: nothing is cut off, no line is broken by the terminal."""

from __future__ import annotations

import pytest

from deltaimg.cli.tables import lay_out_pairs, lay_out_table

COLUMNS = ("snapshot", "taken", ">changed", "notes")
ROWS = [
    ["vm1@3f9c01aa", "2026-11-23 02:30", "1.5 GiB", "full, pinned (before the upgrade), nightly, offsite, weekly"],
    ["日本@00aa11bb", "2026-11-24 02:30", "12.0 MiB", ""],
]


def test_a_table_is_as_wide_as_it_needs_where_there_is_no_terminal() -> None:
    lines = list(lay_out_table(COLUMNS, ROWS, None))
    assert lines[0] == "snapshot       taken              changed  notes"
    assert lines[1].endswith("  1.5 GiB  full, pinned (before the upgrade), nightly, offsite, weekly")
    assert lines[2] == "日本@00aa11bb  2026-11-24 02:30  12.0 MiB"


@pytest.mark.parametrize("width", [200, 100, 80, 60, 40, 20])
def test_no_line_is_wider_than_the_terminal_and_every_word_is_there(width: int) -> None:
    lines = list(lay_out_table(COLUMNS, ROWS, width))
    assert all(word in " ".join(lines) for row in ROWS for cell in row for word in cell.split())
    narrowest = len("snapshot") + 2 + len(ROWS[0][0])
    assert max(map(len, lines)) <= max(width, narrowest)
    if width >= 60:
        assert lines[0].startswith("snapshot")


def test_a_table_that_is_far_too_wide_is_set_a_field_a_line() -> None:
    assert list(lay_out_table(COLUMNS, ROWS, 30)) == [
        "snapshot  vm1@3f9c01aa",
        "taken     2026-11-23 02:30",
        "changed   1.5 GiB",
        "notes     full, pinned (before",
        "          the upgrade),",
        "          nightly, offsite,",
        "          weekly",
        "",
        "snapshot  日本@00aa11bb",
        "taken     2026-11-24 02:30",
        "changed   12.0 MiB",
    ]


def test_a_last_column_without_room_beside_the_others_is_set_below_its_row() -> None:
    assert list(lay_out_table(COLUMNS, ROWS, 44)) == [
        "snapshot       taken              changed",
        "    notes",
        "vm1@3f9c01aa   2026-11-23 02:30   1.5 GiB",
        "    full, pinned (before the upgrade),",
        "    nightly, offsite, weekly",
        "日本@00aa11bb  2026-11-24 02:30  12.0 MiB",
    ]


def test_a_wide_column_in_the_middle_is_wrapped_where_it_is() -> None:
    columns = ("", "what", "found", "for more")
    rows = [
        ["+", "memory", "11.8 GiB for what one structure may take", ""],
        ["-", "extra", "not installed", "pip install"],
    ]
    assert list(lay_out_table(columns, rows, 36)) == [
        "   what    found",
        "    for more",
        "+  memory  11.8 GiB for what one",
        "           structure may take",
        "-  extra   not installed",
        "    pip install",
    ]


def test_a_word_is_not_wrapped_beyond_the_terminal() -> None:
    rows = [["vm1@3f9c01aa", "2026-11-23 02:30", "1.5 GiB", "/var/lib/libvirt/images/vm1.qcow2"]]
    assert max(map(len, lay_out_table(COLUMNS, rows, 60))) <= 60


def test_a_long_value_is_wrapped_beside_its_name() -> None:
    pairs = [("taken", "2026-11-23 02:30"), ("point in time", "frozen by reflink for 5 ms; one after another")]
    assert list(lay_out_pairs(pairs, 40)) == [
        "taken          2026-11-23 02:30",
        "point in time  frozen by reflink for 5",
        "               ms; one after another",
    ]
    assert list(lay_out_pairs(pairs, None))[1] == "point in time  frozen by reflink for 5 ms; one after another"


def test_cells_are_escaped() -> None:
    assert list(lay_out_table(("a", "b"), [["\x1b[2J", "x"]], None)) == ["a        b", "\\x1b[2J  x"]
