# SPDX-License-Identifier: Apache-2.0
"""What parity objects there are, and packs computed again from them.

A group is the packs of one parity object. A shard that cannot be read, or does not have the digest in the tables, is lost;
it is computed from the rest of its stripe, as long as no more shards of it are lost than it has parity.

Memory  of all groups the names of their packs; of the one that is computed its digests, `_BATCH_BYTES` of shards or one
        stripe, and the pack that is made, twice.
Always  a recovered pack has the digest that is its name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.codec.reed_solomon import ReedSolomon
from deltaimg.errors import DeltaimgError, IntegrityError, ObjectNotFound, ParityExhausted, StoreError, StoreUnavailable
from deltaimg.format.framing import HEADER_BYTES, name_object
from deltaimg.format.pack import pack_name
from deltaimg.format.parity import (
    FRONT_BYTES,
    HEAD,
    PACK_ENTRY,
    PARITY,
    TRAILER,
    ParityLayout,
    ParityTables,
    digest_shards,
    measure_tables,
    parse_tables,
    parse_trailer,
)
from deltaimg.model import MIB
from deltaimg.repo.keys import check_size
from deltaimg.repo.repository import Repository

_BATCH_BYTES = 64 * MIB
_PIECE_BYTES = 8 * MIB


class ParityGroup(Struct, frozen=True):
    """A parity object and the packs that it protects."""

    name: str
    size_bytes: int
    layout: ParityLayout
    damaged_parts: int = 0
    """Damaged shards of its planes, and tables at either end; if that was checked."""

    @property
    def pack_bytes(self) -> int:
        """Bytes of all packs of the group."""
        return int(self.layout.pack_bytes.sum())


class ParityGroups(Struct, frozen=True, dict=True):
    """All parity objects whose tables, or their twin, can be read, in order of name; and the errors of the others."""

    groups: tuple[ParityGroup, ...]
    damage: tuple[DeltaimgError, ...]

    @cached_property
    def covering(self) -> dict[str, list[ParityGroup]]:
        """The groups that each pack is of."""
        covering: defaultdict[str, list[ParityGroup]] = defaultdict(list)
        for group in self.groups:
            for pack in group.layout.packs:
                covering[pack].append(group)
        return covering


def load_parity(repository: Repository, *, is_thorough: bool = False) -> ParityGroups:
    """Read the tables of every parity object.

    Args:
        is_thorough: read the objects whole, and count what is damaged of each.
    """
    groups, damage = [], []
    for found in list(repository.objects.list(PARITY)):
        try:
            check_size(found.name, found.size_bytes)
            tables = _load_tables(repository, found.name, found.size_bytes)
            damaged = _count_damage(repository, found.name, found.size_bytes, tables) if is_thorough else 0
            groups.append(ParityGroup(found.name, found.size_bytes, tables.layout, damaged))
        except (IntegrityError, ObjectNotFound, StoreUnavailable) as error:
            damage.append(error)
    return ParityGroups(tuple(groups), tuple(damage))


def list_protected(repository: Repository, name: str, size_bytes: int) -> tuple[str, ...]:
    """Return the packs that a parity object protects, having read no more than its head and their names.

    These are not verified: only a reader of the whole object can. Raises as `parse_tables` for a head that is absurd.
    """
    front = repository.objects.get_range(name, 0, FRONT_BYTES)
    measure_tables(name, front, size_bytes)
    pack_count: int = HEAD.unpack(front[HEADER_BYTES:])[0]
    entries = repository.objects.get_range(name, FRONT_BYTES, pack_count * PACK_ENTRY.itemsize)
    return tuple(row["digest"].tobytes().hex() for row in np.frombuffer(entries, PACK_ENTRY))


def _load_tables(repository: Repository, name: str, size_bytes: int) -> ParityTables:
    try:
        return _tables_at(repository, name, 0, size_bytes)
    except (IntegrityError, StoreUnavailable):
        with suppress(IntegrityError):
            end = repository.objects.get_range(name, max(0, size_bytes - TRAILER.size), TRAILER.size)
            return _tables_at(repository, name, parse_trailer(name, end, size_bytes), size_bytes)
        raise


def _tables_at(repository: Repository, name: str, offset: int, size_bytes: int) -> ParityTables:
    front = repository.objects.get_range(name, offset, FRONT_BYTES)
    length = measure_tables(name, front, size_bytes)
    return parse_tables(name, repository.objects.get_range(name, offset, length), size_bytes)


def _count_damage(repository: Repository, name: str, size_bytes: int, tables: ParityTables) -> int:
    """Return how many shards of the planes, tables at either end, and trailers of an object are damaged."""
    twin_offset = tables.planes_offset + tables.parity_bytes
    damaged = sum(not _has_tables(repository, name, offset, size_bytes) for offset in (0, twin_offset))
    damaged += not _has_trailer(repository, name, size_bytes, tables)
    step = max(1, _PIECE_BYTES // tables.shard_bytes)
    for first in range(0, tables.parity_shards, step):
        expected = tables.digests[tables.data_shards + first :][: min(step, tables.parity_shards - first)]
        content = bytearray(len(expected) * tables.shard_bytes)
        with suppress(StoreUnavailable):
            found = repository.objects.get_range(name, tables.planes_offset + first * tables.shard_bytes, len(content))
            content[: len(found)] = found
        damaged += int(np.any(digest_shards(content, tables.shard_bytes) != expected, axis=1).sum())
    return damaged


def _has_trailer(repository: Repository, name: str, size_bytes: int, tables: ParityTables) -> bool:
    """Return whether a parity object ends correctly and at the right offset."""
    offset = 2 * tables.planes_offset + tables.parity_bytes
    if size_bytes != offset + TRAILER.size:
        return False
    try:
        end = repository.objects.get_range(name, offset, TRAILER.size)
        return parse_trailer(name, end, size_bytes) == offset - tables.planes_offset
    except (IntegrityError, StoreUnavailable):
        return False


def _has_tables(repository: Repository, name: str, offset: int, size_bytes: int) -> bool:
    """Return whether there are good tables at an offset of a parity object."""
    try:
        _tables_at(repository, name, offset, size_bytes)
    except (IntegrityError, StoreUnavailable):
        return False
    return True


def recover_pack(repository: Repository, pack: str, parity: ParityGroups | None = None) -> bytes | None:
    """Return the bytes of a damaged or missing pack, or None where no parity covers it.

    Args:
        pack: its digest as 64 hexadecimal digits.
        parity: from `load_parity`, when more than one pack is recovered.

    Raises:
        ParityExhausted: parity covers it, and too much is lost.
        ParityUnusable: the library that computes is not installed.
    """
    exhausted = None
    for group in (parity or load_parity(repository)).covering.get(pack, ()):
        try:
            return GroupReader(repository, group).recover(pack)
        except ParityExhausted as error:
            exhausted = error
        except (IntegrityError, StoreError) as error:
            # It was readable when all groups were listed: it was deleted since, or the disk fails.
            exhausted = ParityExhausted(pack_name(pack), 0, f"its parity cannot be read: {error}")
    if exhausted is not None:
        raise exhausted
    return None


class GroupReader:
    """Reads shards of a group by number, and computes those that are lost."""

    def __init__(self, repository: Repository, group: ParityGroup) -> None:
        self._objects, self._name = repository.objects, group.name
        self._tables = tables = _load_tables(repository, group.name, group.size_bytes)
        self._pack_ends = np.cumsum(tables.pack_shards)
        self._code = ReedSolomon(tables.data_columns, tables.parity_columns)

    def recover(self, pack: str) -> bytes:
        """Return the bytes of a pack of this group, recovered where needed; raises ParityExhausted."""
        tables = self._tables
        place = tables.packs.index(pack)
        first, end = int(self._pack_ends[place] - tables.pack_shards[place]), int(self._pack_ends[place])
        content, is_good = self._read_data(first, end - first)
        lost = np.flatnonzero(~is_good) + first
        lost_of: defaultdict[int, list[int]] = defaultdict(list)
        for number in lost.tolist():
            lost_of[number % tables.stripe_count].append(number // tables.stripe_count)
        for start, count in self._batches(sorted(lost_of)):
            for number, shard in self._solve(pack, lost_of, start, count):
                at = (number - first) * tables.shard_bytes
                content[at : at + tables.shard_bytes] = shard
        whole = bytes(memoryview(content)[: int(tables.pack_bytes[place])])
        if name_object([whole]) != pack:
            raise ParityExhausted(pack_name(pack), 0, f"{self._name} recovers bytes that do not match its name")
        return whole

    def _batches(self, stripes: list[int]) -> Iterator[tuple[int, int]]:
        """Yield ascending stripes as runs, each short enough to be held in memory."""
        tables = self._tables
        stripe_bytes = (tables.data_columns + tables.parity_columns) * tables.shard_bytes
        longest = max(1, _BATCH_BYTES // stripe_bytes)
        start = count = 0
        for stripe in stripes:
            if count and (stripe != start + count or count == longest):
                yield start, count
                count = 0
            if not count:
                start = stripe
            count += 1
        if count:
            yield start, count

    def _solve(
        self, pack: str, lost_of: Mapping[int, list[int]], first_stripe: int, count: int
    ) -> Iterator[tuple[int, bytearray]]:
        """Yield the number and content of each lost shard in stripes [first_stripe, first_stripe + count).

        Args:
            lost_of: the columns of the lost shards of each stripe, ascending.
        """
        tables = self._tables
        width = tables.data_columns + tables.parity_columns
        columns = [self._read_column(number, first_stripe, count) for number in range(width)]
        for row in range(count):
            stripe = first_stripe + row
            wanted = lost_of[stripe]
            good = [number for number in range(width) if number not in wanted and columns[number][1][row]]
            if len(good) < tables.data_columns:
                raise ParityExhausted(
                    pack_name(pack),
                    0,
                    f"{width - len(good)} shards of one stripe are lost, and {self._name} can recover "
                    f"{tables.parity_columns}",
                )
            at = row * tables.shard_bytes
            shards = {
                number: memoryview(columns[number][0])[at : at + tables.shard_bytes]
                for number in good[: tables.data_columns]
            }
            for column, shard in zip(wanted, self._code.recover(wanted, shards), strict=True):
                yield column * tables.stripe_count + stripe, shard

    def _read_column(self, column: int, stripe: int, count: int) -> tuple[bytearray, npt.NDArray[np.bool_]]:
        """Read shards of stripes [stripe, stripe + count) of one column, data or parity, and which of them are good."""
        tables = self._tables
        if column < tables.data_columns:
            return self._read_data(column * tables.stripe_count + stripe, count)
        first = (column - tables.data_columns) * tables.stripe_count + stripe
        offset = tables.planes_offset + first * tables.shard_bytes
        content = self._read(self._name, offset, count * tables.shard_bytes)
        return content, self._judge(content, tables.data_shards + first, count)

    def _read_data(self, first: int, count: int) -> tuple[bytearray, npt.NDArray[np.bool_]]:
        """Read data shards [first, first + count), over the bounds of packs; behind the last there are only zeroes."""
        tables = self._tables
        content = bytearray()
        end = min(first + count, tables.data_shards)
        at = first
        while at < end:
            place = int(np.searchsorted(self._pack_ends, at, side="right"))
            pack_end = int(self._pack_ends[place])
            pack_first = pack_end - int(tables.pack_shards[place])
            piece_end = min(end, pack_end)
            offset = (at - pack_first) * tables.shard_bytes
            wanted = (piece_end - at) * tables.shard_bytes
            there = min(wanted, int(tables.pack_bytes[place]) - offset)
            content += self._read(pack_name(tables.packs[place]), offset, there)
            content += bytes(wanted - there)
            at = piece_end
        is_good = np.ones(count, np.bool_)
        is_good[: max(0, end - first)] = self._judge(content, first, max(0, end - first))
        content += bytes(count * tables.shard_bytes - len(content))
        return content, is_good

    def _judge(self, content: bytearray, first: int, count: int) -> npt.NDArray[np.bool_]:
        """Return which shards of `content` have the digests in the tables, from number `first` on."""
        expected = self._tables.digests[first : first + count]
        is_good: npt.NDArray[np.bool_] = np.all(digest_shards(content, self._tables.shard_bytes) == expected, axis=1)
        return is_good

    def _read(self, name: str, offset: int, length: int) -> bytearray:
        """Return bytes of an object, with zeroes for those that cannot be read, which then fail verification."""
        content = bytearray(length)
        with suppress(ObjectNotFound):
            if not self._read_into(memoryview(content), name, offset):
                # A broken disk fails the whole read for one bad sector.
                step = self._tables.shard_bytes
                for start in range(0, length, step):
                    self._read_into(memoryview(content)[start : start + step], name, offset + start)
        return content

    def _read_into(self, room: memoryview, name: str, offset: int) -> bool:
        """Fill `room` from an object, as far as possible; return whether the store could read it."""
        try:
            found = self._objects.get_range(name, offset, len(room))
        except StoreUnavailable:
            return False
        room[: len(found)] = found
        return True
