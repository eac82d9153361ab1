# SPDX-License-Identifier: Apache-2.0
"""Options that every command takes, and how text becomes values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Optional

import typer

from deltaimg.descriptors import is_standard_stream
from deltaimg.errors import UsageError

Repo = Annotated[
    Optional[str],  # noqa: UP045  typer reads this at run time
    typer.Option(
        "--repo",
        "-r",
        metavar="FOLDER",
        envvar="DELTAIMG_REPO",
        help="The repository: a folder, or an address such as sftp://host/folder or s3://bucket/prefix.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs, not text for people.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary; warnings and errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print more details.")]
Snapshot = Annotated[
    str, typer.Argument(metavar="SNAPSHOT", help="vm1, vm1@latest~2, vm1@2026-11-23, or the beginning of an id.")
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")]

Threads = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--threads",
        metavar="N",
        envvar="DELTAIMG_THREADS",
        help="Work on at most N threads.",
        show_default="one for each core",
    ),
]
CACHE_VARIABLE = "DELTAIMG_CACHE_DIR"
CacheDir = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--cache-dir",
        metavar="FOLDER",
        envvar=CACHE_VARIABLE,
        help="Where this host keeps what makes its next backups faster and smaller.",
        show_default="~/.cache/deltaimg",
    ),
]

_COMMON_FLAG = re.compile(r"--json|--quiet|--verbose|-[qv]+")
_COMMON_VALUE = re.compile(r"(?:--repo|--threads)(=.*)?|-[qv]*r(.+)?")


def move_common_options(arguments: Sequence[str]) -> list[str]:
    """Return the command line with options before the command, such as `-r repo`, moved after its name."""
    place = 0
    while place < len(arguments) and (taken := _count_common(arguments[place])):
        place += taken
    leading, rest = list(arguments[:place]), list(arguments[place:])
    if not rest or rest[0].startswith("-"):
        return rest
    return [rest[0], *leading, *rest[1:]]


def _count_common(word: str) -> int:
    """Return how many words an option that all commands have takes that begins with `word`; 0 if it is something else."""
    if _COMMON_FLAG.fullmatch(word):
        return 1
    option = _COMMON_VALUE.fullmatch(word)
    if option is None:
        return 0
    has_value = option[1] is not None or option[2] is not None
    return 1 if has_value else 2


def require_repo(repo: str | None) -> str:
    """Return the repository's location; raises UsageError if none is given."""
    if not repo:
        raise UsageError("no repository named", hint="give -r FOLDER, or set DELTAIMG_REPO")
    return repo


def check_output(path: str, *, as_json: bool) -> bool:
    """Return whether what is written goes to the standard output; raises UsageError where JSON would, too, and for no name."""
    if not path:
        raise UsageError("the file to write has no name")
    is_standard_output = is_standard_stream(path, 1)
    if is_standard_output and as_json:
        raise UsageError(f"--json and '{path}' both need the standard output", hint="write to a file")
    return is_standard_output
