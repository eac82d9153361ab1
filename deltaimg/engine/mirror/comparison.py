# SPDX-License-Identifier: Apache-2.0
"""Which blocks of an image the copy does not have in their places, found with few bytes: groups first, then their blocks.

Where this host kept the digests of what the copy holds, nothing is asked for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import Digests
from deltaimg.engine.mirror.protocol import PIECE_BYTES, Channel, Kind
from deltaimg.engine.mirror.table import (
    GROUP_BLOCKS,
    SHORT_BYTES,
    Blocks,
    Shorts,
    count_groups,
    digest_groups,
    find_differing,
    list_blocks,
)
from deltaimg.errors import MirrorProtocolError
from deltaimg.format.mirror import BLOCK_BYTES
from deltaimg.model import count_blocks

_GROUPS_AT_ONCE = 4096


class Changes(Struct, frozen=True):
    """Blocks that differ, ascending: those that are zero now, and the others."""

    zeroed: Blocks
    changed: Blocks

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.zeroed) + len(self.changed)


def compare_with_known(digests: Digests, known: Digests) -> Changes:
    """Return what differs from the digests of what the copy holds."""
    return _sort_out(digests, find_differing(digests, known))


def compare_with_copy(channel: Channel, digests: Digests, key: bytes, copy_bytes: int) -> Changes:
    """Ask the far side, and return what differs.

    Args:
        digests: of the image. copy_bytes: the size of what the copy holds.
    """
    copy_blocks = count_blocks(copy_bytes, BLOCK_BYTES)
    group_count = count_groups(len(digests))
    own = digest_groups(digests, key)
    theirs = np.zeros((group_count, SHORT_BYTES), np.uint8)
    # What the copy has behind the image's end is of no interest, and may be much.
    asked = min(group_count, count_groups(copy_blocks))
    if asked:
        channel.send(Kind.GROUPS, asked.to_bytes(8, "little"))
        theirs[:asked] = _receive_shorts(channel, Kind.GROUPS, asked)
    if group_count and copy_blocks > len(digests):
        # The last group of the copy has blocks that the image does not have.
        own[-1] ^= 0xFF
    differing = np.flatnonzero((own != theirs).any(axis=1))
    parts = [
        _compare_blocks(channel, digests, differing[first : first + _GROUPS_AT_ONCE], copy_blocks)
        for first in range(0, len(differing), _GROUPS_AT_ONCE)
    ]
    return _sort_out(digests, np.concatenate([np.zeros(0, np.int64), *parts]))


def _compare_blocks(channel: Channel, digests: Digests, groups: Blocks, copy_blocks: int) -> Blocks:
    """Return the blocks of some groups that differ."""
    blocks = list_blocks(groups, max(len(digests), copy_blocks))
    theirs = np.zeros((len(blocks), SHORT_BYTES), np.uint8)
    there = groups[groups * GROUP_BLOCKS < copy_blocks]
    if len(there):
        channel.send(Kind.DETAILS, there.astype("<u4").tobytes())
        found = _receive_shorts(channel, Kind.DETAILS, len(list_blocks(there, copy_blocks)))
        theirs[: len(found)] = found
    is_own = blocks < len(digests)
    blocks, theirs = blocks[is_own], theirs[is_own]
    differing: Blocks = blocks[(digests[blocks, :SHORT_BYTES] != theirs).any(axis=1)]
    return differing


def _receive_shorts(channel: Channel, kind: Kind, count: int) -> Shorts:
    """Return so many short digests, which come in pieces."""
    data = memoryview(bytearray(count * SHORT_BYTES))
    for start in range(0, len(data), PIECE_BYTES):
        piece = channel.receive(kind)[1]
        if len(piece) != min(PIECE_BYTES, len(data) - start):
            raise MirrorProtocolError("it sends more or fewer digests than there are")
        data[start : start + len(piece)] = piece
    shorts: npt.NDArray[np.uint8] = np.frombuffer(data, np.uint8).reshape(count, SHORT_BYTES)
    return shorts


def _sort_out(digests: Digests, differing: Blocks) -> Changes:
    is_data = digests[differing].any(axis=1)
    return Changes(differing[~is_data], differing[is_data])
