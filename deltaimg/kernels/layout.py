# SPDX-License-Identifier: Apache-2.0
"""Types that both implementations of the kernels return, besides the layouts of `deltaimg.arrays`."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from msgspec import Struct

if TYPE_CHECKING:
    from typing_extensions import Buffer as Buffer  # noqa: PLC0414  the doubled name exports it
else:
    Buffer = object  # its name in `collections.abc` is as young as Python 3.12; only type checkers need it

KEY_BYTES = 32
MAX_DIGEST_BYTES = 32
CHUNK_BYTES = 1024
MAX_BLOCK_BYTES = 1 << 20


class BlockStatus(IntEnum):
    """What a scan found out about a block."""

    SAME = 0
    """Not zero, and its digest equals the base's."""
    ZERO_BLOCK = 1
    """Every byte is zero, whatever the base says."""
    CHANGED = 2
    """Neither."""


class FailedRange(Struct, frozen=True):
    """The first range that could not be read or written whole, those before it could; 0 says that the file ends."""

    number: int
    error_number: int


STATUS_RUN = np.dtype([("first", "<u4"), ("count", "<u4"), ("status", "<u4")])
"""Consecutive blocks of one scan with one status; `first` counts from the scan's first block."""

StatusRuns = npt.NDArray[np.void]
Octets = npt.NDArray[np.uint8]
Sums = npt.NDArray[np.uint64]


class WeakKind(IntEnum):
    """Weak sums: cheap hints of what a window of bytes may be. They roll."""

    RABIN_KARP = 0
    """librsync 2.2 and later: 32 bits of a polynomial."""
    ROLLSUM = 1
    """librsync before: two sums of 16 bits, 31 added to each byte."""
    PYRSYNC = 2
    """pyrsync2: `(b << 16) | a` of two sums without bound; here modulo 2^64."""
    WIDE = 3
    """deltaimg: 40 bits, those of librsync and below them the upper 8 of a second polynomial."""


class StrongKind(IntEnum):
    """Strong sums: what a block is."""

    BLAKE3 = 0
    """As `digest_blocks` has it: keyed, 16 bytes, zero for a block of zeros."""
    BLAKE2B = 1
    """32 bytes, no key, as librsync has it."""
    MD5 = 2
    """As pyrsync2 has it."""


STRONG_BYTES = {StrongKind.BLAKE3: 16, StrongKind.BLAKE2B: 32, StrongKind.MD5: 16}

BLOCK_MATCH = np.dtype([("position", "<u8"), ("block", "<u4"), ("count", "<u4")])
"""`count` blocks of new content from `position` on equal old blocks `block`, `block` + 1, …"""

BlockMatches = npt.NDArray[np.void]

MIX = 0x9E3779B97F4A7C15
"""Weak sums are sorted by their product with this, modulo 2^64, which spreads them evenly."""


class BlockIndex(Struct, frozen=True):
    """Old blocks, to be looked up by content. `delta.rolling.build_index` makes one; see `dimg_block_index` for its rules."""

    weak_kind: WeakKind
    strong_kind: StrongKind
    key: bytes | None
    block_bytes: int
    weaks: Sums
    strongs: Octets
    """Shape (blocks, bytes of a strong sum): as many as are compared."""
    mixed: Sums
    blocks: npt.NDArray[np.uint32]
    directory: npt.NDArray[np.uint32]
    directory_bits: int
    filter: npt.NDArray[np.uint32]
    filter_bits: int
    prefers_next: bool


AnchorNames = npt.NDArray[np.uint64]
AnchorTable = npt.NDArray[np.uint64]
"""One-dimensional, a multiple of `BUCKET_PLACES` long."""

BUCKET_PLACES = 8
ANCHOR_DISTANCE = 16
ANCHOR_WINDOW = 32


VCDIFF_PAGE_BYTES = 4096
"""The unit in which a survey reports what a window copies from."""

MAX_DELTA_BYTES = 1 << 25
"""Of the sources and the content of a delta together."""

DELTA_PARTS = 5
"""Head and operations, places, single, short and long added bytes."""


def view_octets(data: Buffer) -> memoryview:
    """Return the bytes of a C-contiguous buffer of any type and shape, without a copy.

    `memoryview.cast` refuses every view with a zero in its shape, such as the digests of no blocks.
    """
    view = memoryview(data)
    return view.cast("B") if view.nbytes else memoryview(bytearray())
