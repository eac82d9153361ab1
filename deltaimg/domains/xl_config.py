# SPDX-License-Identifier: Apache-2.0
"""The configuration file of a Xen domain, as `xl` reads it: settings of strings, numbers and lists.

It looks like Python, and is none: nothing is evaluated.

    file    := { [ name ("=" | "+=") value ] (newline | ";") }
    value   := string | number | "[" [ value { "," value } [","] ] "]"
    string  := '...' | "..."    with \\-escapes
    comment := "#" to the end of the line

A newline inside a list is a space. The last setting of a name counts.

Source  xl.cfg(5), xl-disk-configuration(5) of Xen 4.17.
Memory  a few times the file, which is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from deltaimg.domains.interface import DomainDisk
from deltaimg.domains.xl_disk import parse_disk
from deltaimg.errors import GuestUnusable

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\\\n|\#[^\n]*)
    |(?P<end>\n|;)
    |(?P<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
    |(?P<mark>\+=|[=\[\],])
    |(?P<number>0[xX][0-9a-fA-F]+|[0-9]+)(?![A-Za-z0-9_])
    |(?P<name>[A-Za-z_][A-Za-z0-9_-]*)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|.)")
_CONTROL = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_MAX_DEPTH = 16


class _Token(Struct, frozen=True):
    kind: str
    text: str
    line: int


def parse_xl_config(text: str, subject: str) -> tuple[str, tuple[DomainDisk, ...]]:
    """Return the name and the disks of a domain; raises GuestUnusable. `subject` is what messages call it."""
    settings = read_settings(text, subject)
    name, specifications = settings.get("name"), settings.get("disk", [])
    if not isinstance(name, str) or not name:
        raise GuestUnusable(subject, "its configuration has no name")
    if isinstance(specifications, str):
        specifications = [specifications]
    if not isinstance(specifications, list) or not all(isinstance(each, str) for each in specifications):
        raise GuestUnusable(subject, "its setting 'disk' is no list of strings")
    return name, tuple(parse_disk(each, subject) for each in specifications)


def read_settings(text: str, subject: str) -> dict[str, Any]:
    """Return all settings: strings, numbers and lists of these; raises GuestUnusable with the line."""
    tokens = [*_split(text, subject), _Token("end", "", text.count("\n") + 1)]
    settings: dict[str, Any] = {}
    place = 0
    while place < len(tokens):
        if tokens[place].kind == "end":
            place += 1
            continue
        name, mark = tokens[place], tokens[place + 1]
        if name.kind != "name" or mark.text not in ("=", "+="):
            raise _refuse(subject, name)
        value, place = _read_value(tokens, place + 2, subject, 0)
        if tokens[place].kind != "end":
            raise _refuse(subject, tokens[place])
        before = settings.get(name.text)
        is_added = mark.text == "+=" and type(before) is type(value) and not isinstance(value, int)
        settings[name.text] = before + value if is_added else value
    return settings


def _split(text: str, subject: str) -> Iterator[_Token]:
    """Yield tokens; of the ends of lines only those outside of lists."""
    place, line, depth = 0, 1, 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise _refuse(subject, _Token("", text[place : place + 20].partition("\n")[0], line))
        kind, found = match.lastgroup or "", match[0]
        depth += {"[": 1, "]": -1}.get(found, 0) if kind == "mark" else 0
        if kind != "space" and not (kind == "end" and depth > 0):
            yield _Token(kind, found, line)
        line += found.count("\n")
        place = match.end()


def _read_value(tokens: list[_Token], place: int, subject: str, depth: int) -> tuple[Any, int]:
    """Return the value that begins at a token, and the place after it."""
    token = tokens[place]
    if token.kind == "string":
        return _unquote(token.text), place + 1
    if token.kind == "number":
        return int(token.text, 16 if token.text[:2] in ("0x", "0X") else 10), place + 1
    if token.text != "[" or depth >= _MAX_DEPTH:
        raise _refuse(subject, token)
    values: list[Any] = []
    place += 1
    while tokens[place].text != "]":
        value, place = _read_value(tokens, place, subject, depth + 1)
        values.append(value)
        if tokens[place].text == ",":
            place += 1
        elif tokens[place].text != "]":
            raise _refuse(subject, tokens[place])
    return values, place + 1


def _unquote(text: str) -> str:
    return _ESCAPE.sub(_expand_escape, text[1:-1])


def _expand_escape(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] == "x" and len(code) > 1:
        return chr(int(code[1:], 16))
    if code[0] in "01234567":
        return chr(int(code, 8) & 0xFF)
    return _CONTROL.get(code, code)


def _refuse(subject: str, token: _Token) -> GuestUnusable:
    found = f"'{token.text.strip()[:20]}'" if token.text.strip() else "the end of the line"
    return GuestUnusable(
        subject, f"line {token.line} of its configuration cannot be read: {found} is not expected there"
    )
