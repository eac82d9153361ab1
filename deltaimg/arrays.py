# SPDX-License-Identifier: Apache-2.0
"""The numpy layouts that the native core, the format and the maps of images share.

A *slot* is a number that stands for stored content within one run of the program: 0 a hole, 1 zero, 2 and up stored
blocks. It never reaches disk as such; a map object has a numbering of its own, over the records that it lists.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

Array = TypeVar("Array", bound=npt.NDArray[Any])

DIGEST_BYTES = 16
HOLE, ZERO, FIRST_SLOT = 0, 1, 2

RUN = np.dtype([("first_block", "<u8"), ("count", "<u4"), ("slot", "<u4")])
"""Consecutive blocks; data runs hold slot, slot + 1, …; hole and zero runs hold their slot throughout."""

MAX_RUN_BLOCKS = 2**32 - 1
_MAP_NORESERVE = 0x4000
"""Linux's; Python has no name for it."""

RANGE = np.dtype([("offset", "<i8"), ("length", "<i8"), ("start", "<u8")])
"""`length` bytes at `offset` of a file, and at `start` of memory."""

Runs = npt.NDArray[np.void]
"""One-dimensional, of `RUN`; sorted by first_block, no overlap, no empty run."""
Ranges = npt.NDArray[np.void]
"""One-dimensional, of `RANGE`."""
Digests = npt.NDArray[np.uint8]
"""Shape (count, 16)."""
Slots = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]
"""Of each of some items, whether it is so."""


def sparse_zeros(count: int, kind: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return `count` zeros that take memory, page by page, only where they are written to; raises MemoryError."""
    if not count:
        return np.zeros(0, kind)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    try:
        room = mmap.mmap(-1, count * np.dtype(kind).itemsize, flags=flags)
    except OSError as error:
        raise MemoryError(str(error)) from error
    with suppress(OSError):
        # A page of 2 MiB for each byte that is written would make them not sparse at all. Some kernels have no such pages.
        room.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(room, kind)


def mark_data(digests: Digests) -> npt.NDArray[np.bool_]:
    """Return for each digest whether it is of data: that of a zero block is zero. Of many zeros it takes little time.

    Args:
        digests: shape (count, DIGEST_BYTES), each in one piece.
    """
    halves = digests.view(np.uint64)
    if not halves.any():
        return np.zeros(len(digests), np.bool_)
    is_data: npt.NDArray[np.bool_] = (halves[:, 0] | halves[:, 1]) != 0
    return is_data


def empty_runs() -> Runs:
    """Return a list of no runs."""
    return np.empty(0, RUN)


def join_runs(parts: Sequence[Runs]) -> Runs:
    """Return lists of runs one after another; numpy's own concatenation compares field names for each list."""
    if not parts:
        return empty_runs()
    return np.concatenate([part.view("V16") for part in parts]).view(RUN)


def uniform_runs(first_block: int, block_count: int, slot: int) -> Runs:
    """Return runs that give `block_count` blocks the same hole or zero slot."""
    starts = range(first_block, first_block + block_count, MAX_RUN_BLOCKS)
    end = first_block + block_count
    return np.array([(start, min(MAX_RUN_BLOCKS, end - start), slot) for start in starts], RUN)


def end_blocks(runs: Runs) -> npt.NDArray[np.uint64]:
    """Return for each run the block after its last."""
    ends: npt.NDArray[np.uint64] = runs["first_block"] + runs["count"]
    return ends


def runs_from_blocks(blocks: npt.NDArray[np.uint64], slots: Slots) -> Runs:
    """Merge ascending single blocks and the slot of each into runs."""
    if not len(blocks):
        return empty_runs()
    follows = blocks[1:] == blocks[:-1] + np.uint64(1)
    data = slots[:-1] >= FIRST_SLOT
    continues = follows & np.where(data, slots[1:] == slots[:-1] + np.uint32(1), slots[1:] == slots[:-1])
    starts = np.flatnonzero(np.concatenate(([True], ~continues)))
    runs = np.empty(len(starts), RUN)
    runs["first_block"] = blocks[starts]
    runs["slot"] = slots[starts]
    runs["count"] = np.diff(np.append(starts, len(blocks)))
    return runs


def clip_runs(runs: Runs, start_block: int, end_block: int) -> Runs:
    """Return the parts of `runs` that lie in blocks [start_block, end_block)."""
    ends = end_blocks(runs)
    clipped = runs[(ends > start_block) & (runs["first_block"] < end_block)].copy()
    if not len(clipped):
        return clipped
    cut = max(0, start_block - int(clipped["first_block"][0]))
    if cut:
        clipped["first_block"][0] += cut
        clipped["count"][0] -= cut
        if clipped["slot"][0] >= FIRST_SLOT:
            clipped["slot"][0] += cut
    over = int(clipped["first_block"][-1]) + int(clipped["count"][-1]) - end_block
    if over > 0:
        clipped["count"][-1] -= over
    return clipped


def count_run_blocks(runs: Runs) -> int:
    """Return how many blocks `runs` cover."""
    return int(runs["count"].sum(dtype=np.uint64))


def ranges_of_blocks(
    blocks: npt.NDArray[np.signedinteger[Any]], places: npt.NDArray[np.int64], block_bytes: int
) -> Ranges:
    """Return which ranges bring each of `blocks` of a file to its place, a number of blocks, in memory.

    Blocks that follow each other in both become one range; the order stays.
    """
    follows = (np.diff(blocks) == 1) & (np.diff(places) == 1)
    starts = np.flatnonzero(np.concatenate(([len(blocks) > 0], ~follows)))
    ranges = np.empty(len(starts), RANGE)
    ranges["offset"] = blocks[starts].astype(np.int64) * block_bytes
    ranges["start"] = places[starts] * block_bytes
    ranges["length"] = np.diff(np.append(starts, len(blocks))) * block_bytes
    return ranges


def expand_ranges(firsts: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return firsts[0], firsts[0] + 1, … counts[0] numbers in all, then those of the next range, and so on."""
    ends = np.cumsum(counts, dtype=np.int64)
    numbers: npt.NDArray[np.int64] = np.arange(int(ends[-1]) if len(ends) else 0)
    numbers += np.repeat(firsts - (ends - counts), counts)
    return numbers


def distinct(first: Array, *others: Array) -> Array:
    """Return what is in any of some one-dimensional arrays, ascending, each value once.

    numpy's `unique` and `union1d` hash whole numbers since version 2.3: thirty times as slow for 300,000 of them.
    """
    values = np.sort(np.concatenate((first, *others)) if others else first)
    if len(values) < 2:
        return cast("Array", values)
    return cast("Array", values[np.concatenate(([True], values[1:] != values[:-1]))])


def find_stretches(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return shape (count, 2): [first, end) of each longest stretch of True."""
    return np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])))).reshape(-1, 2)


def group_by(values: npt.NDArray[np.integer]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield each distinct value, ascending, and the places that have it, ascending; one sort, however many values there are."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate((np.ones(min(1, len(order)), np.bool_), ordered[1:] != ordered[:-1])))
    ends = np.append(starts[1:], len(order))
    for start, end in zip(starts.tolist(), ends.tolist(), strict=False):
        yield int(ordered[start]), order[start:end]
