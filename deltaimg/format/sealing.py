# SPDX-License-Identifier: Apache-2.0
"""Where the parts of a sealed object and of a sealed record are, and what their seals authenticate besides.

    body of a sealed object    := seed ciphertext tag
    payload of a sealed record := seed number ciphertext tag

whose ciphertext is of padded content where `format/padding.py` pads; and where a write-only host sealed them

    body of a sealed object    := host seed ciphertext tag
    payload of a sealed record := host ephemeral number ciphertext tag

What is sealed with which key: `crypto/sealer.py`. Nothing here computes with a key.
"""

from __future__ import annotations

import struct
from typing import Final

from deltaimg.format.framing import (
    BY_HOST,
    HEADER,
    HEADER_BYTES,
    PADDED,
    SALT_BYTES,
    SEALED,
    Kind,
    build_header,
    digest_bytes,
    set_features,
)
from deltaimg.format.limits import HOST_RECORD_SEAL_BYTES, RECORD_SEAL_BYTES
from deltaimg.format.padding import padded_bytes

SEED_BYTES: Final = 32
HOST_BYTES: Final = 8
TAG_BYTES: Final = 16
NONCE_BYTES: Final = 12

OBJECT_PREFIX: Final = struct.Struct("<32s")
RECORD_PREFIX: Final = struct.Struct("<32sI")
HOST_OBJECT_PREFIX: Final = struct.Struct("<8s32s")
HOST_RECORD_PREFIX: Final = struct.Struct("<8s32sI")

OBJECT_NONCE: Final = bytes(NONCE_BYTES)
"""Of an object, whose key seals nothing else."""

_BOUND_HEAD: Final = slice(0, 24)
_BOUND_SALT: Final = slice(HEADER_BYTES - 8 - SALT_BYTES, HEADER_BYTES - 8)

assert RECORD_PREFIX.size + TAG_BYTES == RECORD_SEAL_BYTES
assert HOST_RECORD_PREFIX.size + TAG_BYTES == HOST_RECORD_SEAL_BYTES


def sealed_body_bytes(body_bytes: int, host: bytes, *, is_padded: bool) -> int:
    """Return the length of a body once it is sealed. Args: host: the write-only host that seals it; empty where none does."""
    seal_bytes = (HOST_OBJECT_PREFIX if host else OBJECT_PREFIX).size + TAG_BYTES
    return seal_bytes + (padded_bytes(body_bytes) if is_padded else body_bytes)


def record_nonce(number: int) -> bytes:
    """Return the nonce of the record of this number among those that were sealed with one seed."""
    return number.to_bytes(NONCE_BYTES, "little")


def start_sealed(data: bytes, host: bytes = b"", *, is_padded: bool = False) -> bytes:
    """Return the header, without digests, of what the unsealed object `data` becomes: its seal authenticates this header."""
    features = SEALED | (BY_HOST if host else 0) | (PADDED if is_padded else 0)
    body_bytes = sealed_body_bytes(len(data) - HEADER_BYTES, host, is_padded=is_padded)
    return set_features(data[:HEADER_BYTES], features, body_bytes)


def find_host(data: bytes | memoryview) -> bytes:
    """Return the id of the write-only host that sealed an object, as the object has it; empty where none did."""
    if len(data) < HEADER_BYTES + HOST_BYTES or not HEADER.unpack_from(data)[2] & BY_HOST:
        return b""
    return bytes(data[HEADER_BYTES : HEADER_BYTES + HOST_BYTES])


def bound_fields(header: bytes | memoryview) -> bytes:
    """Return what the seal of an object authenticates of its header: all of it but the two digests."""
    return bytes(header[_BOUND_HEAD]) + bytes(header[_BOUND_SALT])


def start_opened(kind: Kind, body: memoryview) -> bytes:
    """Return the header of the unsealed object that an opened one was made of, but for its salt."""
    return build_header(kind, len(body), digest_bytes(body))
