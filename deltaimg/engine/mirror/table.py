# SPDX-License-Identifier: Apache-2.0
"""The digests of all blocks of an image or a copy, and what is derived from them.

Memory  16 bytes a block that is not zero: 0.4 % of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, Digests, mark_data, sparse_zeros
from deltaimg.delta.signature import RootHasher
from deltaimg.engine.pipeline import OrderedPool, ThreadBuffer, count_workers
from deltaimg.engine.scan import SPAN_BYTES, split_spans
from deltaimg.errors import SourceChanged
from deltaimg.format.mirror import BLOCK_BYTES
from deltaimg.image.extents import NOT_EMPTY
from deltaimg.image.source import ImageSource
from deltaimg.kernels import digest_blocks
from deltaimg.model import count_blocks

GROUP_BLOCKS: Final = 64
"""Compared together, before their blocks are."""
SHORT_BYTES: Final = 5
"""Of a digest that is compared with one other: 2^-40 is the chance that a changed block seems equal. The root digest tells."""
_CHUNK_BLOCKS = 1 << 18

Blocks = npt.NDArray[np.int64]
Shorts = npt.NDArray[np.uint8]
"""Shape (count, SHORT_BYTES)."""


def empty_digests(count: int) -> Digests:
    """Return the digests of `count` zero blocks, which take no memory until they are set."""
    return sparse_zeros(count * DIGEST_BYTES, np.uint8).reshape(-1, DIGEST_BYTES)


def digest_image(
    source: ImageSource,
    key: bytes,
    advance: Callable[[int], None],
    *,
    size_bytes: int,
    visit: Callable[[int, memoryview], None] = lambda *_: None,
) -> Digests:
    """Return the digests of an image's first `size_bytes`, the last block padded with zeros; on all cores.

    Args:
        advance: called with bytes that are done.
        visit: called with whole blocks that are read and the number of the first; by any thread, in any order. Their memory
            is used again afterwards.

    Raises:
        ImageError: it cannot be read, or became shorter.
    """
    digests = empty_digests(count_blocks(size_bytes, BLOCK_BYTES))
    bounds = source.extents().clip(size_bytes).align(BLOCK_BYTES).find(*NOT_EMPTY)

    memory = ThreadBuffer()

    def digest_span(span: tuple[int, int]) -> tuple[int, Digests, int]:
        start, end = span
        buffer = memory.get(SPAN_BYTES)[: count_blocks(end - start, BLOCK_BYTES) * BLOCK_BYTES]
        got = source.read_into(start, buffer[: end - start])
        if got < end - start:
            raise SourceChanged(source.path, f"ends at byte {start + got}, earlier than when it was opened")
        buffer[got:] = bytes(len(buffer) - got)
        visit(start // BLOCK_BYTES, buffer)
        return start // BLOCK_BYTES, digest_blocks(key, buffer, BLOCK_BYTES), end - start

    with OrderedPool(window=count_workers() + 1) as pool:
        for first, found, done_bytes in pool.map(digest_span, split_spans(bounds, SPAN_BYTES)):
            digests[first : first + len(found)] = found
            advance(done_bytes)
    return digests


def resize(digests: Digests, count: int) -> Digests:
    """Return the first `count` digests, those of zero blocks where there are fewer."""
    if len(digests) >= count:
        return digests[:count]
    longer = empty_digests(count)
    longer[: len(digests)] = digests
    return longer


def find_differing(digests: Digests, others: Digests) -> Blocks:
    """Return the blocks of an image, ascending, for which another has other digests; what it lacks counts as zero there."""
    others = resize(others, len(digests))
    return _find(digests, lambda first, end: digests[first:end] ^ others[first:end])


def find_data(digests: Digests) -> Blocks:
    """Return the blocks that are not zero, ascending."""
    return _find(digests, lambda first, end: digests[first:end])


def _find(digests: Digests, look: Callable[[int, int], Digests]) -> Blocks:
    """Return the blocks for which a row of what `look` returns has anything but zero; some blocks at a time."""
    parts = [
        first + np.flatnonzero(mark_data(look(first, first + _CHUNK_BLOCKS)))
        for first in range(0, len(digests), _CHUNK_BLOCKS)
    ]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def find_root(digests: Digests, key: bytes, size_bytes: int) -> bytes:
    """Return the root digest of an image that has these digests."""
    hasher = RootHasher(key)
    for first in range(0, len(digests), _CHUNK_BLOCKS):
        hasher.add(first, digests[first : first + _CHUNK_BLOCKS])
    return hasher.finish(size_bytes=size_bytes, block_bytes=BLOCK_BYTES)


def count_groups(block_count: int) -> int:
    """Return how many groups cover so many blocks."""
    return -(-block_count // GROUP_BLOCKS)


def digest_groups(digests: Digests, key: bytes) -> Shorts:
    """Return a short digest for each group of blocks; zero where all of them are zero."""
    group_bytes = GROUP_BLOCKS * DIGEST_BYTES
    groups = np.zeros((count_groups(len(digests)), SHORT_BYTES), np.uint8)
    whole = len(digests) // GROUP_BLOCKS
    step = _CHUNK_BLOCKS // GROUP_BLOCKS
    for first in range(0, whole, step):
        end = min(first + step, whole)
        content = np.ascontiguousarray(digests[first * GROUP_BLOCKS : end * GROUP_BLOCKS])
        groups[first:end] = digest_blocks(key, content.data.cast("B"), group_bytes)[:, :SHORT_BYTES]
    if whole < len(groups):
        last = resize(digests[whole * GROUP_BLOCKS :], GROUP_BLOCKS).tobytes()
        groups[whole] = digest_blocks(key, last, group_bytes)[0, :SHORT_BYTES]
    return groups


def list_blocks(groups: Blocks, block_count: int) -> Blocks:
    """Return the blocks of some groups, of an image of `block_count` blocks."""
    blocks: Blocks = (groups[:, None] * GROUP_BLOCKS + np.arange(GROUP_BLOCKS)).ravel()
    return blocks[blocks < block_count]
