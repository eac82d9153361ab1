# SPDX-License-Identifier: Apache-2.0
"""Which blocks of an XFS are free.

    rule   The file system was unmounted in order: its log ends with an unmount record. (A frozen one is dirty on purpose, so
           that a snapshot of it is recovered.) Every feature that it has is known here, and it does not ask for a repair. Of
           each allocation group the header and the tree of free extents have the right checksums, owners and places, where the
           file system keeps such; the extents are in order, within the group, and as many blocks as the header counts.
           Free is then what the tree lists. The blocks of the group's own free list are kept.

A group that breaks the rule is kept as a whole; a superblock that does keeps everything.

Memory  the tree of one allocation group; 16 bytes a free extent.
Source  XFS Algorithms & Data Structures, "Allocation Groups"; fs/xfs/libxfs/xfs_format.h of Linux.
"""

from __future__ import annotations

import struct

import numpy as np
from msgspec import Struct

from deltaimg.guest import xfs_log
from deltaimg.guest.crc32c import START, update_sums
from deltaimg.guest.free_blocks import FreeBlocks
from deltaimg.guest.window import NOT_RECOGNISED, Window
from deltaimg.guest.xfs import SUPERBLOCK_BYTES
from deltaimg.image.extents import NO_BOUNDS, Bounds, merge_bounds

_KNOWN_INCOMPATIBLE = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80
"""Types in folders, sparse inodes, a second UUID, large times, large counts of extents, exchanged ranges, parent pointers."""
_NEEDS_REPAIR, _SECOND_UUID = 0x10, 0x4
_KNOWN_RO_COMPATIBLE = 0x1 | 0x2 | 0x4 | 0x8
"""Trees of free inodes, of owners and of shared extents; counts of inode blocks."""
_MOST_GROUPS = 1 << 20
_MOST_LEVELS = 9
_NONE = 0xFFFFFFFF
_EXTENT = np.dtype([("start", ">u4"), ("count", ">u4")])


class _TreeKind(Struct, frozen=True):
    """How blocks of the tree of free extents begin."""

    magic: int
    header_bytes: int


_PLAIN, _WITH_CHECKSUMS = _TreeKind(0x41425442, 16), _TreeKind(0x41423342, 56)


class _Superblock(Struct, frozen=True):
    block_bytes: int
    blocks: int
    group_blocks: int
    groups: int
    group_bits: int
    sector_bytes: int
    log_start: int
    log_blocks: int
    has_checksums: bool
    uuid: bytes
    """Of the log."""
    metadata_uuid: bytes
    """In each structure."""

    @property
    def tree(self) -> _TreeKind:
        """How the trees of its groups are made."""
        return _WITH_CHECKSUMS if self.has_checksums else _PLAIN

    def length_of(self, group: int) -> int:
        """Return how many blocks a group has."""
        return min(self.group_blocks, self.blocks - group * self.group_blocks)

    def place_of(self, group: int, block: int) -> int:
        """Return where a block of a group is, in bytes."""
        return (group * self.group_blocks + block) * self.block_bytes


def find_free(window: Window) -> FreeBlocks | str:
    """Return which bytes of the XFS in a window are free, or why that is not known.

    Raises one of NOT_RECOGNISED where its structures make no sense; and what reads raise.
    """
    raw = window.read(0, SUPERBLOCK_BYTES)
    if problem := _find_problem(raw):
        return problem
    sb = _parse_superblock(raw)
    if not 0 < sb.groups <= _MOST_GROUPS or sb.blocks * sb.block_bytes > window.size_bytes:
        return "its superblock makes no sense"
    if not 0 < sb.length_of(sb.groups - 1) <= sb.group_blocks or sb.group_blocks > 1 << sb.group_bits:
        return "its superblock makes no sense"
    log_start = window.start + sb.place_of(sb.log_start >> sb.group_bits, sb.log_start & ((1 << sb.group_bits) - 1))
    log = Window(window.source, log_start, min(window.end, log_start + sb.log_blocks * sb.block_bytes))
    if not xfs_log.is_clean(log, sb.uuid):
        return "it is mounted, frozen, or was not unmounted in order"
    parts, kept = [NO_BOUNDS], 0
    for group in range(sb.groups):
        try:
            parts.append(_find_free_in_group(window, sb, group))
        except NOT_RECOGNISED:
            kept += 1
    return FreeBlocks(merge_bounds(np.concatenate(parts)), kept)


def _find_problem(raw: bytes) -> str | None:
    """Return why nothing is known of what is free, by the superblock."""
    version = struct.unpack_from(">H", raw, 100)[0] & 0xF
    if version not in (4, 5) or raw[126]:
        return "its version is not known here, or it is still being made"
    if not struct.unpack_from(">Q", raw, 48)[0]:
        return "its log is on another device"
    if version == 4:
        return None
    ro_compatible, incompatible = struct.unpack_from(">II", raw, 212)
    if incompatible & _NEEDS_REPAIR:
        return "it needs xfs_repair"
    if incompatible & ~_KNOWN_INCOMPATIBLE or ro_compatible & ~_KNOWN_RO_COMPATIBLE:
        return "it has features that are not known here"
    return None


