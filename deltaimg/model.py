# SPDX-License-Identifier: Apache-2.0
"""The few values that every layer shares."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import msgspec
from msgspec import Struct

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

DEFAULT_BLOCK_BYTES = 4 * KIB
MIN_BLOCK_BYTES = 4 * KIB
MAX_BLOCK_BYTES = MIB
MAX_IMAGE_BYTES = 2**60
"""An exbibyte: beyond any real device, far below where arithmetic on offsets could overflow 64 bits."""
SUSPICIOUS_SHRINKAGE = 100
"""How many times smaller an image has become that is no longer taken for the same: its path is probably wrong."""
MAX_DELTA_DEPTH = 64
"""Delta records that may depend on one another."""
MAX_NAME_BYTES = 200
"""Room for a suffix below the 255 bytes that file systems allow."""
CLOCK_SKEW = timedelta(hours=1)
"""What the clocks of two hosts may differ by."""


Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_IMAGE_BYTES)]
"""A number of bytes, or an offset."""


class Extent(msgspec.Struct, frozen=True, order=True, array_like=True, forbid_unknown_fields=True):
    """Bytes [start, end) of an image. A manifest has it as a list of two numbers."""

    start: Size
    end: Size

    @property
    def length(self) -> int:
        """How many bytes it has."""
        return self.end - self.start


class DamagedExtent(Extent, frozen=True, order=True):
    """Bytes [start, end) of a snapshot that cannot be read, and why."""

    reason: str


def count_blocks(size_bytes: int, block_bytes: int) -> int:
    """Return how many blocks cover `size_bytes`; the last may be part filled."""
    return -(-size_bytes // block_bytes)


class VcdiffSections(Struct, frozen=True):
    """The three sections of a VCDIFF window, with no secondary compression."""

    data: bytes
    instructions: bytes
    addresses: bytes
