# SPDX-License-Identifier: Apache-2.0
"""Signatures and deltas as they come and go: front to back, from and to files or the standard streams."""

from __future__ import annotations

import io
import os

from deltaimg.descriptors import StandardInput, describe_failure
from deltaimg.errors import ImageError, Malformed, Truncated
from deltaimg.format.framing import HEADER_BYTES, Kind, parse_header
from deltaimg.image.open_source import STREAM
from deltaimg.image.target import ImageTarget

_BUFFER_BYTES = 1 << 20
_MAX_OBJECT_BYTES = 1 << 26
"""More than any object of sums or of a delta has, by a factor of two."""

_KINDS = {Kind.SUMS: "signature", Kind.DELTA: "delta"}


class Input:
    """A file that is read from front to back. A context manager."""

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == STREAM else path
        self.position = 0
        try:
            raw = StandardInput() if path == STREAM else open(path, "rb", buffering=0)
            self._file = io.BufferedReader(raw, _BUFFER_BYTES)
        except OSError as error:
            raise ImageError(self.name, f"cannot be read: {os.strerror(error.errno or 0)}") from error
        except ValueError as error:
            raise ImageError(self.name, "is not a possible path") from error

    def __enter__(self) -> Input:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, length: int) -> bytes:
        """Return `length` bytes, fewer only at the end; all that is left, if it is -1."""
        try:
            data = self._file.read(length)
            self.position += len(data)
            return data
        except OSError as error:
            raise ImageError(self.name, f"cannot be read: {describe_failure(error)}") from error

    def read_object(self, kind: Kind) -> bytes:
        """Return the next object of a chain; raises IntegrityError or UnsupportedFormat."""
        start = self.position
        head = self.read(HEADER_BYTES)
        if start == 0:
            _refuse_another_kind(kind, self.name, head)
        if len(head) < HEADER_BYTES:
            raise Truncated(self.name, self.position, HEADER_BYTES, len(head))
        header = parse_header(kind, self.name, head)
        if header.body_bytes > _MAX_OBJECT_BYTES:
            raise Malformed(self.name, start + 16, f"claims a part of {header.body_bytes} bytes")
        body = self.read(header.body_bytes)
        if len(body) < header.body_bytes:
            raise Truncated(self.name, self.position, header.body_bytes, len(body))
        return head + body

    def expect_end(self) -> None:
        """Refuse bytes that nothing claims."""
        if self.read(1):
            raise Malformed(self.name, self.position - 1, "bytes follow its end")


def _refuse_another_kind(kind: Kind, name: str, head: bytes) -> None:
    """Raise Malformed for a file that begins as none of this kind does: it is more likely the wrong one than a damaged one."""
    magic = head[: len(kind.value)]
    if kind.value.startswith(magic):
        return
    found = next((f"a {word} of deltaimg" for each, word in _KINDS.items() if each.value == magic), None)
    problem = f"is {found}, not a {_KINDS[kind]}" if found else f"is no {_KINDS[kind]} of deltaimg"
    raise Malformed(name, 0, problem, hint="is it the right file? One of rdiff or xdelta3 needs --format")


class Output:
    """Writes to a target from front to back, and counts."""

    def __init__(self, target: ImageTarget) -> None:
        self._target = target
        self.written_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`."""
        self._target.write(self.written_bytes, memoryview(data))
        self.written_bytes += len(data)