def _parse_superblock(raw: bytes) -> _Superblock:
    block_bytes, blocks = struct.unpack_from(">IQ", raw, 4)
    (log_start,) = struct.unpack_from(">Q", raw, 48)
    group_blocks, groups, _, log_blocks, version, sector_bytes = struct.unpack_from(">IIIIHH", raw, 84)
    has_checksums = version & 0xF == 5
    has_second = has_checksums and bool(struct.unpack_from(">I", raw, 216)[0] & _SECOND_UUID)
    if not 512 <= sector_bytes <= block_bytes <= 65536 or sector_bytes & (sector_bytes - 1):
        raise ValueError("sizes that make no sense")
    return _Superblock(
        block_bytes=block_bytes,
        blocks=blocks,
        group_blocks=group_blocks,
        groups=groups,
        group_bits=raw[124],
        sector_bytes=sector_bytes,
        log_start=log_start,
        log_blocks=log_blocks,
        has_checksums=has_checksums,
        uuid=raw[32:48],
        metadata_uuid=raw[248:264] if has_second else raw[32:48],
    )


def _find_free_in_group(window: Window, sb: _Superblock, group: int) -> Bounds:
    """Return what is free in a group, in bytes of the file system; raises one of NOT_RECOGNISED."""
    header = window.read(sb.place_of(group, 0) + sb.sector_bytes, sb.sector_bytes)
    magic, version, number, length, root = struct.unpack_from(">4sIIII", header)
    (levels,) = struct.unpack_from(">I", header, 28)
    (free,) = struct.unpack_from(">I", header, 52)
    if (magic, version, number, length) != (b"XAGF", 1, group, sb.length_of(group)) or not 0 < levels <= _MOST_LEVELS:
        raise ValueError("no header of this group")
    if sb.has_checksums:
        _check(header[64:80] == sb.metadata_uuid)
        _check_sums([header], 216)
    blocks = _read_tree(window, sb, group, root, levels, free)
    if sb.has_checksums:
        _check_sums(blocks, 52)
    counts = [struct.unpack_from(">H", block, 6)[0] for block in blocks]
    found = np.concatenate(
        [np.frombuffer(raw, _EXTENT, count, sb.tree.header_bytes) for raw, count in zip(blocks, counts, strict=True)]
    )
    starts, lengths = found["start"].astype(np.int64), found["count"].astype(np.int64)
    ends = starts + lengths
    # The first blocks hold the headers of the group.
    headers = -(-4 * sb.sector_bytes // sb.block_bytes)
    _check(bool((lengths > 0).all()) and bool((starts >= headers).all()) and bool((ends <= length).all()))
    _check(bool((starts[1:] >= ends[:-1]).all()) and int(lengths.sum()) == free)
    return np.stack((starts, ends), axis=1) * sb.block_bytes + sb.place_of(group, 0)


def _read_tree(window: Window, sb: _Superblock, group: int, root: int, levels: int, free: int) -> list[bytes]:
    """Return the leaves of a group's tree of free extents, in order; raises one of NOT_RECOGNISED."""
    most_keys = (sb.block_bytes - sb.tree.header_bytes) // 12
    block = root
    for level in range(levels - 1, 0, -1):
        raw = _read_tree_block(window, sb, group, block, level)
        (block,) = struct.unpack_from(">I", raw, sb.tree.header_bytes + 8 * most_keys)
    leaves: list[bytes] = []
    while block != _NONE:
        # Each leaf lists a block or more, but for an empty root.
        _check(len(leaves) <= free)
        leaves.append(_read_tree_block(window, sb, group, block, 0))
        (block,) = struct.unpack_from(">I", leaves[-1], 12)
    return leaves


def _read_tree_block(window: Window, sb: _Superblock, group: int, block: int, level: int) -> bytes:
    _check(block < sb.length_of(group))
    place = sb.place_of(group, block)
    raw = window.read(place, sb.block_bytes)
    magic, its_level, _ = struct.unpack_from(">IHH", raw)
    _check((magic, its_level) == (sb.tree.magic, level))
    if sb.has_checksums:
        (its_place,), (owner,) = struct.unpack_from(">Q", raw, 16), struct.unpack_from(">I", raw, 48)
        _check((its_place * 512, owner, raw[32:48]) == (place, group, sb.metadata_uuid))
    return raw


def _check_sums(structures: list[bytes], offset: int) -> None:
    """Raise ValueError unless each of some structures of one size has the right checksum at `offset`."""
    raw = np.frombuffer(b"".join(structures), np.uint8).reshape(len(structures), -1).copy()
    stored = raw[:, offset : offset + 4].copy().view("<u4")[:, 0]
    raw[:, offset : offset + 4] = 0
    sums = update_sums(np.full(len(raw), START, np.uint32), raw)
    _check(bool((~sums == stored).all()))


def _check(is_right: bool) -> None:
    if not is_right:
        raise ValueError("a structure that is not right")
