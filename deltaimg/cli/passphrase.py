# SPDX-License-Identifier: Apache-2.0
"""Ask for a passphrase at the terminal, without showing it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from deltaimg.errors import UsageError

if TYPE_CHECKING:
    from deltaimg.api.keys import Passphrase


def ask_passphrase(location: str, is_again: bool = False) -> Passphrase | None:
    """Return the passphrase of the repository at a location; None where there is no terminal to ask at.

    Args:
        is_again: the one that was given before opens nothing, and the question says so.
    """
    from deltaimg.api.keys import Passphrase

    if not is_at_terminal():
        return None
    return Passphrase(_read(f"{'Wrong. ' if is_again else ''}Passphrase of {location}: "))


def ask_new_passphrase(*, may_be_empty: bool = False) -> Passphrase | None:
    """Return a passphrase that was typed twice; None where there is no terminal to ask at. Raises UsageError.

    Args:
        may_be_empty: an empty one means none, and the question says so.
    """
    from deltaimg.api.keys import Passphrase

    if not is_at_terminal():
        return None
    text = _read("New passphrase (empty: no encryption): " if may_be_empty else "New passphrase: ")
    if not text and may_be_empty:
        return None
    if not text:
        raise UsageError("the passphrase is empty")
    if _read("The same again: ") != text:
        raise UsageError("the two passphrases differ")
    return Passphrase(text)


def is_at_terminal() -> bool:
    """Return whether questions can be asked: they are shown on the standard error, and answered on the standard input."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()


def _read(prompt: str) -> str:
    from getpass import getpass

    try:
        return getpass(prompt, stream=sys.stderr)
    except EOFError as error:
        raise UsageError("no passphrase was given") from error
