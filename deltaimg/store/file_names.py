# SPDX-License-Identifier: Apache-2.0
"""Names of files: how names of objects become them, how temporary ones look, and which of them a file system takes for one."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable

_TEMPORARY = re.compile(r"\.put-(?P<writer>[0-9a-z-]*)-[0-9a-f]{12}")


def to_file_name(name: str) -> str:
    """Return what Python calls the file of this name: names are UTF-8, whatever the locale says that file names are."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def to_name(file_name: str) -> str:
    """The reverse of `to_file_name`; a byte that is not of UTF-8 becomes a surrogate, which no name of an object has."""
    return file_name if file_name.isascii() else os.fsencode(file_name).decode("utf-8", "surrogateescape")


def make_temporary_name(writer: str) -> str:
    """Return a new name for a file that is being written.

    Args:
        writer: who writes it, in lower-case letters, digits and dashes: from which follows later whether the writer is alive.
    """
    return f".put-{writer}-{secrets.token_hex(6)}"


def name_claim(file_name: bytes) -> str:
    """Return the name of a file by which a writer claims a name, where no other way makes sure that only one gets it."""
    return f".put-claim-{hashlib.blake2b(file_name, digest_size=6).hexdigest()}"


def find_writer(file_name: str) -> str | None:
    """Return who writes a temporary file, or None for the name of any other file."""
    match = _TEMPORARY.fullmatch(file_name)
    return match["writer"] if match else None


def find_folded(file_name: str, there: Iterable[str]) -> str | None:
    """Return the name under which a file system keeps `file_name` together with, or in place of, what it was called.

    File systems ignore case, change the form of Unicode, or drop dots and spaces at the end. None where the name is `there` as
    it is, or where there is no file that it could have become.
    """
    names = set(there)
    if file_name in names:
        return None
    folded = _fold(file_name)
    return next((each for each in sorted(names) if _fold(each) == folded), None)


def _fold(file_name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", file_name.rstrip(". ")).casefold())
