# SPDX-License-Identifier: Apache-2.0
"""The few values that every layer shares."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

DEFAULT_BLOCK_BYTES = 4 * KIB
MIN_BLOCK_BYTES = 4 * KIB
MAX_BLOCK_BYTES = MIB
MAX_IMAGE_BYTES = 2**60
"""An exbibyte: beyond any real device, far below where arithmetic on offsets could overflow 64 bits."""
MAX_NAME_BYTES = 200
"""Room for a suffix below the 255 bytes that file systems allow."""


@dataclass(frozen=True, slots=True)
class DamagedExtent:
    """Bytes [start, end) of a snapshot that cannot be read, and why."""

    start: int
    end: int
    reason: str


def count_blocks(size_bytes: int, block_bytes: int) -> int:
    """Return how many blocks cover `size_bytes`; the last may be part filled."""
    return -(-size_bytes // block_bytes)


@dataclass(frozen=True, slots=True)
class VcdiffSections:
    """The three sections of a VCDIFF window, with no secondary compression."""

    data: bytes
    instructions: bytes
    addresses: bytes
