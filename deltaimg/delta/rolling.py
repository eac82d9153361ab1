# SPDX-License-Identifier: Apache-2.0
"""Old blocks by content, to be found in new content at any offset: the index, and what is to be searched.

Reads   weak and strong sums of the old blocks, as a signature holds them; none of the old content.
Memory  some 12 bytes for each different block beside its sums, and 4 to 8 bytes of filter.
Always  one entry for each content, however often it is repeated.
Source  A. Tridgell, "Efficient Algorithms for Sorting and Synchronization" (1999), ch. 3.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deltaimg.kernels import MIX, BlockIndex, StrongKind, Sums, WeakKind, fill_filter

_MIN_FILTER_BITS, _MAX_FILTER_BITS = 13, 26
"""At most 8 MiB: a larger filter says no more often, but no cache holds it."""
_FILTER_BITS_PER_BLOCK = 32
"""Some windows in a thousand of new content pass it, and are looked up in memory."""
_ENTRIES_PER_BUCKET = 2


def build_index(
    weak_kind: WeakKind,
    strong_kind: StrongKind,
    weaks: Sums,
    strongs: npt.NDArray[np.uint8],
    *,
    block_bytes: int,
    key: bytes | None = None,
    wanted: npt.NDArray[np.uint32] | None = None,
    takes_last: bool = False,
    prefers_next: bool = True,
) -> BlockIndex:
    """Return an index of old blocks by their sums.

    Args:
        strongs: shape (blocks, n), n at most what `strong_kind` has: that many bytes are compared.
        wanted: the numbers of the blocks that may be found; all, if not given.
        takes_last: of equal blocks name the last, not the first.
        prefers_next: of equal blocks rather name the one that continues the match before it, or lies at the same offset.
    """
    blocks = np.arange(len(weaks), dtype=np.uint32) if wanted is None else wanted
    if takes_last:
        blocks = blocks[::-1]
    mixed = weaks[blocks] * np.uint64(MIX)
    order = np.argsort(mixed, kind="stable")
    mixed, blocks = mixed[order], blocks[order]
    strongs = np.ascontiguousarray(strongs)
    blocks = _sort_equal_sums(mixed, blocks, strongs)
    is_new = np.ones(len(blocks), np.bool_)
    if len(blocks) > 1:
        same = np.flatnonzero(mixed[1:] == mixed[:-1])
        is_new[1 + same] = (strongs[blocks[same + 1]] != strongs[blocks[same]]).any(axis=1)
    mixed, blocks = np.ascontiguousarray(mixed[is_new]), np.ascontiguousarray(blocks[is_new])
    directory_bits = min(32, max(1, (len(blocks) // _ENTRIES_PER_BUCKET).bit_length()))
    bounds = np.arange(1 << directory_bits, dtype=np.uint64) << np.uint64(64 - directory_bits)
    directory = np.append(np.searchsorted(mixed, bounds), len(blocks)).astype(np.uint32)
    filter_bits = (len(blocks) * _FILTER_BITS_PER_BLOCK).bit_length()
    filter_bits = min(_MAX_FILTER_BITS, max(_MIN_FILTER_BITS, filter_bits))
    return BlockIndex(
        weak_kind, strong_kind, key, block_bytes, np.ascontiguousarray(weaks), strongs, mixed, blocks,
        directory, directory_bits, fill_filter(weak_kind, weaks[blocks], filter_bits), filter_bits, prefers_next,
    )  # fmt: skip


def _sort_equal_sums(
    mixed: Sums, blocks: npt.NDArray[np.uint32], strongs: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint32]:
    """Return `blocks`, those of equal weak sums by strong sum; equal ones of these in the order in which they came."""
    if len(blocks) < 2:
        return blocks
    same = mixed[1:] == mixed[:-1]
    is_shared = np.concatenate((same, [False])) | np.concatenate(([False], same))
    places = np.flatnonzero(is_shared)
    if not len(places):
        return blocks
    shared = blocks[places]
    text = strongs[shared]
    padded = np.zeros((len(text), -(-text.shape[1] // 8) * 8), np.uint8)
    padded[:, : text.shape[1]] = text
    words = padded.view(">u8").astype(np.uint64)
    order = np.lexsort((*(words[:, i] for i in reversed(range(words.shape[1]))), mixed[places]))
    sorted_blocks = blocks.copy()
    sorted_blocks[places] = shared[order]
    return sorted_blocks


def whole_stretch(length: int) -> Sums:
    """Return the stretches that are all of `length` bytes."""
    return np.array([[0, length]], np.uint64)
