# SPDX-License-Identifier: Apache-2.0
"""A part of an image, read at any offset."""

from __future__ import annotations

import struct
from typing import Any, Protocol

from msgspec import Struct

NOT_RECOGNISED = (struct.error, IndexError, ValueError, OverflowError)
"""What reading a structure that is cut short or makes no sense raises. Whoever asks what is there catches it."""


class ByteSource(Protocol):
    """An image of known size that is read at any offset."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer only at the image's end; may raise ImageError or StoreError."""
        ...


class Window(Struct, frozen=True):
    """Bytes [start, end) of an image; offsets count from `start`."""

    source: ByteSource
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return self.end - self.start

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes; raises ValueError where there are fewer."""
        if offset < 0 or length < 0 or offset + length > self.size_bytes:
            raise ValueError(f"bytes {offset} to {offset + length} of {self.size_bytes}")
        found = self.source.read_at(self.start + offset, length)
        if len(found) < length:
            raise ValueError(f"{len(found)} bytes in place of {length}")
        return found

    def unpack(self, layout: str, offset: int) -> tuple[Any, ...]:
        """Return the numbers that a struct layout has at `offset`; raises ValueError."""
        return struct.unpack(layout, self.read(offset, struct.calcsize(layout)))


def decode_text(raw: bytes, encoding: str = "utf-8") -> str:
    """Return a name as the guest wrote it, up to its first NUL, with what is not text or not printable replaced."""
    text = raw.decode(encoding, "replace").partition("\0")[0].rstrip()
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def format_uuid(raw: bytes) -> str:
    """Return 16 bytes as a UUID is written."""
    digits = raw.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
