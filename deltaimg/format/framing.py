# SPDX-License-Identifier: Apache-2.0
"""The 64-byte header that every object begins with, and the checks that every reader makes first.

Always  a reader checks kind, version and features before anything else, and refuses what it does not support.
Always  header and body have a digest each; both are plain BLAKE3, so that `check` needs no key.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, Final

from blake3 import blake3
from msgspec import Struct

from deltaimg.errors import DigestMismatch, Malformed, Truncated, UnsupportedFormat
from deltaimg.format.limits import MAX_OBJECT_BYTES

HEADER: Final = struct.Struct("<8sHHHHQ16s16s8s")
HEADER_BYTES: Final = HEADER.size
VERSION: Final = 1
SALT_BYTES: Final = 16
_SALT_OFFSET: Final = 40

SEALED: Final = 0x0001
"""The incompatible feature of an object whose body is sealed."""
BY_HOST: Final = 0x0002
"""Besides `SEALED`: with the key of a write-only host."""
PADDED: Final = 0x0004
"""Besides `SEALED`: what is sealed was padded before."""


class Kind(Enum):
    """A file kind; the value is its magic. The first byte is no text in any encoding, as in PNG."""

    CONFIG = b"\x8bDIMGCFG"
    PACK = b"\x8bDIMGPAK"
    INDEX = b"\x8bDIMGIDX"
    MAP = b"\x8bDIMGMAP"
    SIGNATURE = b"\x8bDIMGSIG"
    MANIFEST = b"\x8bDIMGSNP"
    ANNOTATION = b"\x8bDIMGANN"
    LOCK = b"\x8bDIMGLCK"
    DELETION = b"\x8bDIMGDEL"
    DELETION_LOCKS = b"\x8bDIMGDLK"
    PARITY = b"\x8bDIMGPAR"
    VERIFIED = b"\x8bDIMGVFD"
    KEY_SLOT = b"\x8bDIMGKEY"
    ROSTER = b"\x8bDIMGROS"
    SUMS = b"\x8bDIMGSUM"
    DELTA = b"\x8bDIMGDLT"
    MIRROR = b"\x8bDIMGMIR"
    MIRROR_JOURNAL = b"\x8bDIMGMJN"
    MIRROR_UNDO = b"\x8bDIMGMUN"


class Header(Struct, frozen=True):
    """What the first 64 bytes of an object say."""

    kind: Kind
    body_bytes: int
    body_digest: bytes
    is_sealed: bool = False
    is_padded: bool = False


def digest_bytes(*parts: bytes | memoryview, length: int = 16) -> bytes:
    """Return the first `length` bytes of the plain BLAKE3 digest of `parts`, one after another."""
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.digest(length)


def name_object(parts: Iterable[bytes | memoryview]) -> str:
    """Return the name of a write-once object: the BLAKE3 digest of its bytes, as 64 hexadecimal digits."""
    return digest_bytes(*parts, length=32).hex()


def build_header(kind: Kind, body_bytes: int, body_digest: bytes) -> bytes:
    """Return the 64-byte header of an object, without salt."""
    packed = HEADER.pack(kind.value, VERSION, 0, 0, 0, body_bytes, body_digest, bytes(SALT_BYTES), bytes(8))
    return packed[:56] + digest_bytes(packed[:56], length=8)


def set_features(header: bytes, incompatible: int, body_bytes: int) -> bytes:
    """Return a header with other features and another length, and without its digests, which `finish_header` enters."""
    magic, version, _, compatible, reserved, _, _, salt, _ = HEADER.unpack(header)
    return HEADER.pack(magic, version, incompatible, compatible, reserved, body_bytes, bytes(16), salt, bytes(8))


def finish_header(header: bytes, body_digest: bytes) -> bytes:
    """Return a header with its two digests."""
    head = header[:24] + body_digest + header[_SALT_OFFSET:56]
    return head + digest_bytes(head, length=8)


def salt_object(parts: Sequence[bytes | memoryview], salt: bytes) -> list[bytes | memoryview]:
    """Return an object with `salt` in its header, so that it gets a name that no object of the same content has.

    Args:
        parts: the first begins with the header; a part that is the same bytes object, as parity repeats it, gets the salt too.
    """
    first = parts[0]
    head = bytes(first[:_SALT_OFFSET]) + salt
    salted = head + digest_bytes(head, length=8) + bytes(first[HEADER_BYTES:])
    return [salted if part is first else part for part in parts]


def frame(kind: Kind, body: bytes) -> bytes:
    """Return `body` as a whole object."""
    return build_header(kind, len(body), digest_bytes(body)) + body


def parse_header(kind: Kind, name: str, data: bytes | memoryview, *, may_be_sealed: bool = False) -> Header:
    """Read and check the header of object `name`.

    Args:
        may_be_sealed: the caller opens sealed bodies, or does not look at the body.

    Raises:
        Truncated: `data` is shorter than a header.
        Malformed: another kind, a damaged header, reserved bytes in use, an absurd length.
        UnsupportedFormat: a newer version, an unknown incompatible feature, or a seal.
    """
    if len(data) < HEADER_BYTES:
        raise Truncated(name, len(data), HEADER_BYTES, len(data))
    head = bytes(data[:HEADER_BYTES])
    magic, version, incompatible, _compatible, reserved, body_bytes, body_digest, _salt, header_digest = HEADER.unpack(
        head
    )
    if magic != kind.value:
        raise Malformed(name, 0, f"is no {kind.name.lower()} of deltaimg")
    if digest_bytes(head[:56], length=8) != header_digest:
        raise Malformed(name, 56, "the header is damaged")
    if version != VERSION:
        raise UnsupportedFormat(name, f"has format version {version}; this deltaimg reads version {VERSION}")
    if incompatible & ~(SEALED | BY_HOST | PADDED) or (incompatible and not incompatible & SEALED):
        raise UnsupportedFormat(name, f"needs features {incompatible:#06x} that this deltaimg does not have")
    if incompatible and not may_be_sealed:
        raise UnsupportedFormat(name, "is sealed, and nothing that is sealed belongs here")
    if reserved:
        raise Malformed(name, 14, "reserved bytes of the header are not zero")
    if body_bytes > MAX_OBJECT_BYTES:
        raise Malformed(name, 16, f"claims a body of {body_bytes} bytes")
    return Header(kind, body_bytes, body_digest, bool(incompatible), bool(incompatible & PADDED))


def unframe(kind: Kind, name: str, data: bytes, *, is_sealed: bool = False) -> memoryview:
    """Return the body of object `name` after every check of its frame.

    Args:
        is_sealed: return the sealed body of a sealed object; one that is not sealed is returned as well.

    Raises:
        as `parse_header`, and Truncated or Malformed for a wrong length, DigestMismatch for a damaged body.
    """
    header = parse_header(kind, name, data, may_be_sealed=is_sealed)
    body = memoryview(data)[HEADER_BYTES:]
    if len(body) < header.body_bytes:
        raise Truncated(name, len(data), HEADER_BYTES + header.body_bytes, len(data))
    if len(body) > header.body_bytes:
        raise Malformed(name, HEADER_BYTES + header.body_bytes, f"{len(body) - header.body_bytes} bytes follow its end")
    found = digest_bytes(body)
    if found != header.body_digest:
        raise DigestMismatch(name, HEADER_BYTES, "its body", header.body_digest, found)
    return body


class BodyReader:
    """Takes fields off a body from front to back and refuses to read past its end.

    Offsets in its errors count from the start of the object, header included.
    """

    __slots__ = ("_body", "_name", "position")

    def __init__(self, name: str, body: memoryview) -> None:
        self._name, self._body, self.position = name, body, 0

    def take(self, length: int) -> memoryview:
        """Return the next `length` bytes."""
        end = self.position + length
        if end > len(self._body):
            raise Truncated(
                self._name, HEADER_BYTES + self.position, HEADER_BYTES + end, HEADER_BYTES + len(self._body)
            )
        taken = self._body[self.position : end]
        self.position = end
        return taken

    def take_rest(self) -> memoryview:
        """Return all that is left."""
        return self.take(len(self._body) - self.position)

    def take_struct(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Return the next fields, as `layout` says."""
        return layout.unpack(self.take(layout.size))

    def expect_end(self) -> None:
        """Refuse bytes that nothing claims."""
        if self.position != len(self._body):
            self.refuse(f"{len(self._body) - self.position} bytes that nothing claims")

    def refuse(self, problem: str) -> None:
        """Raise Malformed at the present position."""
        raise Malformed(self._name, HEADER_BYTES + self.position, problem)
