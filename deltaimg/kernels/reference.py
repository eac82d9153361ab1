# SPDX-License-Identifier: Apache-2.0
"""The kernels in plain Python: what each function means, the oracle of the tests, and the stand-in without a compiler.

Reads   and writes the same arrays as `native`, and raises the same errors; a match table filled here is byte for byte
        the table that C fills.
Memory  what it returns, and one byte a block.
Source  BLAKE3: see native/src/digest/blake3.h. Digests come from the `blake3` package where it is installed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import DIGEST_BYTES, FIRST_SLOT, HOLE, RUN, ZERO, Digests, Runs, Slots
from deltaimg.errors import NativeError
from deltaimg.kernels.layout import (
    ANCHOR_DISTANCE,
    ANCHOR_WINDOW,
    BUCKET_PLACES,
    CHUNK_BYTES,
    KEY_BYTES,
    MAX_BLOCK_BYTES,
    MAX_DIGEST_BYTES,
    STATUS_RUN,
    AnchorNames,
    AnchorTable,
    BlockStatus,
    Buffer,
    Octets,
    StatusRuns,
    view_octets,
)

try:
    from blake3 import blake3 as _blake3
except ImportError:
    _blake3 = None  # type: ignore[assignment,misc]

NAME = "reference"
_U32, _U64 = 2**32 - 1, 2**64 - 1

# -- digests -----------------------------------------------------------------------------------------------------------

_IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
_PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_CHUNK_START, _CHUNK_END, _PARENT, _ROOT, _KEYED_HASH = 1, 2, 4, 8, 16
_COLUMNS_AND_DIAGONALS = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip
_Words = tuple[int, ...]


def _rotate(word: int, bits: int) -> int:
    return (word >> bits) | (word << (32 - bits)) & _U32


def _compress(cv: _Words, message: bytes, message_bytes: int, counter: int, flags: int) -> _Words:
    v = [*cv, *_IV[:4], counter & _U32, counter >> 32, message_bytes, flags]
    words = struct.unpack("<16I", message.ljust(64, b"\0"))
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(_COLUMNS_AND_DIAGONALS):
            v[a] = (v[a] + v[b] + words[2 * i]) & _U32
            v[d] = _rotate(v[d] ^ v[a], 16)
            v[c] = (v[c] + v[d]) & _U32
            v[b] = _rotate(v[b] ^ v[c], 12)
            v[a] = (v[a] + v[b] + words[2 * i + 1]) & _U32
            v[d] = _rotate(v[d] ^ v[a], 8)
            v[c] = (v[c] + v[d]) & _U32
            v[b] = _rotate(v[b] ^ v[c], 7)
        words = tuple(words[i] for i in _PERMUTATION)
    return tuple(v[i] ^ v[i + 8] for i in range(8))


def _hash_chunk(key: _Words, chunk: bytes, counter: int, mode: int, root: int) -> _Words:
    cv = key
    last = max(0, (len(chunk) - 1) // 64)
    for i in range(last + 1):
        message = chunk[64 * i : 64 * i + 64]
        flags = mode | (_CHUNK_START if i == 0 else 0) | (_CHUNK_END | root if i == last else 0)
        cv = _compress(cv, message, len(message), counter, flags)
    return cv


def digest_in_python(data: bytes, key: bytes | None = None) -> bytes:
    """Return 32 bytes of BLAKE3, at some tens of KiB a second."""
    words: _Words = _IV if key is None else struct.unpack("<8I", key)
    mode = 0 if key is None else _KEYED_HASH
    count = max(1, -(-len(data) // CHUNK_BYTES))
    chunks = (data[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES] for i in range(count))
    nodes = [_hash_chunk(words, chunk, i, mode, _ROOT if count == 1 else 0) for i, chunk in enumerate(chunks)]
    while len(nodes) > 1:
        flags = mode | _PARENT | (_ROOT if len(nodes) == 2 else 0)
        pairs = zip(nodes[::2], nodes[1::2], strict=False)
        parents = [_compress(words, struct.pack("<16I", *left, *right), 64, 0, flags) for left, right in pairs]
        nodes = parents + nodes[2 * len(parents) :]
    return struct.pack("<8I", *nodes[0])


def _digest(data: bytes | memoryview, key: bytes | None) -> bytes:
    if _blake3 is None:
        return digest_in_python(bytes(data), key)
    return (_blake3(data) if key is None else _blake3(data, key=key)).digest()


def _demand(function: str, is_good: bool, status: str = "BAD_ARGUMENT") -> None:
    if not is_good:
        raise NativeError(function, status)


def digest_buffer(data: Buffer, key: bytes | None = None, out_bytes: int = 32) -> bytes:
    """Return the BLAKE3 digest of at most 1 MiB, keyed if there is a key of 32 bytes; `out_bytes` of it, 1 to 32."""
    view = view_octets(data)
    _demand("digest_buffer", 0 <= out_bytes <= MAX_DIGEST_BYTES and (key is None or len(key) == KEY_BYTES))
    _demand("digest_buffer", len(view) <= MAX_BLOCK_BYTES)
    return _digest(view, key)[:out_bytes]


def digest_blocks(key: bytes, data: Buffer, block_bytes: int) -> Digests:
    """Return the keyed digest of each block, shape (count, 16); those of zero blocks are zero."""
    view = view_octets(data)
    _demand("digest_blocks", len(key) == KEY_BYTES and 0 < block_bytes <= MAX_BLOCK_BYTES)
    _demand("digest_blocks", block_bytes % CHUNK_BYTES == 0 and len(view) % block_bytes == 0)
    digests = np.zeros((len(view) // block_bytes, DIGEST_BYTES), np.uint8)
    for i in np.flatnonzero(np.frombuffer(view, np.uint8).reshape(-1, block_bytes).any(axis=1)).tolist():
        digest = _digest(view[i * block_bytes : (i + 1) * block_bytes], key)[:DIGEST_BYTES]
        digests[i] = np.frombuffer(digest, np.uint8)
    return digests


# -- scan --------------------------------------------------------------------------------------------------------------


def scan_blocks(
    key: bytes, data: Buffer, block_bytes: int, base_slots: Slots, digests: Digests
) -> tuple[Digests, StatusRuns]:
    """Return the digests of blocks, shape (count, 16), and `STATUS_RUN`s that compare them with the base's.

    Args:
        base_slots: of each block in the base. digests: the base's, by slot.
    """
    found = digest_blocks(key, data, block_bytes)
    _demand("scan_blocks", len(base_slots) == len(found))
    _demand("scan_blocks", not len(base_slots) or int(base_slots.max()) < len(digests), "BAD_SLOT")
    status = np.full(len(found), BlockStatus.CHANGED, np.uint32)
    status[(found == digests[base_slots]).all(axis=1)] = BlockStatus.SAME
    status[~found.any(axis=1)] = BlockStatus.ZERO_BLOCK
    starts = np.flatnonzero(np.diff(status, prepend=np.uint32(_U32)))
    runs = np.empty(len(starts), STATUS_RUN)
    runs["first"], runs["count"], runs["status"] = starts, np.diff(starts, append=len(found)), status[starts]
    return found, runs


def is_zero(data: Buffer) -> bool:
    """Return whether all bytes are zero."""
    return not np.frombuffer(view_octets(data), np.uint8).any()


def is_equal(a: Buffer, b: Buffer) -> bool:
    """Return whether two buffers have the same bytes; of different lengths they have not."""
    return view_octets(a) == view_octets(b)


def gather_blocks(data: Buffer, block_bytes: int, indexes: Slots, out: Octets | None = None) -> Octets:
    """Return blocks by their numbers, one after another; in `out` if that is given."""
    view = view_octets(data)
    _demand("gather_blocks", block_bytes > 0 and len(view) % block_bytes == 0)
    blocks = np.frombuffer(view, np.uint8).reshape(-1, block_bytes)
    wanted_bytes = len(indexes) * block_bytes
    _demand("gather_blocks", out is None or len(out) >= wanted_bytes, "BUFFER_TOO_SMALL")
    _demand("gather_blocks", not len(indexes) or int(indexes.max()) < len(blocks))
    gathered = blocks[indexes].reshape(-1)
    if out is None:
        return gathered
    out[:wanted_bytes] = gathered
    return out[:wanted_bytes]


# -- runs --------------------------------------------------------------------------------------------------------------

_Piece = tuple[int, int, int]
"""Blocks [first, end) of which the first has this slot."""


def _slot_at(piece: _Piece, block: int) -> int:
    return piece[2] if piece[2] < FIRST_SLOT else piece[2] + block - piece[0]


def _read_runs(function: str, runs: Runs) -> list[_Piece]:
    pieces = []
    end = 0
    for first, count, slot in runs.tolist():
        _demand(function, count > 0 and first >= end and first + count <= _U64, "BAD_RUNS")
        _demand(function, slot < FIRST_SLOT or slot + count - 1 <= _U32, "BAD_RUNS")
        end = first + count
        pieces.append((first, end, slot))
    return pieces


def _merge(pieces: Iterator[_Piece]) -> Runs:
    """Join pieces that continue each other, then cut what is longer than a run can be."""
    joined: list[_Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        is_joint = last and last[1] == piece[0] and _slot_at(last, piece[0]) == piece[2]
        if last and is_joint and (last[2] < FIRST_SLOT) == (piece[2] < FIRST_SLOT):
            joined[-1] = (last[0], piece[1], last[2])
        else:
            joined.append(piece)
    cut = [(at, min(end - at, _U32), _slot_at((first, end, slot), at))
           for first, end, slot in joined for at in range(first, end, _U32)]  # fmt: skip
    return np.array(cut, RUN)


def expand_runs(runs: Runs, first_block: int, block_count: int) -> Slots:
    """Return the slot of each of `block_count` blocks; a hole where no run is."""
    end_block = first_block + block_count
    _demand("expand_runs", first_block >= 0 and block_count >= 0 and end_block <= _U64)
    slots = np.full(block_count, HOLE, np.uint32)
    reaching = runs[(runs["first_block"] < end_block) & (runs["first_block"] + runs["count"] > first_block)]
    for first, end, slot in _read_runs("expand_runs", reaching):
        start, stop = max(first, first_block), min(end, end_block)
        step = 0 if slot < FIRST_SLOT else 1
        values = _slot_at((first, end, slot), start) + step * np.arange(stop - start, dtype=np.uint64)
        slots[start - first_block : stop - first_block] = values
    return slots


def _split(pieces: list[_Piece], cuts: list[int]) -> Iterator[_Piece]:
    """Cut pieces wherever one of the ascending `cuts` falls into them."""
    next_cut = 0
    for first, end, slot in pieces:
        at = first
        while next_cut < len(cuts) and cuts[next_cut] <= at:
            next_cut += 1
        while next_cut < len(cuts) and cuts[next_cut] < end:
            yield at, cuts[next_cut], _slot_at((first, end, slot), at)
            at = cuts[next_cut]
            next_cut += 1
        yield at, end, _slot_at((first, end, slot), at)


def _split_both(first: list[_Piece], second: list[_Piece]) -> tuple[dict[int, _Piece], dict[int, _Piece]]:
    """Cut both lists at all ends of both, so that two pieces either share all their blocks or none; by first block."""
    cuts = sorted({block for piece in (*first, *second) for block in piece[:2]})
    return {p[0]: p for p in _split(first, cuts)}, {p[0]: p for p in _split(second, cuts)}


def overlay_runs(base: Runs, over: Runs) -> Runs:
    """Return both maps as one, `over` where they overlap; neighbours that continue each other become one run."""
    under, above = _split_both(_read_runs("overlay_runs", base), _read_runs("overlay_runs", over))
    return _merge(piece for _, piece in sorted({**under, **above}.items()))


def subtract_runs(runs: Runs, base: Runs) -> Runs:
    """Return the parts of `runs` whose blocks have another slot, or none, in `base`."""
    kept, under = _split_both(_read_runs("subtract_runs", runs), _read_runs("subtract_runs", base))
    return _merge(piece for first, piece in kept.items() if under.get(first) != piece)


# -- match -------------------------------------------------------------------------------------------------------------


def _find_place(function: str, table: Slots, digests: Digests, digest_count: int, digest: bytes) -> int:
    """Return the place of the table that holds `digest`, or the free one where it belongs."""
    home = (int.from_bytes(digest[:8], "little") * 0x9E3779B97F4A7C15 & _U64) >> 20
    for probe in range(len(table)):
        place = (home + probe) & (len(table) - 1)
        slot = int(table[place])
        _demand(function, slot < digest_count, "BAD_SLOT")
        if slot == 0 or digests[slot].tobytes() == digest:
            return place
    raise NativeError(function, "TABLE_FULL")


def _is_power_of_two(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


def insert_slots(table: Slots, digests: Digests, digest_count: int, first_slot: int, count: int) -> None:
    """Enter slots [first_slot, first_slot + count) into a match table; of equal digests the first stays."""
    _demand("insert_slots", 0 <= digest_count <= len(digests) and 0 <= first_slot <= _U32 and count >= 0)
    _demand("insert_slots", _is_power_of_two(len(table)))
    _demand("insert_slots", first_slot + count <= digest_count, "BAD_SLOT")
    for slot in range(max(first_slot, FIRST_SLOT), first_slot + count):
        digest = digests[slot].tobytes()
        if any(digest):
            place = _find_place("insert_slots", table, digests, digest_count, digest)
            table[place] = table[place] or slot


def match_digests(table: Slots, digests: Digests, digest_count: int, wanted: Digests) -> tuple[Slots, int]:
    """Return a slot for each of `wanted`, and the new count of digests; unknown ones are appended to `digests`."""
    _demand("match_digests", _is_power_of_two(len(table)))
    _demand("match_digests", FIRST_SLOT <= digest_count <= len(digests))
    slots = np.empty(len(wanted), np.uint32)
    for i in range(len(wanted)):
        digest = wanted[i].tobytes()
        if not any(digest):
            slots[i] = ZERO
            continue
        place = _find_place("match_digests", table, digests, digest_count, digest)
        if table[place] == 0:
            _demand("match_digests", digest_count < len(digests), "BUFFER_TOO_SMALL")
            digests[digest_count] = wanted[i]
            table[place] = digest_count
            digest_count += 1
        slots[i] = table[place]
    return slots, digest_count


# -- anchors -----------------------------------------------------------------------------------------------------------


def _name_anchors(words: npt.NDArray[np.uint64]) -> AnchorNames:
    """Return the name of each row of four 64-bit words."""
    factors = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63)
    names = words[:, 0] * np.uint64(factors[0])
    for column, by in ((1, 31), (2, 29), (3, 33)):
        rotated = names << np.uint64(by) | names >> np.uint64(64 - by)
        names = (rotated ^ words[:, column]) * np.uint64(factors[column])
    return names ^ names >> np.uint64(32)


def collect_anchors(data: Buffer, shift: int) -> tuple[AnchorNames, Slots]:
    """Return names and positions in bytes of the anchors of a buffer, ascending by position."""
    octets = np.frombuffer(view_octets(data), np.uint8)
    _demand("collect_anchors", 0 <= shift <= 31)
    if len(octets) <= ANCHOR_WINDOW + 8:
        return np.empty(0, np.uint64), np.empty(0, np.uint32)
    eights = np.lib.stride_tricks.sliding_window_view(octets, 8)[: len(octets) - ANCHOR_WINDOW - 8]
    words = np.ascontiguousarray(eights).view("<u4").astype(np.uint32)
    values = words[:, 0] * np.uint32(0x9E3779B1) + words[:, 1] * np.uint32(0x85EBCA77) + np.uint32(0xC2B2AE3D)
    positions: list[int] = []
    for position in np.flatnonzero(values >> np.uint32(shift) == 0).tolist():
        if not positions or position >= positions[-1] + ANCHOR_DISTANCE:
            positions.append(position)
    chosen = np.array(positions, np.uint32)
    windows = np.lib.stride_tricks.sliding_window_view(octets, ANCHOR_WINDOW)[chosen]
    names = _name_anchors(np.ascontiguousarray(windows).view("<u8").reshape(-1, 4))
    is_kept = np.concatenate((np.ones(min(1, len(names)), np.bool_), names[1:] != names[:-1]))
    return names[is_kept], chosen[is_kept]


def _bucket(function: str, table: AnchorTable, name: int) -> AnchorTable:
    _demand(function, len(table) > 0 and len(table) % BUCKET_PLACES == 0)
    first = BUCKET_PLACES * ((name >> 32) * (len(table) // BUCKET_PLACES) >> 32)
    return table[first : first + BUCKET_PLACES]


def insert_anchors(table: AnchorTable, names: AnchorNames, slots: Slots) -> None:
    """Enter a slot for each name; a slot of 0 is passed over, and a full bucket forgets an older one."""
    _demand("insert_anchors", len(names) == len(slots))
    for name, slot in zip(names.tolist(), slots.tolist(), strict=True):
        bucket = _bucket("insert_anchors", table, name)
        if slot:
            known = np.flatnonzero((bucket != 0) & (bucket & np.uint64(_U32) == name & _U32))
            free = np.flatnonzero(bucket == 0)
            chosen = known[-1] if len(known) else free[0] if len(free) else (name >> 29) % BUCKET_PLACES
            bucket[chosen] = slot << 32 | name & _U32


def find_anchors(table: AnchorTable, names: AnchorNames) -> Slots:
    """Return the slot that was entered for each name, or 0; a hint, since only 32 bits of a name are compared."""
    slots = np.zeros(len(names), np.uint32)
    for i, name in enumerate(names.tolist()):
        bucket = _bucket("find_anchors", table, name)
        known = np.flatnonzero(bucket & np.uint64(_U32) == name & _U32)
        if len(known):
            slots[i] = int(bucket[known[-1]]) >> 32
    return slots
