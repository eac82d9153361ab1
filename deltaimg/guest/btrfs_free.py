# SPDX-License-Identifier: Apache-2.0
"""Which bytes of a btrfs are free.

    rule   It is on one device, keeps CRC-32C, has no log to be replayed, and every feature that it has is known here. The
           superblock and tree blocks have the right checksums, places, owners and generations. Its chunks are `single` or
           `DUP`. Free is what no chunk takes, but for the first MiB and the copies of the superblock; and of each chunk what
           the extent tree does not list, if that lists as many bytes of it as the chunk's block group counts.

A block group that breaks the rule is kept as a whole; anything else that does keeps everything. It need not be unmounted: what
a commit made is complete, and what was written since is reached by a log alone. (What older superblocks reached, which
`-o rescue=usebackuproot` tries, may be gone, as with discards.)

Memory  the chunks; 24 bytes an extent, and 16 a free one; a thousand tree blocks.
Source  "On-disk format" of the btrfs documentation; include/uapi/linux/btrfs_tree.h of Linux.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from deltaimg.guest.crc32c import START, update_sums
from deltaimg.guest.free_blocks import FreeBlocks
from deltaimg.guest.window import Window
from deltaimg.image.extents import Bounds, merge_bounds, subtract_bounds

_SUPER_OFFSETS, _SUPER_BYTES, _SUPER_ROOM = (64 << 10, 64 << 20, 256 << 30), 4096, 64 << 10
_RESERVED_BYTES = 1 << 20
"""At the start of the device, for boot loaders."""
_HEADER_BYTES, _CHUNK_BYTES, _STRIPE_BYTES = 101, 48, 32
_ITEM = np.dtype([("object", "<u8"), ("type", "u1"), ("offset", "<u8"), ("data", "<u4"), ("size", "<u4")])
_POINTER = np.dtype([("object", "<u8"), ("type", "u1"), ("offset", "<u8"), ("block", "<u8"), ("generation", "<u8")])
_ROOT_ITEM, _EXTENT, _METADATA, _GROUP, _CHUNK = 132, 168, 169, 192, 228
_ROOT_TREE, _EXTENT_TREE, _CHUNK_TREE, _GROUP_TREE = 1, 2, 3, 11
_KNOWN_INCOMPATIBLE = 0x77F
"""All up to 0x400 but RAID5 and 6: what files and names may be, sizes of blocks, a second UUID."""
_SECOND_UUID, _HAS_GROUP_TREE, _KNOWN_RO_COMPATIBLE = 0x400, 0x8, 0xF
_KNOWN_FLAGS = 0x3
"""WRITTEN and RELOC; not that it is a seed, being changed, or a dump of metadata."""
_DUP, _PROFILES = 0x20, 0x7F8
_MOST_LEVEL = 7
_BATCH = 1024


class _Chunk(Struct, frozen=True):
    """A stretch of logical addresses, and where it is on the device: once, or twice."""

    start: int
    length: int
    places: tuple[int, ...]


def _start_of(chunk: _Chunk) -> int:
    return chunk.start


class _TreeRoot(Struct, frozen=True):
    owner: int
    block: int
    level: int
    generation: int


class _Volume(Struct):
    """A btrfs, as far as its superblock and its chunks say."""

    window: Window
    uuid: bytes
    device: int
    total_bytes: int
    node_bytes: int
    sector_bytes: int
    chunks: list[_Chunk] = field(default_factory=list)
    """By where they start."""
    blocks_read: int = 0

    def place_of(self, block: int) -> int:
        """Return where a tree block is on the device; raises ValueError."""
        number = bisect_right(self.chunks, block, key=_start_of) - 1
        _check(number >= 0)
        chunk = self.chunks[number]
        _check(block <= chunk.start + chunk.length - self.node_bytes)
        return chunk.places[0] + block - chunk.start

    def add(self, chunk: _Chunk) -> None:
        """Add a chunk; one that is there already must be the same. Raises ValueError."""
        number = bisect_left(self.chunks, chunk.start, key=_start_of)
        if number < len(self.chunks) and self.chunks[number].start == chunk.start:
            _check(self.chunks[number] == chunk)
        else:
            self.chunks.insert(number, chunk)


def find_free(window: Window) -> FreeBlocks | str:
    """Return which bytes of the btrfs in a window are free, or why that is not known.

    Raises one of NOT_RECOGNISED where its structures make no sense; and what reads raise.
    """
    raw = window.read(_SUPER_OFFSETS[0], _SUPER_BYTES)
    if problem := _find_problem(raw):
        return problem
    volume = _read_superblock(window, raw)
    generation, root, chunk_root = struct.unpack_from("<QQQ", raw, 72)
    (chunk_generation,) = struct.unpack_from("<Q", raw, 164)
    if problem := _read_chunk_array(volume, raw):
        return problem
    for items, leaf in _walk(volume, _TreeRoot(_CHUNK_TREE, chunk_root, raw[199], chunk_generation)):
        for item in items[items["type"] == _CHUNK]:
            if problem := _add_chunk(volume, int(item["offset"]), _data_of(leaf, item)):
                return problem
    trees = _find_trees(volume, _TreeRoot(_ROOT_TREE, root, raw[198], generation))
    has_group_tree = bool(struct.unpack_from("<Q", raw, 180)[0] & _HAS_GROUP_TREE)
    used, groups = _read_extents(volume, trees[_EXTENT_TREE])
    if has_group_tree:
        groups = _read_extents(volume, trees[_GROUP_TREE])[1]
    return _subtract(volume, used, groups)


def _find_problem(raw: bytes) -> str | None:
    """Return why nothing is known of what is free, by the superblock."""
    place, flags = struct.unpack_from("<QQ", raw, 48)
    (log_root,), (devices,) = struct.unpack_from("<Q", raw, 96), struct.unpack_from("<Q", raw, 136)
    ro_compatible, incompatible, sums = struct.unpack_from("<QQH", raw, 180)
    if sums != 0:
        return "its checksums are of a kind that is not known here"
    if place != _SUPER_OFFSETS[0] or not _are_right(np.frombuffer(raw, np.uint8).reshape(1, -1)):
        return "its superblock is damaged"
    if devices != 1:
        return "it is on several devices"
    if flags & ~_KNOWN_FLAGS or incompatible & ~_KNOWN_INCOMPATIBLE or ro_compatible & ~_KNOWN_RO_COMPATIBLE:
        return "it has features that are not known here"
    return "its log must be replayed" if log_root else None


def _read_superblock(window: Window, raw: bytes) -> _Volume:
    sector_bytes, node_bytes = struct.unpack_from("<II", raw, 144)
    device, total_bytes = struct.unpack_from("<QQ", raw, 201)
    _check(512 <= sector_bytes <= node_bytes <= 65536 and not node_bytes & (node_bytes - 1))
    _check(_RESERVED_BYTES < total_bytes <= window.size_bytes)
    has_second = struct.unpack_from("<Q", raw, 188)[0] & _SECOND_UUID
    return _Volume(window, raw[571:587] if has_second else raw[32:48], device, total_bytes, node_bytes, sector_bytes)


def _read_chunk_array(volume: _Volume, raw: bytes) -> str | None:
    """Add the chunks that the chunk tree is in; return and raise as `_add_chunk`."""
    (length,) = struct.unpack_from("<I", raw, 160)
    _check(length <= 2048)
    position, end = 811, 811 + length
    while position < end:
        _, kind, start = struct.unpack_from("<QBQ", raw, position)
        (stripes,) = struct.unpack_from("<H", raw, position + 17 + 44)
        size = _CHUNK_BYTES + stripes * _STRIPE_BYTES
        _check(kind == _CHUNK and position + 17 + size <= end)
        if problem := _add_chunk(volume, start, raw[position + 17 : position + 17 + size]):
            return problem
        position += 17 + size
    return None


def _add_chunk(volume: _Volume, start: int, raw: bytes) -> str | None:
    """Add a chunk; return why it is not known how it lies on the device. Raises ValueError where it makes no sense."""
    length, _, _, kind = struct.unpack_from("<QQQQ", raw)
    (stripes,) = struct.unpack_from("<H", raw, 44)
    if kind & _PROFILES & ~_DUP or stripes != (2 if kind & _DUP else 1):
        return "it is a RAID"
    _check(len(raw) == _CHUNK_BYTES + stripes * _STRIPE_BYTES and 0 < length <= volume.total_bytes)
    _check(start % volume.sector_bytes == length % volume.sector_bytes == 0 and start + length < 1 << 62)
    found = [struct.unpack_from("<QQ", raw, _CHUNK_BYTES + number * _STRIPE_BYTES) for number in range(stripes)]
    _check(all(device == volume.device and place <= volume.total_bytes - length for device, place in found))
    volume.add(_Chunk(start, length, tuple(place for _, place in found)))
    return None


def _find_trees(volume: _Volume, root: _TreeRoot) -> dict[int, _TreeRoot]:
    """Return where the trees of extents and of block groups are; raises ValueError, KeyError later where there is none."""
    found = {}
    for items, leaf in _walk(volume, root):
        for item in items[(items["type"] == _ROOT_ITEM) & np.isin(items["object"], (_EXTENT_TREE, _GROUP_TREE))]:
            raw, owner = _data_of(leaf, item), int(item["object"])
            (generation,), (block,) = struct.unpack_from("<Q", raw, 160), struct.unpack_from("<Q", raw, 176)
            found[owner] = _TreeRoot(owner, block, raw[238], generation)
    _check(_EXTENT_TREE in found)
    return found


def _read_extents(volume: _Volume, root: _TreeRoot) -> tuple[Bounds, dict[int, tuple[int, int]]]:
    """Return the extents that a tree lists, by logical address, and length and used bytes of each block group in it."""
    parts, groups = [np.empty((0, 2), np.int64)], {}
    for items, leaf in _walk(volume, root):
        is_tree_block = items["type"] == _METADATA
        extents = items[is_tree_block | (items["type"] == _EXTENT)]
        _check(bool((extents["object"] < 1 << 62).all()))
        starts, lengths = extents["object"].astype(np.int64), extents["offset"].copy()
        lengths[extents["type"] == _METADATA] = volume.node_bytes
        _check(bool(((lengths > 0) & (lengths <= volume.total_bytes)).all()))
        parts.append(np.stack((starts, starts + lengths.astype(np.int64)), axis=1))
        for item in items[items["type"] == _GROUP]:
            groups[int(item["object"])] = int(item["offset"]), struct.unpack_from("<Q", _data_of(leaf, item))[0]
    used = np.concatenate(parts)
    _check(bool((used[1:, 0] >= used[:-1, 1]).all()))
    return used, groups


def _subtract(volume: _Volume, used: Bounds, groups: dict[int, tuple[int, int]]) -> FreeBlocks:
    """Return what is free on the device; raises ValueError where chunks overlap, or something is used outside of them."""
    chunks = volume.chunks
    _check(all(each.start + each.length <= after.start for each, after in pairwise(chunks)))
    taken = sorted((place, place + each.length) for each in chunks for place in each.places)
    _check(all(end <= start for (_, end), (start, _) in pairwise(taken)))
    kept, covered = 0, 0
    free = [_fill_gaps(np.array(taken, np.int64).reshape(-1, 2), _RESERVED_BYTES, volume.total_bytes)]
    for chunk in chunks:
        first, last = np.searchsorted(used[:, 0], (chunk.start, chunk.start + chunk.length))
        inside = used[first:last]
        covered += len(inside)
        _check(not len(inside) or int(inside[-1, 1]) <= chunk.start + chunk.length)
        if groups.get(chunk.start) != (chunk.length, int((inside[:, 1] - inside[:, 0]).sum())):
            kept += 1
            continue
        gaps = _fill_gaps(inside, chunk.start, chunk.start + chunk.length)
        free += [gaps - chunk.start + place for place in chunk.places]
    _check(covered == len(used))
    superblocks = np.array([(each, each + _SUPER_ROOM) for each in _SUPER_OFFSETS], np.int64)
    return FreeBlocks(subtract_bounds(merge_bounds(np.concatenate(free)), superblocks), kept)


def _fill_gaps(taken: Bounds, start: int, end: int) -> Bounds:
    """Return what lies between [start, end) and not in `taken`, which is in order."""
    starts, ends = np.append(taken[:, 0], end), np.insert(taken[:, 1], 0, start)
    return np.stack((np.maximum(ends, start), starts), axis=1)[starts > np.maximum(ends, start)]


def _walk(volume: _Volume, root: _TreeRoot) -> Iterator[tuple[npt.NDArray[np.void], bytes]]:
    """Yield the items and the bytes of each leaf of a tree, in order; raises ValueError."""
    _check(root.level <= _MOST_LEVEL)
    wanted = np.array([(0, 0, 0, root.block, root.generation)], _POINTER)
    for level in range(root.level, 0, -1):
        nodes = [raw for batch in _read_in_batches(volume, wanted, root.owner, level) for raw in batch]
        wanted = np.concatenate([_read_array(raw, _POINTER) for raw in nodes])
        _check_order(wanted)
    end = (-1, -1, -1)
    for batch in _read_in_batches(volume, wanted, root.owner, 0):
        for raw in batch:
            items = _read_array(raw, _ITEM)
            _check_order(items)
            if len(items):
                _check(end < _key_of(items[0]))
                end = _key_of(items[-1])
            yield items, raw


def _read_in_batches(
    volume: _Volume, wanted: npt.NDArray[np.void], owner: int, level: int
) -> Iterator[tuple[bytes, ...]]:
    """Yield some tree blocks at a time, all of which are what a tree wants there; raises ValueError."""
    for first in range(0, len(wanted), _BATCH):
        batch = wanted[first : first + _BATCH]
        volume.blocks_read += len(batch)
        # Two trees never share a block here, so that this ends.
        _check(volume.blocks_read <= volume.total_bytes // volume.node_bytes)
        found = tuple(volume.window.read(volume.place_of(int(each)), volume.node_bytes) for each in batch["block"])
        _check(_are_right(np.frombuffer(b"".join(found), np.uint8).reshape(len(found), -1)))
        for raw, pointer in zip(found, batch, strict=True):
            (block,) = struct.unpack_from("<Q", raw, 48)
            generation, its_owner, _, its_level = struct.unpack_from("<QQIB", raw, 80)
            expected = int(pointer["block"]), int(pointer["generation"]), owner, level
            _check(raw[32:48] == volume.uuid and (block, generation, its_owner, its_level) == expected)
        yield found


def _read_array(raw: bytes, kind: np.dtype[np.void]) -> npt.NDArray[np.void]:
    (count,) = struct.unpack_from("<I", raw, 96)
    return np.frombuffer(raw, kind, count, _HEADER_BYTES)


def _check_order(keys: npt.NDArray[np.void]) -> None:
    """Raise ValueError unless keys ascend."""
    lower, upper = keys[:-1], keys[1:]
    is_same = lower["object"] == upper["object"]
    by_type = (lower["type"] < upper["type"]) | ((lower["type"] == upper["type"]) & (lower["offset"] < upper["offset"]))
    _check(bool(((lower["object"] < upper["object"]) | (is_same & by_type)).all()))


def _key_of(item: np.void) -> tuple[int, int, int]:
    return int(item["object"]), int(item["type"]), int(item["offset"])


def _data_of(leaf: bytes, item: np.void) -> bytes:
    start, size = _HEADER_BYTES + int(item["data"]), int(item["size"])
    _check(start + size <= len(leaf))
    return leaf[start : start + size]


def _are_right(structures: npt.NDArray[np.uint8]) -> bool:
    """Return whether structures of one size, shape (count, length), have the checksums at their start."""
    stored = structures[:, :4].copy().view("<u4")[:, 0]
    sums = update_sums(np.full(len(structures), START, np.uint32), structures[:, 32:])
    return bool((~sums == stored).all())


def _check(is_right: bool) -> None:
    if not is_right:
        raise ValueError("a structure that is not right")
