# SPDX-License-Identifier: Apache-2.0
"""The formats of signatures and deltas by name."""

from __future__ import annotations

from deltaimg.engine.files.interface import FileFormat
from deltaimg.engine.files.own import OwnFormat
from deltaimg.engine.files.rdiff import RdiffFormat
from deltaimg.errors import UsageError

FORMATS: dict[str, FileFormat] = {each.name: each for each in (OwnFormat(), RdiffFormat())}


def find_format(name: str) -> FileFormat:
    """Return the format of this name; raises UsageError."""
    try:
        return FORMATS[name]
    except KeyError:
        raise UsageError(f"there is no format '{name}'", hint=f"there are {', '.join(FORMATS)}") from None
