# SPDX-License-Identifier: Apache-2.0
"""Options that every command takes, and how text becomes values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Optional

import typer

from deltaimg.descriptors import is_standard_stream
from deltaimg.errors import UsageError

Repo = Annotated[
    Optional[str],  # noqa: UP045  typer reads this at run time
    typer.Option("--repo", "-r", metavar="FOLDER", envvar="DELTAIMG_REPO", help="The repository.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs, not text for people.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary; warnings and errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more about what is done.")]
Snapshot = Annotated[
    str, typer.Argument(metavar="SNAPSHOT", help="vm1, vm1@latest~2, vm1@2026-11-23, or the beginning of an id.")
]
FileFormat = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help=(
            "'deltaimg' is compressed, sparse and verified; 'rdiff' and 'vcdiff' are for the rdiff and xdelta3 programs at the "
            "other end."
        ),
    ),
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
CacheDir = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--cache-dir",
        metavar="FOLDER",
        envvar="DELTAIMG_CACHE_DIR",
        help="Where this host keeps what makes its next backups faster and smaller.",
        show_default="~/.cache/deltaimg",
    ),
]

_COMMON_FLAG = re.compile(r"--json|--quiet|--verbose|-[qv]+")
_COMMON_VALUE = re.compile(r"(?:--repo|--threads)(=.*)?|-[qv]*r(.+)?")
_SIZE = re.compile(r"(\d{1,20})(\.\d{1,20})?\s*([KMGTPE]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,20})?)\s*%?", re.ASCII)
_COUNT = re.compile(r"\d{1,9}", re.ASCII)
_RATIO = re.compile(r"\d{1,9}(?:\.\d{1,20})?", re.ASCII)


def move_common_options(arguments: Sequence[str]) -> list[str]:
    """Return the command line with options that stand before the command, such as `-r repo`, behind its name."""
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
    """Return the repository's place; raises UsageError when nobody named one."""
    if not repo:
        raise UsageError("no repository named", hint="give -r FOLDER, or set DELTAIMG_REPO")
    return repo


def check_output(path: str, *, as_json: bool) -> bool:
    """Return whether what is written goes to the standard output; raises UsageError where JSON would, too, and for no name."""
    if not path:
        raise UsageError("the file to write has no name")
    is_standard_output = is_standard_stream(path, 1)
    if is_standard_output and as_json:
        raise UsageError(f"--json and '{path}' both want the standard output", hint="write to a file")
    return is_standard_output


def parse_size(text: str) -> int:
    """Return the bytes that `4096`, `64K`, `1.5GiB` or the like mean, by powers of 1024; raises UsageError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"'{text}' is not a valid size", hint="write 65536, 64K, 1.5G or the like")
    unit: int = 1024 ** " KMGTPE".index(match[3].upper() or " ")
    return int(match[1]) * unit + int(float(match[2] or 0) * unit)


def parse_percent(text: str) -> float:
    """Return the share that `5`, `0.5` or `5%` means; raises UsageError. Which shares make sense is for others to say."""
    match = _PERCENT.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"'{text}' is not a valid percentage", hint="write 5, 0.5 or the like")
    return float(match[1])


def parse_count(text: str) -> int:
    """Return the whole number that `8` means; raises UsageError. Which numbers make sense is for others to say."""
    if not _COUNT.fullmatch(text.strip()):
        raise UsageError(f"'{text[:60]}' is not a valid whole number", hint="write 4, 8 or the like")
    return int(text)


def parse_ratio(text: str) -> float:
    """Return the number that `2` or `1.5` means; raises UsageError. Which numbers make sense is for others to say."""
    if not _RATIO.fullmatch(text.strip()):
        raise UsageError(f"'{text[:60]}' is not a valid number", hint="write 2, 1.5 or the like")
    return float(text)


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
