# SPDX-License-Identifier: Apache-2.0
"""Options that every command takes, and how text becomes values."""

from __future__ import annotations

import re
from typing import Annotated, Optional

import typer

from deltaimg.errors import UsageError

Repo = Annotated[
    Optional[str],  # noqa: UP045  typer reads this at run time
    typer.Option("--repo", "-r", envvar="DELTAIMG_REPO", help="Folder of the repository.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary; errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more about what is done.")]

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([KMGTPE]?)(?:i?B)?$", re.IGNORECASE)


def require_repo(repo: str | None) -> str:
    """Return the repository's place; raises UsageError when nobody named one."""
    if not repo:
        raise UsageError("no repository named", hint="give -r FOLDER, or set DELTAIMG_REPO")
    return repo


def parse_size(text: str) -> int:
    """Return the bytes that `4096`, `64K`, `1.5GiB` or the like mean, by powers of 1024; raises UsageError."""
    match = _SIZE.match(text.strip())
    if match is None:
        raise UsageError(f"'{text}' is no size", hint="write 65536, 64K, 1.5G or the like")
    return int(float(match[1]) * 1024 ** " KMGTPE".index(match[2].upper() or " "))
