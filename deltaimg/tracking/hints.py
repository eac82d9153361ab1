# SPDX-License-Identifier: Apache-2.0
"""Hints of another program: a JSON object that lists which extents may have changed since a snapshot. docs/sources.md has it.

    {"snapshot": "0123456789abcdef", "extents": [{"start": 0, "end": 65536}, {"offset": 1048576, "length": 4096}]}

Extents may overlap, be empty, come in any order and reach past the image's end; fields that are not listed here are skipped, so
that the output of `rbd diff --format json` can be the list. Anything else is refused: a program that writes such a file wrongly
may have left changes out.

Memory  some 120 bytes for each extent while the file is parsed, and 16 afterwards.
"""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
import numpy as np

from deltaimg.descriptors import describe_failure, read_some
from deltaimg.errors import BadHints
from deltaimg.format.manifest import Manifest
from deltaimg.image.extents import Bounds, merge_bounds
from deltaimg.model import MIB
from deltaimg.tracking.interface import ChangeClaim

MAX_HINTS_BYTES = 64 * MIB
STANDARD_INPUT = "-"
_READ_BYTES = MIB

_Offset = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""Two of them added stay within 64 bits."""


class _HintedExtent(msgspec.Struct, frozen=True):
    start: _Offset | None = None
    end: _Offset | None = None
    offset: _Offset | None = None
    length: _Offset | None = None

    def find_bounds(self) -> tuple[int, int] | None:
        """Return [start, end); None where it is given in neither of the two ways, or in both."""
        if self.offset is None and self.length is None and self.start is not None and self.end is not None:
            return (self.start, self.end) if self.start <= self.end else None
        if self.start is None and self.end is None and self.offset is not None and self.length is not None:
            return self.offset, self.offset + self.length
        return None


class _HintsDocument(msgspec.Struct, frozen=True):
    snapshot: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8,16}\Z")]
    extents: list[_HintedExtent]


class HintsFile:
    """The hints in a file, a pipe or the standard input, which is read when they are asked for."""

    method = "hints"

    def __init__(self, path: str) -> None:
        """Args: path: `-` for the standard input."""
        self._path = path

    def find_changes(self, base: Manifest) -> ChangeClaim:
        """Return what the file lists; raises BadHints. Nothing is known where it is about another snapshot than `base`."""
        snapshot, changed = parse_hints(read_hints(self._path), self._path)
        if not base.id.startswith(snapshot):
            reason = f"the hints are of changes since snapshot {snapshot}, and the base is {base.id}"
            return ChangeClaim(None, reason, is_surprising=True)
        return ChangeClaim(changed)

    def keep(self, snapshot: str) -> str | None:  # noqa: ARG002
        """Keep nothing: another program tracks."""
        return None

    def settle(self, snapshot: str) -> None:
        """Do nothing."""


def read_hints(path: str) -> bytes:
    """Return the content of a file of hints; raises BadHints."""
    try:
        descriptor = 0 if path == STANDARD_INPUT else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise BadHints(path, f"cannot be read: {_explain(error)}") from error
    content, buffer = bytearray(), memoryview(bytearray(_READ_BYTES))
    try:
        while got := read_some(descriptor, buffer):
            content += buffer[:got]
            if len(content) > MAX_HINTS_BYTES:
                hint = "list fewer and larger extents: what lies between two that are near may be listed with them"
                raise BadHints(path, f"is larger than {MAX_HINTS_BYTES} bytes", hint=hint)
    except OSError as error:
        raise BadHints(path, f"cannot be read: {describe_failure(error)}") from error
    finally:
        if descriptor:
            os.close(descriptor)
    return bytes(content)


def parse_hints(content: bytes, path: str) -> tuple[str, Bounds]:
    """Return the snapshot that hints are about, by the first digits of its id, and what may have changed; raises BadHints."""
    try:
        document = msgspec.json.decode(content, type=_HintsDocument)
    except msgspec.DecodeError as error:
        raise BadHints(path, f"is no list of hints: {error}") from error
    bounds = np.empty((len(document.extents), 2), np.int64)
    for number, extent in enumerate(document.extents):
        found = extent.find_bounds()
        if found is None:
            raise BadHints(path, f"extent {number} has neither a start and an end after it, nor an offset and a length")
        bounds[number] = found
    return document.snapshot, merge_bounds(bounds)


def _explain(error: OSError | ValueError) -> str:
    return os.strerror(error.errno or 0) if isinstance(error, OSError) else "it is no possible path"
