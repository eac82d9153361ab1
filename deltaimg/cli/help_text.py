# SPDX-License-Identifier: Apache-2.0
"""How help looks: plain text of at most 80 columns, in the order of a manual page, examples last.

Text comes from docstrings and from the help of options. In a docstring, paragraphs are filled again, indented lines stay as
they are, and what follows a paragraph `Examples:` is printed at the end.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

MAX_WIDTH = 80
_COMMON = ("repo", "as_json", "quiet", "verbose", "threads", "help")
"""Options that every command has, which need not push its own ones out of view."""
_MAX_TERM = 26


class OptionHelp(Struct, frozen=True):
    """An argument or option as help and documentation show it."""

    name: str
    term: str
    text: str
    is_argument: bool
    is_common: bool


def format_command(command: Any, context: Any) -> str:
    """Return the help of one command."""
    options = describe_params(command, context)
    body, examples = split_examples(command.help or "")
    sections = [
        f"{_bold('Usage:')} {usage(command, context)}",
        _fill(body),
        _section("Arguments", [each for each in options if each.is_argument]),
        _section("Options", [each for each in options if not each.is_argument and not each.is_common]),
        _section("Common options", [each for each in options if each.is_common]),
        _examples(examples),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def format_group(group: Any, context: Any, commands: Mapping[str, Mapping[str, str]]) -> str:
    """Return the help of the whole program: its commands by what they are for, with their summaries."""
    options = describe_params(group, context)
    body, examples = split_examples(group.help or "")
    sections = [
        f"{_bold('Usage:')} {context.command_path} COMMAND [OPTIONS] ...",
        _fill(body),
        *(f"{_bold(f'{title}:')}\n{_columns(summaries.items())}" for title, summaries in commands.items()),
        _section("Options", options),
        _examples(examples),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def summarise(text: str) -> str:
    """Return the first paragraph of a docstring on one line."""
    return " ".join(text.strip().partition("\n\n")[0].split())


def usage(command: Any, context: Any) -> str:
    """Return the synopsis: required options and all arguments by name."""
    words = [context.command_path, "[OPTIONS]"]
    for param in command.params:
        if param.param_type_name == "argument":
            word = _metavar(param) + ("..." if param.nargs == -1 else "")
            words.append(word if param.required else f"[{word}]")
        elif param.required:
            words.insert(2, f"{max(param.opts, key=len)} {_metavar(param)}")
    return " ".join(words)


def describe_params(command: Any, context: Any) -> list[OptionHelp]:
    """Return all arguments and options of a command, in order, `--help` last."""
    return [_describe(param) for param in command.get_params(context) if not getattr(param, "hidden", False)]


def split_examples(text: str) -> tuple[str, list[str]]:
    """Return a docstring's text, and the lines of its examples."""
    for heading in ("Examples:", "Example:"):
        body, found, rest = text.partition(f"\n{heading}\n")
        if found:
            return body, [line.strip() for line in rest.splitlines() if line.strip()]
    return text, []


def _describe(param: Any) -> OptionHelp:
    is_argument = param.param_type_name == "argument"
    if is_argument:
        term = _metavar(param)
    else:
        short = [each for each in param.opts if not each.startswith("--")]
        long = [each for each in (*param.opts, *param.secondary_opts) if each.startswith("--")]
        term = f"{short[0]}, " if short else "    "
        term += ", ".join(long) + ("" if _is_flag(param) else f" {_metavar(param)}")
    notes = []
    if param.required and not is_argument:
        notes.append("required")
    if getattr(param, "envvar", None):
        notes.append(f"or set {param.envvar}")
    default = param.show_default if isinstance(param.show_default, str) else None
    if default is None and param.show_default and isinstance(param.default, str):
        default = param.default
    if default is not None:
        notes.append(f"default: {default}")
    text = (param.help or "") + (f" [{'; '.join(notes)}]" if notes else "")
    return OptionHelp(param.name, term, text, is_argument, param.name in _COMMON)


def _metavar(param: Any) -> str:
    return str(param.metavar or param.name.upper())


def _is_flag(param: Any) -> bool:
    return bool(getattr(param, "is_flag", False))


def _section(heading: str, options: Sequence[OptionHelp]) -> str:
    if not options:
        return ""
    return f"{_bold(heading + ':')}\n" + _columns((each.term, each.text) for each in options)


def _examples(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    return f"{_bold('Example' + 's' * (len(lines) > 1) + ':')}\n" + "\n".join(f"  {line}" for line in lines)


def _columns(rows: Iterable[tuple[str, str]]) -> str:
    """Set terms on the left and their texts, filled, on the right; below, where a term is too long."""
    rows = list(rows)
    left = min(max(len(term) for term, _ in rows), _MAX_TERM)
    lines = []
    for term, text in rows:
        filled = textwrap.wrap(text, _width() - left - 4, break_long_words=False, break_on_hyphens=False) or [""]
        if len(term) > left:
            lines.append(f"  {term}")
        else:
            lines.append(f"  {term:<{left}}  {filled.pop(0)}".rstrip())
        lines += [f"  {'':<{left}}  {line}" for line in filled]
    return "\n".join(lines)


def _fill(text: str) -> str:
    paragraphs = []
    for paragraph in text.strip().split("\n\n"):
        is_verbatim = paragraph.startswith(" ")
        paragraphs.append(
            paragraph if is_verbatim else textwrap.fill(" ".join(paragraph.split()), _width(), break_on_hyphens=False)
        )
    return "\n\n".join(paragraphs)


def _width() -> int:
    return max(40, min(MAX_WIDTH, shutil.get_terminal_size().columns))


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() else text
