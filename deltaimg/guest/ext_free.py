# SPDX-License-Identifier: Apache-2.0
"""Which blocks of ext2, ext3 and ext4 are free.

    rule   The file system was unmounted in order, or frozen (fsfreeze): its journal need not be replayed, and it has no errors.
           Every feature that it has is known here. Of each group the descriptor and the bitmap have the right checksums, where
           the file system keeps such, and as many free bits as the descriptor counts.
           Free is then what the bitmap says, but for all that holds superblocks, descriptors, bitmaps and inode tables of any
           group. A group whose bitmap was never written (BLOCK_UNINIT) has nothing else.

A group that breaks the rule is kept as a whole; a superblock that does keeps everything.

Memory  one batch of bitmaps; 16 bytes a free extent.
Source  Documentation/filesystems/ext4 of Linux: "Block and Inode Bitmaps", "Group Descriptors", "Checksums".
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import find_stretches
from deltaimg.guest.crc32c import START, find_sum, update_sums
from deltaimg.guest.ext import SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET
from deltaimg.guest.free_blocks import FreeBlocks
from deltaimg.guest.window import Window
from deltaimg.image.extents import NO_BOUNDS, Bounds, merge_bounds

_CLEAN, _ERRORS = 1, 2
_RECOVER, _META_BG, _64BIT, _CSUM_SEED = 0x4, 0x10, 0x80, 0x2000
_KNOWN_INCOMPATIBLE = (
    0x2 | _META_BG | 0x40 | _64BIT | 0x100 | 0x200 | 0x400 | _CSUM_SEED | 0x4000 | 0x8000 | 0x10000 | 0x20000
)
"""File types, meta block groups, extents, 64 bits, mount protection, flexible groups, attributes in inodes, checksum seed,
large folders, inline data, encryption, folded names."""
_SPARSE_SUPER, _GDT_CSUM, _BIGALLOC, _METADATA_CSUM = 0x1, 0x10, 0x200, 0x400
_KNOWN_RO_COMPATIBLE = (
    0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200 | 0x400 | 0x1000 | 0x2000 | 0x8000 | 0x10000
)
_SPARSE_SUPER_2 = 0x200
_BLOCK_UNINIT = 0x2
_GROUPS_AT_ONCE = 256
_MOST_GROUPS = 1 << 22
_MIN_DESCRIPTOR, _WIDE_DESCRIPTOR = 32, 64

Numbers = npt.NDArray[np.int64]
Octets = npt.NDArray[np.uint8]


class _Superblock(Struct, frozen=True):
    blocks: int
    first_block: int
    block_bytes: int
    blocks_per_group: int
    clusters_per_group: int
    cluster_blocks: int
    inode_table_blocks: int
    descriptor_bytes: int
    reserved_descriptor_blocks: int
    first_meta_group: int
    backup_groups: tuple[int, int]
    compatible: int
    incompatible: int
    ro_compatible: int
    seed: int
    uuid: bytes

    @property
    def groups(self) -> int:
        return -(-(self.blocks - self.first_block) // self.blocks_per_group)

    @property
    def descriptors_per_block(self) -> int:
        return self.block_bytes // self.descriptor_bytes

    @property
    def has_meta_groups(self) -> bool:
        return bool(self.incompatible & _META_BG)

    def find_first(self, group: int) -> int:
        """Return the first block of a group."""
        return self.first_block + group * self.blocks_per_group

    def has_superblock(self, group: int) -> bool:
        """Return whether a group begins with a superblock."""
        if self.compatible & _SPARSE_SUPER_2:
            return group == 0 or group in self.backup_groups
        if group <= 1 or not self.ro_compatible & _SPARSE_SUPER:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))


def find_free(window: Window) -> FreeBlocks | str:
    """Return which bytes of the ext file system in a window are free, or why that is not known.

    Raises one of NOT_RECOGNISED where its structures make no sense; and what reads raise.
    """
    raw = window.read(SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES)
    if problem := _find_problem(raw):
        return problem
    sb = _parse_superblock(raw)
    if not 0 < sb.groups <= _MOST_GROUPS or sb.blocks * sb.block_bytes > window.size_bytes:
        return "its superblock makes no sense"
    descriptors = _read_descriptors(window, sb)
    metadata = _find_metadata(sb, descriptors)
    parts, kept = [], 0
    for first in range(0, sb.groups, _GROUPS_AT_ONCE):
        free, wrong = _find_free_in_groups(window, sb, descriptors[first : first + _GROUPS_AT_ONCE], first, metadata)
        parts.append(free)
        kept += wrong
    return FreeBlocks(merge_bounds(np.concatenate(parts)) if parts else NO_BOUNDS, kept)


def _find_problem(raw: bytes) -> str | None:
    """Return why a file system's free blocks are not known, by its superblock alone."""
    (state,) = struct.unpack_from("<H", raw, 58)
    _, incompatible, ro_compatible = struct.unpack_from("<3I", raw, 92)
    if incompatible & _RECOVER:
        return "its journal is to be replayed: it is mounted, or was not unmounted"
    if not state & _CLEAN or state & _ERRORS:
        return "it was not unmounted in order, or has errors"
    if incompatible & ~_KNOWN_INCOMPATIBLE or ro_compatible & ~_KNOWN_RO_COMPATIBLE:
        return "it has features that are not known here"
    if ro_compatible & _METADATA_CSUM and struct.unpack_from("<I", raw, 1020)[0] != find_sum(raw[:1020]):
        return "the checksum of its superblock is wrong"
    return None


