# SPDX-License-Identifier: Apache-2.0
"""The hot loops: digests of blocks, the scan, arithmetic on runs, the match table, many small ranges of a file.

Always  one set of functions, in C (`native`) where it is built and in Python (`reference`) where it is not; the results
        are the same bytes. `NAME` says which was chosen, `DELTAIMG_KERNELS=native` or `reference` forces one.
Always  buffers go in as they are and numpy arrays come out; nothing is made for each block; C runs without the GIL.
Raises  `NativeError(function, status)` for arguments that `native/include/dimg_api.h` forbids, runs read from a damaged
        map among them (`BAD_RUNS`).

| function | result |
| --- | --- |
| `digest_buffer(data, key=None, out_bytes=32)` | BLAKE3, keyed if there is a key, of at most 1 MiB |
| `digest_blocks(key, data, block_bytes)` | (n, 16) digests; those of zero blocks are zero |
| `scan_blocks(key, data, block_bytes, base_slots, digests)` | the same, and runs of `BlockStatus` against the base |
| `is_zero(data)`, `is_equal(a, b)` | what they say |
| `gather_blocks(data, block_bytes, indexes, out=None)` | the bytes of those blocks, one after another |
| `expand_runs(runs, first_block, block_count)` | the slot of each block, a hole where no run is; reads only the runs there |
| `overlay_runs(base, over)` | both maps as one, `over` on top |
| `subtract_runs(runs, base)` | the parts of `runs` that `base` does not say |
| `insert_slots(table, digests, digest_count, first_slot, count)` | enters the digests of known slots into `table` |
| `match_digests(table, digests, digest_count, wanted)` | a slot for each of `wanted`, and the new count: unknown ones are appended to `digests` and entered. After an error throw table and digests away |
| `weak_sums(kind, data, block_bytes)` | the weak sum of each block: see `WeakKind` |
| `fill_filter(kind, weaks, filter_bits)` | 2^filter_bits bits, set where a weak sum points |
| `blake2b_blocks(data, block_bytes)`, `md5_blocks(…)` | (n, 32) and (n, 16) digests of blocks of any size |
| `match_blocks(index, data, stretches, first_position=0)` | `BLOCK_MATCH`: old blocks found in [start, end) of each stretch, at any offset |
| `collect_anchors(data, shift)` | names and positions of the anchors of a buffer, about one in 2 ** (32 - shift) bytes |
| `insert_anchors(table, names, slots)` | enters a slot for each name; a full bucket forgets an older one |
| `find_anchors(table, names)` | the slot that was entered for each name, or 0; a hint |
| `encode_delta(content, sources, work, body)` | puts a delta body in `body`, which has `delta_bound` bytes; the lengths of its parts. `work` is memory of `delta_work_bytes` |
| `decode_delta(body, sources, out)` | fills `out` with what a delta body makes of the sources |
| `count_delta_use(body, source_bytes, content_bytes, block_bytes)` | how many bytes of each block of the sources a delta body needs |
| `survey_vcdiff(sections, segment_bytes, target_bytes)` | checks a window of a VCDIFF delta; which pages of its source segment it copies from |
| `apply_vcdiff(sections, source, out, segment_bytes, places=None)` | fills `out` with what the window makes; `places` says where pages of the segment lie in `source`, if not in order |
| `read_ranges(descriptor, ranges, out, only_cached=False)` | fills `out` from many ranges of a file; the first that could not be read whole, or None |
| `write_ranges(descriptor, ranges, data, most_bytes)` | writes `data` to many ranges of a file, at most `most_bytes` at a time; the first that could not be written, or None |
"""  # noqa: E501

from __future__ import annotations

import os
import sys
import warnings

