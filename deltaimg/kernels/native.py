# SPDX-License-Identifier: Apache-2.0
"""The kernels in C: a thin binding that checks lengths and turns a status into an exception. No policy.

Reads   anything C-contiguous with the buffer protocol, in place; writes into numpy arrays that it makes.
Memory  what it returns, and up to 60 KiB of stack in C.
Always  cffi drops the GIL for the length of each call, so threads scan side by side.
Always  the digest path is the fastest that this processor has and that gave the right answer to a known question;
        finding it out takes some microseconds at import.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, RANGE, RUN, Digests, Ranges, Runs, Slots
from deltaimg.errors import NativeError
from deltaimg.kernels._native import ffi, lib
from deltaimg.kernels.layout import (
    ANCHOR_DISTANCE,
    BLOCK_MATCH,
    BUCKET_PLACES,
    DELTA_PARTS,
    KEY_BYTES,
    STATUS_RUN,
    VCDIFF_PAGE_BYTES,
    AnchorNames,
    AnchorTable,
    BlockIndex,
    BlockMatches,
    Buffer,
    FailedRange,
    Octets,
    StatusRuns,
    Sums,
    WeakKind,
)
from deltaimg.model import VcdiffSections

PATHS: dict[str, int] = {
    "portable": lib.DIMG_PATH_PORTABLE,
    "sse41": lib.DIMG_PATH_SSE41,
    "avx2": lib.DIMG_PATH_AVX2,
    "avx512": lib.DIMG_PATH_AVX512,
    "neon": lib.DIMG_PATH_NEON,
}
_FASTEST_FIRST = ("avx512", "avx2", "neon", "sse41", "portable")

# From the test vectors that BLAKE3's authors publish: 31 chunks, so that lanes are full, then partly empty.
_KNOWN_KEY = b"whats the Elvish word for friend"
_KNOWN_BYTES = 31744
_KNOWN_ANSWER = bytes.fromhex("efa53b389ab67c593dba624d898d0f7353ab99e4ac9d42302ee64cbf9939a419")


def _in(data: Buffer) -> Any:
    return ffi.from_buffer("uint8_t[]", data)


def _out(array: Octets | Digests) -> Any:
    return ffi.from_buffer("uint8_t[]", array, require_writable=True)


def _slots_in(slots: Slots) -> Any:
    return ffi.from_buffer("uint32_t[]", np.ascontiguousarray(slots, np.uint32))


def _slots_out(slots: Slots) -> Any:
    return ffi.from_buffer("uint32_t[]", slots, require_writable=True)


def _digests_in(function: str, digests: Digests) -> tuple[Any, int]:
    _demand(function, digests.ndim == 2 and digests.shape[1] == DIGEST_BYTES and digests.dtype == np.uint8)
    return ffi.from_buffer("uint8_t[]", np.ascontiguousarray(digests)), len(digests)


def _runs_in(runs: Runs) -> tuple[Any, int]:
    return ffi.from_buffer("dimg_run[]", np.ascontiguousarray(runs, RUN)), len(runs)


def _demand(function: str, is_good: bool) -> None:
    if not is_good:
        raise NativeError(function, "BAD_ARGUMENT")


def _check(function: str, status: int) -> None:
    if status != lib.DIMG_OK:
        raise NativeError(function, ffi.string(ffi.cast("dimg_status", status)).removeprefix("DIMG_"))


def _digest(path: int, key: bytes | None, data: Buffer, out_bytes: int) -> bytes:
    _demand("digest_buffer", out_bytes >= 0 and (key is None or len(key) == KEY_BYTES))
    source = _in(data)
    out = ffi.new("uint8_t[32]")
    key_in = ffi.NULL if key is None else _in(key)
    _check("digest_buffer", lib.dimg_digest_buffer(path, key_in, source, len(source), out, out_bytes))
    return bytes(ffi.buffer(out, out_bytes))


def find_paths() -> list[str]:
    """Return the names of the digest paths that can be used here, fastest first."""
    question = bytes(i % 251 for i in range(_KNOWN_BYTES))
    return [
        name
        for name in _FASTEST_FIRST
        if lib.dimg_has_path(PATHS[name]) and _digest(PATHS[name], _KNOWN_KEY, question, 32) == _KNOWN_ANSWER
    ]


def _choose_path() -> str:
    paths = find_paths()
    if not paths:
        raise ImportError("no path of the native digest kernel gives right answers on this processor")
    return paths[0]


_BEST = _choose_path()
_BEST_PATH = PATHS[_BEST]
NAME: str = f"native {_BEST}"


def _path_number(path: str | None) -> int:
    return _BEST_PATH if path is None else PATHS[path]


def _count_blocks(function: str, key: bytes, source_bytes: int, block_bytes: int) -> int:
    _demand(function, len(key) == KEY_BYTES and block_bytes > 0)
    _demand(function, source_bytes % block_bytes == 0)
    return source_bytes // block_bytes


def digest_buffer(data: Buffer, key: bytes | None = None, out_bytes: int = 32, *, path: str | None = None) -> bytes:
    """Return the BLAKE3 digest of at most 1 MiB, keyed if there is a key of 32 bytes; `out_bytes` of it, 1 to 32."""
    return _digest(_path_number(path), key, data, out_bytes)


def digest_blocks(key: bytes, data: Buffer, block_bytes: int, *, path: str | None = None) -> Digests:
    """Return the keyed digest of each block, shape (count, 16); those of zero blocks are zero."""
    source = _in(data)
    block_count = _count_blocks("digest_blocks", key, len(source), block_bytes)
    digests = np.empty((block_count, DIGEST_BYTES), np.uint8)
    status = lib.dimg_digest_blocks(_path_number(path), _in(key), source, block_count, block_bytes, _out(digests))
    _check("digest_blocks", status)
    return digests


def scan_blocks(
    key: bytes, data: Buffer, block_bytes: int, base_slots: Slots, digests: Digests, *, path: str | None = None
) -> tuple[Digests, StatusRuns]:
    """Return the digests of blocks, shape (count, 16), and `STATUS_RUN`s that compare them with the base's.

    Args:
        base_slots: of each block in the base. digests: the base's, by slot.
    """
    source = _in(data)
    block_count = _count_blocks("scan_blocks", key, len(source), block_bytes)
    _demand("scan_blocks", len(base_slots) == block_count)
    known, known_count = _digests_in("scan_blocks", digests)
    found = np.empty((block_count, DIGEST_BYTES), np.uint8)
    runs = np.empty(block_count, STATUS_RUN)
    run_count = ffi.new("size_t *")
    status = lib.dimg_scan_blocks(
        _path_number(path), _in(key), source, block_count, block_bytes, _slots_in(base_slots), known, known_count,
        _out(found), ffi.from_buffer("dimg_status_run[]", runs), block_count, run_count,
    )  # fmt: skip
    _check("scan_blocks", status)
    return found, runs[: run_count[0]].copy()


def is_zero(data: Buffer) -> bool:
    """Return whether all bytes are zero."""
    source = _in(data)
    return bool(lib.dimg_is_zero(source, len(source)))


def is_equal(a: Buffer, b: Buffer) -> bool:
    """Return whether two buffers have the same bytes; of different lengths they have not."""
    left, right = _in(a), _in(b)
    return len(left) == len(right) and bool(lib.dimg_is_equal(left, right, len(left)))


def gather_blocks(data: Buffer, block_bytes: int, indexes: Slots, out: Octets | None = None) -> Octets:
    """Return blocks by their numbers, one after another; in `out` if that is given."""
    _demand("gather_blocks", block_bytes > 0)
    source = _in(data)
    _demand("gather_blocks", len(source) % block_bytes == 0)
    wanted_bytes = len(indexes) * block_bytes
    target = np.empty(wanted_bytes, np.uint8) if out is None else out
    to = _out(target)
    _check(
        "gather_blocks",
        lib.dimg_gather_blocks(
            source, len(source) // block_bytes, block_bytes, _slots_in(indexes), len(indexes), to, len(to)
        ),
    )
    return target[:wanted_bytes]


def expand_runs(runs: Runs, first_block: int, block_count: int) -> Slots:
    """Return the slot of each of `block_count` blocks; a hole where no run is."""
    _demand("expand_runs", first_block >= 0 and block_count >= 0 and first_block + block_count < 2**64)
    source, count = _runs_in(runs)
    slots = np.empty(block_count, np.uint32)
    _check("expand_runs", lib.dimg_expand_runs(source, count, first_block, block_count, _slots_out(slots)))
    return slots


def _combine(function: str, first: Runs, second: Runs, capacity: int) -> Runs:
    left, left_count = _runs_in(first)
    right, right_count = _runs_in(second)
    out = np.empty(capacity, RUN)
    out_count = ffi.new("size_t *")
    combine = getattr(lib, f"dimg_{function}")
    status = combine(left, left_count, right, right_count, ffi.from_buffer("dimg_run[]", out), capacity, out_count)
    _check(function, status)
    return out[: out_count[0]].copy()


def overlay_runs(base: Runs, over: Runs) -> Runs:
    """Return both maps as one, `over` where they overlap; neighbours that continue each other become one run."""
    return _combine("overlay_runs", base, over, len(base) + 2 * len(over))


def subtract_runs(runs: Runs, base: Runs) -> Runs:
    """Return the parts of `runs` whose blocks have another slot, or none, in `base`."""
    return _combine("subtract_runs", runs, base, len(runs) + len(base))


def insert_slots(table: Slots, digests: Digests, digest_count: int, first_slot: int, count: int) -> None:
    """Enter slots [first_slot, first_slot + count) into a match table; of equal digests the first stays."""
    _demand("insert_slots", table.dtype == np.uint32 and 0 <= digest_count <= len(digests))
    _demand("insert_slots", 0 <= first_slot < 2**32 and count >= 0)
    known, _ = _digests_in("insert_slots", digests)
    status = lib.dimg_insert_slots(_slots_out(table), len(table), known, digest_count, first_slot, count)
    _check("insert_slots", status)


def match_digests(table: Slots, digests: Digests, digest_count: int, wanted: Digests) -> tuple[Slots, int]:
    """Return a slot for each of `wanted`, and the new count of digests; unknown ones are appended to `digests`."""
    _demand("match_digests", table.dtype == np.uint32 and digest_count >= 0)
    _demand("match_digests", digests.dtype == np.uint8 and digests.ndim == 2 and digests.shape[1] == DIGEST_BYTES)
    asked, asked_count = _digests_in("match_digests", wanted)
    slots = np.empty(asked_count, np.uint32)
    new_count, done = ffi.new("size_t *", digest_count), ffi.new("size_t *")
    status = lib.dimg_match_digests(
        _slots_out(table), len(table), _out(digests), len(digests), new_count,
        asked, asked_count, _slots_out(slots), done,
    )  # fmt: skip
    _check("match_digests", status)
    return slots, int(new_count[0])


def _demand_blocks(function: str, source_bytes: int, block_bytes: int) -> int:
    _demand(function, block_bytes > 0 and source_bytes % block_bytes == 0)
    return source_bytes // block_bytes


def weak_sums(kind: WeakKind, data: Buffer, block_bytes: int) -> Sums:
    """Return the weak sum of each block, shape (count,), uint64; all blocks are whole."""
    source = _in(data)
    count = _demand_blocks("weak_sums", len(source), block_bytes)
    sums = np.empty(count, np.uint64)
    _check("weak_sums", lib.dimg_weak_sums(kind, source, count, block_bytes, ffi.from_buffer("uint64_t[]", sums)))
    return sums


def fill_filter(kind: WeakKind, weaks: Sums, filter_bits: int) -> Slots:
    """Return 2 ** filter_bits bits in words of 32, two of them set for each weak sum."""
    _demand("fill_filter", 8 <= filter_bits <= 27 and weaks.dtype == np.uint64)
    bits = np.zeros(1 << (filter_bits - 5), np.uint32)
    sums = ffi.from_buffer("uint64_t[]", np.ascontiguousarray(weaks))
    _check("fill_filter", lib.dimg_fill_filter(kind, sums, len(weaks), _slots_out(bits), filter_bits))
    return bits


def _strong_blocks(function: str, digest_bytes: int, data: Buffer, block_bytes: int) -> Octets:
    source = _in(data)
    count = _demand_blocks(function, len(source), block_bytes)
    digests = np.empty((count, digest_bytes), np.uint8)
    _check(function, getattr(lib, f"dimg_{function}")(source, count, block_bytes, _out(digests)))
    return digests


def blake2b_blocks(data: Buffer, block_bytes: int) -> Octets:
    """Return the unkeyed BLAKE2b digest of each block, shape (count, 32); blocks have any size, all the same."""
    return _strong_blocks("blake2b_blocks", 32, data, block_bytes)


def md5_blocks(data: Buffer, block_bytes: int) -> Octets:
    """Return the MD5 of each block, shape (count, 16); blocks have any size, all the same."""
    return _strong_blocks("md5_blocks", 16, data, block_bytes)


def match_blocks(index: BlockIndex, data: Buffer, stretches: Sums, first_position: int = 0) -> BlockMatches:
    """Return `BLOCK_MATCH`es of old blocks in `data`, ascending, no two overlap.

    Args:
        stretches: shape (count, 2), [start, end) in bytes: where to search. first_position: of `data` in the file.
    """
    source = _in(data)
    _demand("match_blocks", stretches.dtype == np.uint64 and stretches.ndim == 2 and stretches.shape[1] == 2)
    _demand(
        "match_blocks", (1 << index.filter_bits) == 32 * len(index.filter) and len(index.mixed) == len(index.blocks)
    )
    _demand("match_blocks", len(index.directory) == (1 << index.directory_bits) + 1)
    _demand("match_blocks", len(index.weaks) == len(index.strongs) and 0 <= first_position < 2**63)
    key = ffi.NULL if index.key is None else _in(index.key)
    _demand("match_blocks", index.key is None or len(index.key) == KEY_BYTES)
    described = ffi.new(
        "dimg_block_index *",
        {
            "weak_kind": index.weak_kind, "strong_kind": index.strong_kind, "path": _BEST_PATH, "key": key,
            "block_bytes": index.block_bytes, "strong_bytes": index.strongs.shape[1], "block_count": len(index.weaks),
            "weaks": ffi.from_buffer("uint64_t[]", index.weaks), "strongs": _in(index.strongs.data),
            "entry_count": len(index.mixed), "mixed": ffi.from_buffer("uint64_t[]", index.mixed),
            "blocks": _slots_in(index.blocks), "directory": _slots_in(index.directory),
            "directory_bits": index.directory_bits, "filter_bits": index.filter_bits, "filter": _slots_in(index.filter),
            "prefers_next": index.prefers_next,
        },
    )  # fmt: skip
    parts = []
    left = np.ascontiguousarray(stretches).copy()
    capacity = 1024
    while len(left):
        found = np.empty(capacity, BLOCK_MATCH)
        count, stretch, position = ffi.new("size_t *"), ffi.new("size_t *"), ffi.new("uint64_t *")
        status = lib.dimg_match_blocks(
            described, source, len(source), first_position, ffi.from_buffer("uint64_t[]", left), len(left),
            ffi.from_buffer("dimg_block_match[]", found), capacity, count, stretch, position,
        )  # fmt: skip
        parts.append(found[: count[0]])
        if status != lib.DIMG_BUFFER_TOO_SMALL:
            _check("match_blocks", status)
            break
        left = left[stretch[0] :]
        left[0, 0] = position[0]
        capacity *= 4
    return np.concatenate(parts) if parts else np.empty(0, BLOCK_MATCH)


def _names_in(names: AnchorNames) -> Any:
    return ffi.from_buffer("uint64_t[]", np.ascontiguousarray(names, np.uint64))


def _count_buckets(function: str, table: AnchorTable) -> int:
    _demand(function, table.dtype == np.uint64 and table.ndim == 1 and len(table) % BUCKET_PLACES == 0)
    return len(table) // BUCKET_PLACES


def collect_anchors(data: Buffer, shift: int) -> tuple[AnchorNames, Slots]:
    """Return names and positions in bytes of the anchors of a buffer, ascending by position."""
    source = _in(data)
    capacity = len(source) // ANCHOR_DISTANCE
    names, positions = np.empty(capacity, np.uint64), np.empty(capacity, np.uint32)
    count = ffi.new("size_t *")
    status = lib.dimg_collect_anchors(
        source, len(source), shift, ffi.from_buffer("uint64_t[]", names), _slots_out(positions), capacity, count
    )
    _check("collect_anchors", status)
    return names[: count[0]].copy(), positions[: count[0]].copy()


def insert_anchors(table: AnchorTable, names: AnchorNames, slots: Slots) -> None:
    """Enter a slot for each name; a slot of 0 is passed over, and a full bucket forgets an older one."""
    _demand("insert_anchors", len(names) == len(slots))
    buckets = _count_buckets("insert_anchors", table)
    places = ffi.from_buffer("uint64_t[]", table, require_writable=True)
    _check("insert_anchors", lib.dimg_insert_anchors(places, buckets, _names_in(names), _slots_in(slots), len(names)))


def find_anchors(table: AnchorTable, names: AnchorNames) -> Slots:
    """Return the slot that was entered for each name, or 0; a hint, since only 32 bits of a name are compared."""
    buckets = _count_buckets("find_anchors", table)
    slots = np.empty(len(names), np.uint32)
    status = lib.dimg_find_anchors(
        ffi.from_buffer("uint64_t[]", table), buckets, _names_in(names), len(names), _slots_out(slots)
    )
    _check("find_anchors", status)
    return slots


def _vcdiff_sections(sections: VcdiffSections) -> tuple[Any, tuple[Any, ...]]:
    """Return the struct, and what it points to and does not itself keep alive."""
    data, instructions, addresses = held = tuple(
        _in(part) for part in (sections.data, sections.instructions, sections.addresses)
    )
    fields = (data, instructions, addresses, len(data), len(instructions), len(addresses))
    return ffi.new("dimg_vcdiff_sections *", fields), held


def survey_vcdiff(sections: VcdiffSections, segment_bytes: int, target_bytes: int) -> Octets:
    """Return for each page of the source segment whether a window copies from it; raises NativeError for a bad window."""
    _demand("survey_vcdiff", 0 <= segment_bytes < 2**62 and 0 <= target_bytes < 2**62)
    parts, held = _vcdiff_sections(sections)
    pages = np.zeros(-(-segment_bytes // VCDIFF_PAGE_BYTES), np.uint8)
    _check("survey_vcdiff", lib.dimg_survey_vcdiff(parts, segment_bytes, target_bytes, _out(pages)))
    del held
    return pages


def apply_vcdiff(
    sections: VcdiffSections, source: Buffer, out: memoryview, segment_bytes: int, places: Slots | None = None
) -> None:
    """Fill `out` with what a window makes; raises NativeError for a bad window.

    Args:
        places: for each page of the segment its place among the pages in `source`; without it, all are there in order.
    """
    _demand("apply_vcdiff", 0 <= segment_bytes < 2**62)
    _demand("apply_vcdiff", places is None or len(places) == -(-segment_bytes // VCDIFF_PAGE_BYTES))
    parts, held = _vcdiff_sections(sections)
    segment, target = _in(source), ffi.from_buffer("uint8_t[]", out, require_writable=True)
    where = ffi.NULL if places is None else _slots_in(places)
    status = lib.dimg_apply_vcdiff(parts, segment_bytes, segment, len(segment), where, target, len(target))
    _check("apply_vcdiff", status)
    del held


def delta_work_bytes(content_bytes: int) -> int:
    """Return how much memory `encode_delta` needs for this much content."""
    return int(lib.dimg_delta_work_bytes(content_bytes))


def delta_bound(content_bytes: int) -> int:
    """Return how long the body of a delta of this much content may be."""
    return int(lib.dimg_delta_bound(content_bytes))


def encode_delta(content: Buffer, sources: Buffer, work: Buffer, body: memoryview) -> tuple[int, ...]:
    """Fill `body`, of `delta_bound` bytes, with a delta body; return the lengths of its parts."""
    made, base, memory = _in(content), _in(sources), ffi.from_buffer("uint8_t[]", work, require_writable=True)
    out, part_bytes = ffi.from_buffer("uint8_t[]", body, require_writable=True), ffi.new("size_t[]", DELTA_PARTS)
    status = lib.dimg_encode_delta(base, len(base), made, len(made), memory, len(memory), out, len(out), part_bytes)
    _check("encode_delta", status)
    return tuple(part_bytes)


def decode_delta(body: Buffer, sources: Buffer, out: memoryview) -> None:
    """Fill `out` with what a body makes of the sources; raises NativeError for a body that is not valid."""
    encoded, base, content = _in(body), _in(sources), ffi.from_buffer("uint8_t[]", out, require_writable=True)
    _check("decode_delta", lib.dimg_decode_delta(base, len(base), encoded, len(encoded), content, len(content)))


def count_delta_use(body: Buffer, source_bytes: int, content_bytes: int, block_bytes: int) -> npt.NDArray[np.uint32]:
    """Return how many bytes of each block of the sources a body of `encode_delta` needs."""
    encoded, used = _in(body), np.empty(-(-source_bytes // block_bytes), np.uint32)
    out, shift = ffi.from_buffer("uint32_t[]", used, require_writable=True), block_bytes.bit_length() - 1
    status = lib.dimg_count_delta_use(encoded, len(encoded), source_bytes, content_bytes, shift, out, len(used))
    _check("count_delta_use", status)
    return used


def read_ranges(descriptor: int, ranges: Ranges, out: Buffer, *, only_cached: bool = False) -> FailedRange | None:
    """Fill `out` from ranges of a file; return the first that could not be read whole, None if there is none.

    Args:
        only_cached: read nothing that is not in the page cache (RWF_NOWAIT).
    """
    memory = ffi.from_buffer("uint8_t[]", out, require_writable=True)
    return _move("read_ranges", descriptor, ranges, int(only_cached), memory)


def write_ranges(descriptor: int, ranges: Ranges, data: Buffer, most_bytes: int) -> FailedRange | None:
    """Write ranges of a file from `data`, at most `most_bytes` at a time; return the first that failed, None if none did."""
    _demand("write_ranges", most_bytes > 0)
    return _move("write_ranges", descriptor, ranges, most_bytes, _in(data))


def _move(function: str, descriptor: int, ranges: Ranges, how: int, memory: Any) -> FailedRange | None:
    done, error_number = ffi.new("size_t *"), ffi.new("int *")
    wanted = ffi.from_buffer("dimg_range[]", np.ascontiguousarray(ranges, RANGE))
    move = getattr(lib, f"dimg_{function}")
    status = move(descriptor, wanted, len(ranges), how, memory, len(memory), done, error_number)
    if status == lib.DIMG_IO_FAILED:
        return FailedRange(done[0], error_number[0])
    _check(function, status)
    return None