def _parse_superblock(raw: bytes) -> _Superblock:
    """Return the fields of a superblock that are needed; raises ValueError where they make no sense."""
    (
        inodes,
        blocks,
        _,
        _,
        _,
        first_block,
        block_shift,
        cluster_shift,
        per_group,
        clusters_per_group,
        inodes_per_group,
    ) = struct.unpack_from("<11I", raw)
    compatible, incompatible, ro_compatible = struct.unpack_from("<3I", raw, 92)
    (inode_bytes,) = struct.unpack_from("<H", raw, 88)
    (reserved,) = struct.unpack_from("<H", raw, 206)
    (descriptor_bytes,) = struct.unpack_from("<H", raw, 254)
    (first_meta_group,) = struct.unpack_from("<I", raw, 260)
    backup_groups = struct.unpack_from("<II", raw, 588)
    if incompatible & _64BIT:
        blocks |= struct.unpack_from("<I", raw, 336)[0] << 32
    else:
        descriptor_bytes = _MIN_DESCRIPTOR
    block_bytes = 1024 << block_shift
    cluster_blocks = 1 << (cluster_shift - block_shift) if ro_compatible & _BIGALLOC else 1
    if not ro_compatible & _BIGALLOC:
        clusters_per_group = per_group
    is_sane = (
        block_shift <= 6 and inodes and first_block == (block_bytes == 1024 and cluster_blocks == 1)
        and 0 < clusters_per_group <= 8 * block_bytes and clusters_per_group % 8 == 0
        and per_group == clusters_per_group * cluster_blocks
        and _MIN_DESCRIPTOR <= descriptor_bytes <= 1024 and not descriptor_bytes & (descriptor_bytes - 1)
        and blocks > first_block and 0 < inodes_per_group <= 8 * block_bytes and 128 <= inode_bytes <= block_bytes
    )  # fmt: skip
    if not is_sane:
        raise ValueError("a superblock that makes no sense")
    (seed,) = struct.unpack_from("<I", raw, 624) if incompatible & _CSUM_SEED else (find_sum(raw[104:120]),)
    return _Superblock(
        blocks=blocks,
        first_block=first_block,
        block_bytes=block_bytes,
        blocks_per_group=per_group,
        clusters_per_group=clusters_per_group,
        cluster_blocks=cluster_blocks,
        inode_table_blocks=-(-inodes_per_group * inode_bytes // block_bytes),
        descriptor_bytes=descriptor_bytes,
        reserved_descriptor_blocks=reserved,
        first_meta_group=first_meta_group,
        backup_groups=backup_groups,
        compatible=compatible,
        incompatible=incompatible,
        ro_compatible=ro_compatible,
        seed=seed,
        uuid=raw[104:120],
    )


def _read_descriptors(window: Window, sb: _Superblock) -> Octets:
    """Return the descriptors of all groups, shape (groups, bytes)."""
    per_block, wanted = sb.descriptors_per_block, -(-sb.groups // sb.descriptors_per_block)
    parts, plain = [], wanted
    if sb.has_meta_groups:
        plain = min(wanted, sb.first_meta_group)
    superblock_at = sb.first_block if sb.block_bytes > 1024 or sb.first_block else 1
    if plain:
        parts.append(window.read((superblock_at + 1) * sb.block_bytes, plain * sb.block_bytes))
    for meta_group in range(plain, wanted):
        group = meta_group * per_block
        place = sb.find_first(group) + sb.has_superblock(group)
        parts.append(window.read(place * sb.block_bytes, sb.block_bytes))
    raw = b"".join(parts)[: sb.groups * sb.descriptor_bytes]
    return np.frombuffer(raw, np.uint8).reshape(sb.groups, sb.descriptor_bytes)


def _find_metadata(sb: _Superblock, descriptors: Octets) -> Bounds:
    """Return the blocks, as [first, end), that hold what the file system itself needs, whatever bitmaps say."""
    block_maps, inode_maps, tables = (_join(sb, descriptors, low, high) for low, high in ((0, 32), (4, 36), (8, 40)))
    fixed = np.concatenate(
        (
            np.stack((block_maps, block_maps + 1), axis=1),
            np.stack((inode_maps, inode_maps + 1), axis=1),
            np.stack((tables, tables + sb.inode_table_blocks), axis=1),
        )
    )
    firsts = sb.first_block + np.arange(sb.groups) * sb.blocks_per_group
    leading = np.array([_count_leading_blocks(sb, group) for group in range(sb.groups)], np.int64)
    first = np.array([(0, sb.first_block + 1)], np.int64)
    return merge_bounds(np.concatenate((fixed, first, np.stack((firsts, firsts + leading), axis=1))))


def _count_leading_blocks(sb: _Superblock, group: int) -> int:
    """Return how many blocks at the beginning of a group hold superblock and descriptors."""
    per_block, has_superblock = sb.descriptors_per_block, sb.has_superblock(group)
    if sb.has_meta_groups and group // per_block >= sb.first_meta_group:
        return has_superblock + (group % per_block in (0, 1, per_block - 1))
    of_all = sb.first_meta_group if sb.has_meta_groups else -(-sb.groups // per_block)
    return has_superblock * (1 + of_all + sb.reserved_descriptor_blocks)


def _find_free_in_groups(
    window: Window, sb: _Superblock, descriptors: Octets, first_group: int, metadata: Bounds
) -> tuple[Bounds, int]:
    """Return the free bytes of some groups that follow each other, and how many of these are kept as they are not right."""
    groups = first_group + np.arange(len(descriptors))
    firsts = sb.first_block + groups * sb.blocks_per_group
    lengths = np.minimum(sb.blocks_per_group, sb.blocks - firsts)
    clusters = -(-lengths // sb.cluster_blocks)
    flags = descriptors[:, 18:20].copy().view("<u2")[:, 0]
    is_uninit = (flags & _BLOCK_UNINIT != 0) & bool(sb.ro_compatible & (_GDT_CSUM | _METADATA_CSUM))
    bitmaps = np.zeros((len(groups), sb.clusters_per_group // 8), np.uint8)
    places = _join(sb, descriptors, 0, 32)
    for number in np.flatnonzero(~is_uninit).tolist():
        raw = window.read(int(places[number]) * sb.block_bytes, bitmaps.shape[1])
        bitmaps[number] = np.frombuffer(raw, np.uint8)
    is_free = np.unpackbits(bitmaps, axis=1, bitorder="little") == 0
    is_free &= np.arange(sb.clusters_per_group) < clusters[:, None]
    counted = descriptors[:, 12:14].copy().view("<u2")[:, 0].astype(np.int64)
    if sb.descriptor_bytes >= _WIDE_DESCRIPTOR:
        counted |= descriptors[:, 44:46].copy().view("<u2")[:, 0].astype(np.int64) << 16
    is_right = _have_right_sums(sb, descriptors, groups)
    is_right &= is_uninit | ((is_free.sum(axis=1) == counted) & _have_right_bitmap_sums(sb, descriptors, bitmaps))
    is_free &= is_right[:, None]
    is_free_block = np.repeat(is_free, sb.cluster_blocks, axis=1)
    first = int(firsts[0])
    flat = is_free_block.ravel()
    is_here = (metadata[:, 1] > first) & (metadata[:, 0] < first + len(flat))
    for start, end in np.clip(metadata[is_here] - first, 0, len(flat)).tolist():
        flat[start:end] = False
    found: Bounds = np.minimum(find_stretches(flat) + first, sb.blocks) * sb.block_bytes
    return found, int((~is_right).sum())


def _have_right_sums(sb: _Superblock, descriptors: Octets, groups: Numbers) -> npt.NDArray[np.bool_]:
    """Return of which groups the descriptor has the right checksum, where it has one."""
    found = descriptors[:, 30:32].copy().view("<u2")[:, 0]
    numbers = groups.astype("<u4").view(np.uint8).reshape(-1, 4)
    if sb.ro_compatible & _METADATA_CSUM:
        blank = descriptors.copy()
        blank[:, 30:32] = 0
        sums = update_sums(np.full(len(groups), sb.seed, np.uint32), np.concatenate((numbers, blank), axis=1))
        right: npt.NDArray[np.bool_] = (sums & 0xFFFF) == found
        return right
    if sb.ro_compatible & _GDT_CSUM:
        uuid = np.broadcast_to(np.frombuffer(sb.uuid, np.uint8), (len(groups), 16))
        covered = np.concatenate((uuid, numbers, descriptors[:, :30], descriptors[:, 32:]), axis=1)
        sums_of_old = np.array([_find_crc16(each.tobytes()) for each in covered], np.uint16)
        is_equal: npt.NDArray[np.bool_] = sums_of_old == found
        return is_equal
    return np.ones(len(groups), np.bool_)


def _have_right_bitmap_sums(sb: _Superblock, descriptors: Octets, bitmaps: Octets) -> npt.NDArray[np.bool_]:
    """Return of which groups the bitmap has the right checksum, where it has one."""
    if not sb.ro_compatible & _METADATA_CSUM:
        return np.ones(len(bitmaps), np.bool_)
    found, mask = descriptors[:, 24:26].copy().view("<u2")[:, 0].astype(np.uint32), 0xFFFF
    if sb.descriptor_bytes >= _WIDE_DESCRIPTOR:
        found |= descriptors[:, 56:58].copy().view("<u2")[:, 0].astype(np.uint32) << 16
        mask = START
    right: npt.NDArray[np.bool_] = (update_sums(np.full(len(bitmaps), sb.seed, np.uint32), bitmaps) & mask) == found
    return right


def _join(sb: _Superblock, descriptors: Octets, low: int, high: int) -> Numbers:
    """Return a block number of each descriptor; raises ValueError where one is not of the file system."""
    numbers = descriptors[:, low : low + 4].copy().view("<u4")[:, 0].astype(np.int64)
    if sb.descriptor_bytes >= _WIDE_DESCRIPTOR:
        numbers |= descriptors[:, high : high + 4].copy().view("<u4")[:, 0].astype(np.int64) << 32
    if len(numbers) and not ((numbers > 0) & (numbers < sb.blocks)).all():
        raise ValueError("a block that is not of the file system")
    return numbers


def _find_crc16(content: bytes) -> int:
    """Return the CRC-16 (polynomial 0x8005, reflected) that group descriptors had before CRC-32C."""
    value = 0xFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0xA001 if value & 1 else 0)
    return value


def _is_power(number: int, base: int) -> bool:
    while number > 1 and number % base == 0:
        number //= base
    return number == 1
