# SPDX-License-Identifier: Apache-2.0
"""Text from anywhere is safe on a terminal, and lines up."""

from __future__ import annotations

import unicodedata

import pytest

from deltaimg.describe.text import find_line_width, format_line, is_visible, measure_width, pad


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("vm1", "vm1"),
        ("Büro 日本", "Büro 日本"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\u2066isolate\u2069", "\\u2066isolate\\u2069"),
        ("pay\u200bpal", "pay\\u200bpal"),
        ("\ufeffbom", "\\ufeffbom"),
        ("soft\u00adhyphen", "soft\\xadhyphen"),
        ("\u3164\u115f", "\\u3164\\u115f"),
        ("heart\ufe0f", "heart\\ufe0f"),
        ("line\u2028end\u2029", "line\\u2028end\\u2029"),
        ("no\u00a0break", "no\\xa0break"),
        ("\udcff", "\\udcff"),
        ("\U000e0041tag", "\\U000e0041tag"),
    ],
)
def test_what_a_terminal_would_obey_hide_or_reorder_is_escaped(text: str, shown: str) -> None:
    assert format_line(text) == shown


def test_no_control_format_or_separator_of_unicode_is_taken_for_visible() -> None:
    for number in range(0x110000):
        if unicodedata.category(chr(number)) in ("Cc", "Cf", "Zl", "Zp") and number != 0x20:
            assert not is_visible(chr(number)), hex(number)


def test_wide_and_combining_characters_are_measured_as_terminals_show_them() -> None:
    assert measure_width("日本") == 4
    assert measure_width("Bu\u0308ro") == 4
    assert pad("日本", 6) == "日本  "
    assert pad("日本", 6, is_right=True) == "  日本"


@pytest.mark.parametrize(
    ("columns", "width"), [("60", 60), ("0", None), ("-1", None), ("", None), ("x", None), ("99999999999", 999999)]
)
def test_the_width_of_a_line_is_that_of_columns_if_it_makes_sense(
    monkeypatch: pytest.MonkeyPatch, columns: str, width: int | None
) -> None:
    monkeypatch.setattr("os.get_terminal_size", lambda _: (_ for _ in ()).throw(OSError()))
    monkeypatch.setenv("COLUMNS", columns)
    assert find_line_width() == width
