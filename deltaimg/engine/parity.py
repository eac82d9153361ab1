# SPDX-License-Identifier: Apache-2.0
"""Protect packs by Reed-Solomon parity: see what is covered, cover what is not, remove what is of no use any more.

Reads   the tables of all parity objects, the index, and each pack that is to be covered, whole.
Memory  the planes of one object, at most 128 MiB, and a pack for each thread and two more.
Always  a new object is durable before one that it replaces is removed, and only packs whose bytes are what their names
        promise get into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import numpy as np

from deltaimg.arrays import Digests
from deltaimg.codec.reed_solomon import ReedSolomon, load_reed_solomon
from deltaimg.engine.parity_plan import PackSize, choose_shape, plan_parity
from deltaimg.engine.pipeline import OrderedPool
from deltaimg.engine.progress import NoProgress, Progress
from deltaimg.errors import DeltaimgError, ObjectNotFound, StoreUnavailable
from deltaimg.format.framing import name_object
from deltaimg.format.pack import PACKS, pack_name
from deltaimg.format.parity import PARITY, ParityTables, digest_shards, lay_out_parity, parse_tables
from deltaimg.repo.condemned import load_condemned
from deltaimg.repo.index import load_index
from deltaimg.repo.lock import MaintenanceLock
from deltaimg.repo.parity import ParityGroup, load_parity
from deltaimg.repo.repository import Repository

_WORKERS = 2


@dataclass(frozen=True, slots=True)
class GroupState:
    """One parity object, and what its packs could still lose."""

    name: str
    packs: int
    pack_bytes: int
    parity_bytes: int
    """Of the object, tables included."""
    gone_packs: int
    """Packs of it that prune removed."""
    lost_packs: int
    """Packs of it that are missing and needed."""
    survives_bytes: int
    """Damage in one place, of so many bytes, can be made good wherever it is."""
    survives_packs: int
    """So many packs may be lost as a whole, whichever they are."""
    damaged_parts: int
    """Of the object itself, where that was looked for; they make it weaker than is said above."""


@dataclass(frozen=True, slots=True)
class ParityCoverage:
    """What parity there is in a repository."""

    groups: tuple[GroupState, ...]
    covered_packs: int
    covered_bytes: int
    uncovered_packs: int
    uncovered_bytes: int
    lost: tuple[str, ...]
    """Packs that the index names and the store does not have."""
    damage: tuple[DeltaimgError, ...]
    """What was met at parity objects whose tables cannot be read."""

    @property
    def parity_bytes(self) -> int:
        return sum(group.parity_bytes for group in self.groups)


@dataclass(frozen=True, slots=True)
class ParityAdded:
    """What a run did."""

    groups: int
    packs: int
    read_bytes: int
    stored_bytes: int
    removed_groups: int
    removed_bytes: int
    damaged: tuple[str, ...]
    """Packs that cannot be read or are not what their names promise: they were left out."""
    coverage: ParityCoverage


def survey_parity(repository: Repository, *, is_thorough: bool = False) -> ParityCoverage:
    """Tell what parity there is, from listings and tables; with `is_thorough`, read all parity for damage, too."""
    needed = list_needed(repository)
    parity = load_parity(repository, is_thorough=is_thorough)
    covered = {pack for group in parity.groups for pack in group.tables.packs if needed.get(pack) is not None}
    sizes = {pack: size for pack, size in needed.items() if size is not None}
    covered_bytes = sum(sizes[pack] for pack in covered)
    return ParityCoverage(
        groups=tuple(_judge(group, needed) for group in parity.groups),
        covered_packs=len(covered),
        covered_bytes=covered_bytes,
        uncovered_packs=len(sizes) - len(covered),
        uncovered_bytes=sum(sizes.values()) - covered_bytes,
        lost=tuple(pack for pack, size in needed.items() if size is None),
        damage=parity.damage,
    )


def add_parity(
    repository: Repository,
    percent: float,
    *,
    clock: Callable[[], datetime],
    is_thorough: bool = False,
    progress: Progress | None = None,
) -> ParityAdded:
    """Cover every pack that no parity object covers, or too weak a one, by parity of `percent` of it.

    Args:
        is_thorough: read all parity that there is, and make anew what is damaged of it.

    Raises:
        ParityUnusable: the library that computes is not installed.
        RepositoryLocked: another run of this, of prune or of repair is at work.
    """
    load_reed_solomon()
    with MaintenanceLock(repository, "parity add", clock()) as lock:
        return _Adder(repository, percent, progress or NoProgress(), lock.check).run(is_thorough=is_thorough)


def list_needed(repository: Repository) -> dict[str, int | None]:
    """Return each pack that is to stay and that the index names, oldest first, with its size, None for one that is not there.

    Packs that nothing names are what an unfinished backup left; where the index is damaged, nobody knows, and all count.
    """
    index = load_index(repository)
    sizes = {found.name.rpartition("/")[2]: found.size_bytes for found in repository.store.list(PACKS)}
    named = [*dict.fromkeys(index.packs), *(sorted(sizes) if index.damage else ())]
    condemned = {pack for each in load_condemned(repository) for pack in each.packs}
    return {pack: sizes.get(pack) for pack in named if pack not in condemned}


def _judge(group: ParityGroup, needed: dict[str, int | None]) -> GroupState:
    tables = group.tables
    ends = np.cumsum(tables.pack_shards)
    erased = np.zeros(tables.stripe_count, np.int64)
    for pack, count, end in zip(tables.packs, tables.pack_shards.tolist(), ends.tolist(), strict=True):
        if needed.get(pack) is None:
            np.add.at(erased, np.arange(end - count, end) % tables.stripe_count, 1)
    left = max(0, tables.parity_columns - int(erased.max()))
    # Bytes in one place lie in one shard more than they would fill.
    survives = max(0, (left * tables.stripe_count - 1) * tables.shard_bytes + 1) if left else 0
    in_one_stripe = -(-int(tables.pack_shards.max()) // tables.stripe_count)
    return GroupState(
        name=group.name,
        packs=len(tables.packs),
        pack_bytes=group.pack_bytes,
        parity_bytes=group.size_bytes,
        gone_packs=sum(pack not in needed for pack in tables.packs),
        lost_packs=sum(pack in needed and needed[pack] is None for pack in tables.packs),
        survives_bytes=survives,
        survives_packs=left // in_one_stripe,
        damaged_parts=group.damaged_parts,
    )


class _Adder:
    """One run of `add_parity`."""

    def __init__(
        self, repository: Repository, percent: float, progress: Progress, check_lock: Callable[[], None]
    ) -> None:
        self._repository, self._percent, self._progress = repository, percent, progress
        self._check_lock = check_lock
        self._damaged: dict[str, None] = {}
        self._stored: set[str] = set()
        self._groups = self._packs = self._read_bytes = self._stored_bytes = 0

    def run(self, *, is_thorough: bool) -> ParityAdded:
        groups = load_parity(self._repository, is_thorough=is_thorough).groups
        plan = plan_parity(list_needed(self._repository), groups, self._percent)
        self._progress.start("computing parity", sum(pack.size_bytes for group in plan.groups for pack in group))
        for packs in plan.groups:
            self._protect(packs)
        # A damaged object that was made anew has its name again.
        removed = [
            group
            for group in plan.superseded
            if group.name not in self._stored and self._damaged.keys().isdisjoint(group.tables.packs)
        ]
        for group in removed:
            self._check_lock()
            self._repository.store.delete(group.name)
        return ParityAdded(
            groups=self._groups,
            packs=self._packs,
            read_bytes=self._read_bytes,
            stored_bytes=self._stored_bytes,
            removed_groups=len(removed),
            removed_bytes=sum(group.size_bytes for group in removed),
            damaged=tuple(self._damaged),
            coverage=survey_parity(self._repository),
        )

    def _protect(self, packs: Sequence[PackSize]) -> None:
        """Store a parity object for packs, those left out that turn out to be damaged."""
        while packs:
            object_parts = self._compute(packs)
            if object_parts is not None:
                self._check_lock()
                digest, size_bytes = self._repository.put_object(PARITY, object_parts)
                self._stored.add(PARITY + digest)
                self._stored_bytes += size_bytes
                self._groups += 1
                self._packs += len(packs)
                return
            packs = [pack for pack in packs if pack.digest not in self._damaged]

    def _compute(self, packs: Sequence[PackSize]) -> list[bytes | memoryview] | None:
        """Return the parity object of packs, or None once a damaged one is among them, which is remembered."""
        shape = choose_shape((pack.size_bytes for pack in packs), self._percent)
        code = ReedSolomon(shape.data_columns, shape.parity_columns)
        plane_bytes = shape.stripe_count * shape.shard_bytes
        planes = [memoryview(bytearray(plane_bytes)) for _ in range(shape.parity_columns)]
        digests: list[Digests] = []
        at = 0
        with OrderedPool(workers=_WORKERS, window=_WORKERS) as pool:
            for pack, read in zip(packs, pool.map(partial(self._read, shape.shard_bytes), packs), strict=True):
                self._progress.advance(pack.size_bytes)
                if read is None:
                    self._damaged[pack.digest] = None
                    continue
                content, pack_digests = read
                self._read_bytes += pack.size_bytes
                digests.append(pack_digests)
                _accumulate(code, content, planes, at)
                at += len(pack_digests) * shape.shard_bytes
        if not self._damaged.keys().isdisjoint(pack.digest for pack in packs):
            return None
        digests += [digest_shards(plane, shape.shard_bytes) for plane in planes]
        tables = ParityTables(
            packs=tuple(pack.digest for pack in packs),
            pack_bytes=np.array([pack.size_bytes for pack in packs], np.uint64),
            shard_bytes=shape.shard_bytes,
            stripe_count=shape.stripe_count,
            data_columns=shape.data_columns,
            parity_columns=shape.parity_columns,
            digests=np.concatenate(digests),
        )
        parts = lay_out_parity(tables, planes)
        parse_tables("the new parity object", parts[0], len(parts[0]))
        return parts

    def _read(self, shard_bytes: int, pack: PackSize) -> tuple[memoryview, Digests] | None:
        """Return a pack and the digests of its shards; None if it cannot be read or is not what its name promises."""
        try:
            data = self._repository.store.get(pack_name(pack.digest))
        except (ObjectNotFound, StoreUnavailable):
            return None
        if len(data) != pack.size_bytes or name_object([data]) != pack.digest:
            return None
        return memoryview(data), digest_shards(data, shard_bytes)


def _accumulate(code: ReedSolomon, content: memoryview, planes: Sequence[memoryview], at: int) -> None:
    """Add what stands at offset `at` of a group to its planes, column by column."""
    plane_bytes = len(planes[0])
    start = 0
    while start < len(content):
        column, offset = divmod(at + start, plane_bytes)
        length = min(plane_bytes - offset, len(content) - start)
        code.accumulate(column, content[start : start + length], [plane[offset:] for plane in planes])
        start += length
