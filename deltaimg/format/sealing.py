# SPDX-License-Identifier: Apache-2.0
"""Where the parts of a sealed object and of a sealed record are, and what their seals authenticate besides.

    body of a sealed object    := seed ciphertext tag
    payload of a sealed record := seed number ciphertext tag

What is sealed with which key: `crypto/sealer.py`. Nothing here computes with a key.
"""

from __future__ import annotations

import struct
from typing import Final

from deltaimg.format.framing import HEADER_BYTES, SALT_BYTES, SEALED, Kind, build_header, digest_bytes, set_features

SEED_BYTES: Final = 32
TAG_BYTES: Final = 16
NONCE_BYTES: Final = 12

OBJECT_PREFIX: Final = struct.Struct("<32s")
RECORD_PREFIX: Final = struct.Struct("<32sI")

OBJECT_SEAL_BYTES: Final = OBJECT_PREFIX.size + TAG_BYTES
"""By how much a sealed object is larger."""

OBJECT_NONCE: Final = bytes(NONCE_BYTES)
"""Of an object, whose key seals nothing else."""

_BOUND_HEAD: Final = slice(0, 24)
_BOUND_SALT: Final = slice(HEADER_BYTES - 8 - SALT_BYTES, HEADER_BYTES - 8)


def record_nonce(number: int) -> bytes:
    """Return the nonce of the record of this number among those that were sealed with one seed."""
    return number.to_bytes(NONCE_BYTES, "little")


def start_sealed(data: bytes) -> bytes:
    """Return the header, without digests, of what the unsealed object `data` becomes: its seal authenticates this header."""
    return set_features(data[:HEADER_BYTES], SEALED, len(data) - HEADER_BYTES + OBJECT_SEAL_BYTES)


def bound_fields(header: bytes | memoryview) -> bytes:
    """Return what the seal of an object authenticates of its header: all of it but the two digests."""
    return bytes(header[_BOUND_HEAD]) + bytes(header[_BOUND_SALT])


def frame_opened(kind: Kind, body: bytes) -> bytes:
    """Return the body of an opened object as the unsealed object that it was made of, but for its salt."""
    return build_header(kind, len(body), digest_bytes(body)) + body