from deltaimg.arrays import DIGEST_BYTES, FIRST_SLOT, HOLE, RUN, ZERO
from deltaimg.errors import UsageError
from deltaimg.kernels.layout import (
    BLOCK_MATCH,
    MIX,
    STATUS_RUN,
    STRONG_BYTES,
    VCDIFF_PAGE_BYTES,
    BlockIndex,
    BlockMatches,
    BlockStatus,
    FailedRange,
    StrongKind,
    Sums,
    WeakKind,
)
from deltaimg.kernels.reference import (
    NAME,
    collect_anchors,
    digest_blocks,
    digest_buffer,
    expand_runs,
    find_anchors,
    gather_blocks,
    insert_anchors,
    insert_slots,
    is_equal,
    is_zero,
    match_digests,
    overlay_runs,
    scan_blocks,
    subtract_runs,
)
from deltaimg.kernels.reference_delta import (
    count_delta_use,
    decode_delta,
    delta_bound,
    delta_work_bytes,
    encode_delta,
)
from deltaimg.kernels.reference_ranges import read_ranges, write_ranges
from deltaimg.kernels.reference_rolling import blake2b_blocks, fill_filter, match_blocks, md5_blocks, weak_sums
from deltaimg.kernels.reference_vcdiff import apply_vcdiff, survey_vcdiff

__all__ = [
    "BLOCK_MATCH",
    "CHANGED",
    "DIGEST_BYTES",
    "FIRST_SLOT",
    "HOLE",
    "MIX",
    "NAME",
    "RUN",
    "SAME",
    "STATUS_RUN",
    "STRONG_BYTES",
    "VCDIFF_PAGE_BYTES",
    "ZERO",
    "ZERO_BLOCK",
    "BlockIndex",
    "BlockMatches",
    "BlockStatus",
    "FailedRange",
    "StrongKind",
    "Sums",
    "WeakKind",
    "apply_vcdiff",
    "blake2b_blocks",
    "collect_anchors",
    "count_delta_use",
    "decode_delta",
    "delta_bound",
    "delta_work_bytes",
    "digest_blocks",
    "digest_buffer",
    "encode_delta",
    "expand_runs",
    "fill_filter",
    "find_anchors",
    "gather_blocks",
    "insert_anchors",
    "insert_slots",
    "is_equal",
    "is_zero",
    "match_blocks",
    "match_digests",
    "md5_blocks",
    "overlay_runs",
    "read_ranges",
    "scan_blocks",
    "subtract_runs",
    "survey_vcdiff",
    "weak_sums",
    "write_ranges",
]

SAME, ZERO_BLOCK, CHANGED = BlockStatus.SAME, BlockStatus.ZERO_BLOCK, BlockStatus.CHANGED

_forced = os.environ.get("DELTAIMG_KERNELS", "")
if _forced not in ("", "native", "reference"):
    raise UsageError(f"DELTAIMG_KERNELS is '{_forced}'", hint="it may be 'native', 'reference' or unset")
if _forced != "reference":
    try:
        if sys.byteorder != "little":
            raise ImportError("arrays are little-endian, this processor is not")
        from deltaimg.kernels.native import (
            NAME,
            apply_vcdiff,
            blake2b_blocks,
            collect_anchors,
            count_delta_use,
            decode_delta,
            delta_bound,
            delta_work_bytes,
            digest_blocks,
            digest_buffer,
            encode_delta,
            expand_runs,
            fill_filter,
            find_anchors,
            gather_blocks,
            insert_anchors,
            insert_slots,
            is_equal,
            is_zero,
            match_blocks,
            match_digests,
            md5_blocks,
            overlay_runs,
            read_ranges,
            scan_blocks,
            subtract_runs,
            survey_vcdiff,
            weak_sums,
            write_ranges,
        )
    except ImportError as error:
        if _forced == "native":
            raise
        warnings.warn(
            f"deltaimg runs without its native core ({error}), many times slower; install a C compiler, then reinstall "
            "deltaimg (DELTAIMG_KERNELS=reference silences this)",
            RuntimeWarning,
            stacklevel=2,
        )
