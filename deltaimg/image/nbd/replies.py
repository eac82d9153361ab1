# SPDX-License-Identifier: Apache-2.0
"""What a server sends back for one request: content and holes of a read, or the extents of a block status.

Invariant  no byte is received that has no place: a chunk outside of its request, one over another, or one of an absurd length
           ends the connection, and so does a request that is called done while bytes of it are missing.
"""

from __future__ import annotations

import errno
import struct
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from deltaimg.image.nbd import protocol as nbd
from deltaimg.image.nbd.connection import Connection, NbdFailure

_ERRORS: Final = {1: errno.EPERM, 5: errno.EIO, 12: errno.ENOMEM, 22: errno.EINVAL, 28: errno.ENOSPC} | {
    75: errno.EOVERFLOW,
    95: errno.EOPNOTSUPP,
    108: errno.ESHUTDOWN,
}
_MAX_ERRORS = 64
"""Chunks that report an error for one request."""
Status = npt.NDArray[np.uint32]
"""Shape (count, 2): length in bytes and flags of each extent, in order."""


class Pending(Protocol):
    """A request that was sent, and whose reply is awaited."""

    is_done: bool
    error: tuple[int, int] | None
    """Error number and offset of the first error that the server reported; None if it did not."""

    def take_chunk(self, kind: int, length: int, connection: Connection) -> None:
        """Receive the payload of a chunk, which is no error; raises NbdFailure."""
        ...

    def take_error(self, number: int, offset: int | None) -> None:
        """Note an error that the server reports; raises NbdFailure if it reports too many."""
        ...

    def end(self) -> None:
        """The reply is complete; raises NbdFailure where something is missing."""
        ...


class _Request:
    """What both kinds have in common."""

    def __init__(self, offset: int, length: int) -> None:
        self.offset, self.length = offset, length
        self.is_done = False
        self.error: tuple[int, int] | None = None
        self._errors = 0

    def take_error(self, number: int, offset: int | None) -> None:
        """Note an error; of several, the one at the lowest offset."""
        self._errors += 1
        if self._errors > _MAX_ERRORS:
            raise NbdFailure("the server reports one error after another for one request")
        is_inside = offset is not None and self.offset <= offset < self.offset + self.length
        place = offset if is_inside and offset is not None else self.offset
        if self.error is None or place < self.error[1]:
            self.error = (_ERRORS.get(number, errno.EIO), place)


class ReadRequest(_Request):
    """A read into a buffer."""

    def __init__(self, offset: int, buffer: memoryview) -> None:
        super().__init__(offset, len(buffer))
        self._buffer = buffer
        self._parts: list[tuple[int, int]] = []
        self._received = 0

    def take_chunk(self, kind: int, length: int, connection: Connection) -> None:
        """Receive content, or clear what is a hole."""
        if kind == nbd.CHUNK_DATA and length > 8:
            connection.receive_into(self._find_place(connection.receive(8), length - 8))
        elif kind == nbd.CHUNK_HOLE and length == 12:
            header = connection.receive(12)
            hole_bytes = int.from_bytes(header[8:], "big")
            self._find_place(header[:8], hole_bytes)[:] = bytes(hole_bytes)
        else:
            raise NbdFailure("the server answers a read with something else")

    def take_all(self, connection: Connection) -> None:
        """Receive the content of a simple reply, which has all of it."""
        self._parts = [(0, self.length)]
        connection.receive_into(self._buffer)

    def end(self) -> None:
        """Check that every byte came, unless an error was reported."""
        self._parts.sort()
        ends = [0, *(end for _, end in self._parts)]
        starts = [*(start for start, _ in self._parts), self.length]
        if any(end > start for end, start in zip(ends, starts, strict=True)):
            raise NbdFailure("the server sends the same bytes twice in one answer")
        if ends != starts and self.error is None:
            raise NbdFailure("the server answers a read with less than was asked for")
        self.is_done = True

    def _find_place(self, offset: bytes, length: int) -> memoryview:
        """Return where a chunk goes; raises NbdFailure if that is not inside of the request."""
        start = int.from_bytes(offset, "big") - self.offset
        self._received += length
        if not 0 < length <= self.length or not 0 <= start <= self.length - length or self._received > self.length:
            raise NbdFailure("the server answers a read with bytes that were not asked for")
        self._parts.append((start, start + length))
        if len(self._parts) > self.length // 512 + 8:
            raise NbdFailure("the server answers a read in absurdly many pieces")
        return self._buffer[start : start + length]


class StatusRequest(_Request):
    """A query for block status."""

    def __init__(self, offset: int, length: int, contexts: dict[int, str]) -> None:
        """Args: contexts: names by number, of all that were agreed on."""
        super().__init__(offset, length)
        self._contexts = contexts
        self.found: dict[str, Status] = {}

    def take_chunk(self, kind: int, length: int, connection: Connection) -> None:
        """Receive the extents of one context."""
        if kind != nbd.CHUNK_STATUS or not 12 <= length <= nbd.MAX_STATUS_BYTES or length % 8 != 4:
            raise NbdFailure("the server answers a query for extents with something else, or with far too much")
        name = self._contexts.get(int.from_bytes(connection.receive(4), "big"))
        if name is None or name in self.found:
            raise NbdFailure("the server reports extents that were not asked for")
        found = np.frombuffer(connection.receive(length - 4), ">u4").reshape(-1, 2).astype(np.uint32)
        if not found[:, 0].all():
            raise NbdFailure("the server reports an extent of no bytes")
        self.found[name] = found

    def end(self) -> None:
        """Check that each context was answered, unless an error was reported."""
        if self.error is None and len(self.found) != len(self._contexts):
            raise NbdFailure("the server leaves a query for extents without an answer")
        self.is_done = True


def read_error(payload: bytes, kind: int) -> tuple[int, int | None]:
    """Return number and offset, where it has one, of an error chunk; raises NbdFailure."""
    if len(payload) < 6:
        raise NbdFailure("the server reports an error of no form that the protocol has")
    number, message_bytes = struct.unpack(">LH", payload[:6])
    offset = payload[6 + message_bytes :]
    return number, int.from_bytes(offset, "big") if kind == nbd.ERROR_WITH_OFFSET and len(offset) == 8 else None
