# SPDX-License-Identifier: Apache-2.0
"""What a shell is offered when TAB is pressed: names of images, snapshots, actions, formats.

The parser's library has the scripts for bash, zsh and fish, and calls what is here. A repository is only listed, never locked;
what cannot be read offers nothing. Only names that every shell takes as they are get offered.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, MutableMapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from deltaimg.cli.options import move_common_options

if TYPE_CHECKING:
    from deltaimg.api.results import SnapshotRef

_SAFE = re.compile(r"[\w.+,@%/~-]+")
_BASH_BREAKS = frozenset("@=:")
"""What bash makes words of their own of, though there is no space beside them."""
_OFFERED_SNAPSHOTS = 200
_VARIABLE = "_DELTAIMG_COMPLETE"


class Candidate(Struct, frozen=True):
    """One offer, with the attributes that the parser's library reads."""

    value: str
    help: str | None = None
    type: str = "plain"


Completer = Callable[[Any, str], Iterable[Candidate]]


class _Stripped:
    """The part of the word that bash already has, and that is not to be repeated."""

    prefix = ""


def prepare_completion(variables: MutableMapping[str, str]) -> None:
    """Bring the words that a shell has passed into the order in which commands take them."""
    shell = variables.get(_VARIABLE, "")
    if shell == "complete_bash":
        all_words, cursor = _split(variables.get("COMP_WORDS", "")), int(variables.get("COMP_CWORD") or 0)
        words = _join_words(all_words, cursor)
        moved = _move(words)
        # The repository may be named behind the cursor.
        behind = _find_repo(all_words[cursor + 1 :])
        moved[2:2] = behind if len(moved) > 2 else []
        variables["COMP_WORDS"], variables["COMP_CWORD"] = shlex.join(moved), str(len(moved) - 1)
    elif shell and (line := variables.get("_TYPER_COMPLETE_ARGS")):
        words = _split(line)
        is_new_word = line.endswith(" ")
        joined = shlex.join(_move([*words, ""] if is_new_word else words))
        variables["_TYPER_COMPLETE_ARGS"] = joined.removesuffix("''") if is_new_word else joined


def find_completer(command: str, option: str) -> Completer | None:
    """Return what completes a value of an option or argument of a command; None leaves it to the shell: a file."""
    return _COMPLETERS.get((command, option)) or _COMPLETERS.get(("", option)) or _complete_choice(command, option)


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def _move(words: list[str]) -> list[str]:
    """Move options from before the command behind it; the word that is being written stays the last."""
    if len(words) < 2:
        return words
    moved = move_common_options(words[1:-1])
    return [words[0], *(moved or words[1:-1]), words[-1]]


def _find_repo(words: list[str]) -> list[str]:
    """Return the option of some words that names the repository."""
    for option, value in pairwise(words):
        if option in ("-r", "--repo"):
            return [option, value]
    return []


def _join_words(words: list[str], number: int) -> list[str]:
    """Join what bash has split at `@`, `=` and `:`; return the words up to the one that is being written."""
    joined: list[str] = []
    is_glued = False
    for index, word in enumerate(words[: number + 1] + [""] * (number + 1 - len(words))):
        is_break = bool(word) and set(word) <= _BASH_BREAKS
        if joined and (is_break or is_glued):
            if index == number and not is_break:
                _Stripped.prefix = joined[-1]
            joined[-1] += word
            if index == number and is_break:
                _Stripped.prefix = joined[-1]
        else:
            joined.append(word)
        is_glued = is_break
    return joined


def _offer(values: Iterable[tuple[str, str | None]], incomplete: str) -> list[Candidate]:
    """Return those values that begin with what is written, as far as shells take them as they are."""
    return [
        Candidate(value.removeprefix(_Stripped.prefix), help)
        for value, help in values  # noqa: A001
        if value.startswith(incomplete) and _SAFE.fullmatch(value)
    ]


def _list_snapshots(context: Any) -> list[SnapshotRef]:
    """Return the snapshots of the repository that the command line names so far."""
    from deltaimg.api.repositories import list_snapshot_names

    location = context.params.get("repo") or os.environ.get("DELTAIMG_REPO")
    try:
        return list_snapshot_names(location) if location else []
    except Exception:  # noqa: BLE001  whatever it is, the command itself will report it
        return []


def _complete_images(context: Any, incomplete: str) -> list[Candidate]:
    names = sorted({ref.image for ref in _list_snapshots(context)})
    return _offer(((name, None) for name in names), incomplete)


def _complete_snapshots(context: Any, incomplete: str) -> list[Candidate]:
    from deltaimg.describe.text import format_moment

    refs = _list_snapshots(context)
    image, at, _ = incomplete.partition("@")
    if not at:
        return _offer(((name, None) for name in sorted({ref.image for ref in refs})), incomplete)
    own = [ref for ref in refs if ref.image == image][-_OFFERED_SNAPSHOTS:]
    newest = [(f"{image}@latest{f'~{back}' * bool(back)}", ref) for back, ref in enumerate(reversed(own))]
    named = [(ref.label, ref) for ref in reversed(own)]
    return _offer(((text, format_moment(ref.taken_at)) for text, ref in (*newest, *named)), incomplete)


def _complete_commands(_: Any, incomplete: str) -> list[Candidate]:
    from deltaimg.cli.app import COMMANDS

    return _offer(((name, None) for name in COMMANDS), incomplete)


def _complete_from(values: Iterable[str]) -> Completer:
    """Return what completes one of some words."""
    return lambda _, incomplete: _offer(((value, None) for value in values), incomplete)


def _complete_choice(command: str, option: str) -> Completer | None:
    """Return what completes an option whose values are listed where it is defined; None for any other."""
    from deltaimg.cli.app import COMMANDS, find_function
    from deltaimg.cli.option_parameters import list_choices

    values = list_choices(find_function(command)).get(option) if command in COMMANDS else None
    return _complete_from(values) if values else None


_COMPLETERS: dict[tuple[str, str], Completer] = {
    ("", "snapshot"): _complete_snapshots,
    ("diff", "older"): _complete_snapshots,
    ("diff", "newer"): _complete_snapshots,
    ("forget", "names"): _complete_snapshots,
    ("backup", "name"): _complete_images,
    ("restore", "images"): _complete_images,
    ("snapshots", "name"): _complete_images,
    ("unlock", "name"): _complete_images,
    ("help", "command"): _complete_commands,
    ("cache", "action"): _complete_from(("show", "clean")),
    ("parity", "action"): _complete_from(("add", "repair", "show")),
    ("key", "action"): _complete_from(("add", "change", "export", "import", "list", "remove")),
    ("tag", "action"): _complete_from(("add", "remove")),
    ("init", "encryption"): _complete_from(("passphrase", "keyfile", "none")),
    ("backup", "level"): _complete_from(("fast", "default", "best")),
    ("cache", "image"): _complete_images,
}
