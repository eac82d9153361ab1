# SPDX-License-Identifier: Apache-2.0
"""Add Reed-Solomon parity for packs without it, and remove parity that is no longer useful.

Reads   the tables of all parity objects, the index, and the whole of each pack that gets parity.
Memory  the planes of one object, at most 128 MiB, and a pack for each thread and two more.
Always  a new object is durable before one that it replaces is removed, and only packs whose bytes match their names
        are covered by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import numpy as np

from deltaimg.arrays import Digests
from deltaimg.codec.reed_solomon import ReedSolomon, load_reed_solomon
from deltaimg.engine.parity.plan import PackSize, choose_shape, plan_parity
from deltaimg.engine.parity.protection import ParityProtection, list_needed, measure_protection
from deltaimg.engine.pipeline import OrderedPool
from deltaimg.engine.progress import NoProgress, Progress, stage
from deltaimg.errors import IntegrityError, ObjectNotFound, StoreUnavailable
from deltaimg.format.framing import name_object
from deltaimg.format.pack import pack_name
from deltaimg.format.parity import ParityTables, digest_shards, lay_out_parity, parse_tables
from deltaimg.repo.lock import MaintenanceLock
from deltaimg.repo.object_kinds import PARITY
from deltaimg.repo.parity import load_parity
from deltaimg.repo.repository import Repository

_WORKERS = 2


@dataclass(frozen=True, slots=True)
class ParityAdded:
    """The result of one run."""

    groups: int
    packs: int
    read_bytes: int
    stored_bytes: int
    removed_groups: int
    removed_bytes: int
    damaged: tuple[str, ...]
    """Packs that cannot be read or do not match their names: they were left out."""
    protection: ParityProtection


def add_parity(
    repository: Repository,
    percent: float,
    *,
    clock: Callable[[], datetime],
    is_thorough: bool = False,
    progress: Progress | None = None,
) -> ParityAdded:
    """Store parity of `percent` for every pack that has none, or less.

    Args:
        is_thorough: read all parity that there is, and compute what is damaged again.

    Raises:
        ParityUnusable: the library that computes is not installed.
        RepositoryLocked: another run of this, of prune or of repair is at work.
    """
    load_reed_solomon()
    with MaintenanceLock(repository, "parity add", clock()) as lock:
        return _Adder(repository, percent, progress or NoProgress(), lock.check).run(is_thorough=is_thorough)


class _Adder:
    """One run of `add_parity`."""

    def __init__(
        self, repository: Repository, percent: float, progress: Progress, check_lock: Callable[[], None]
    ) -> None:
        self._repository, self._percent, self._progress = repository, percent, progress
        self._check_lock = check_lock
        self._damaged: dict[str, None] = {}
        self._groups = self._packs = self._read_bytes = self._stored_bytes = 0

    def run(self, *, is_thorough: bool) -> ParityAdded:
        groups = load_parity(self._repository, is_thorough=is_thorough).groups
        needed = list_needed(self._repository)
        plan = plan_parity(needed, groups, self._percent)
        with stage(self._progress, "computing parity", sum(pack.size_bytes for group in plan.groups for pack in group)):
            for packs in plan.groups:
                self._protect(packs)
        removed = [group for group in plan.superseded if self._damaged.keys().isdisjoint(group.layout.packs)]
        for group in removed:
            self._check_lock()
            self._repository.objects.delete(group.name)
        return ParityAdded(
            groups=self._groups,
            packs=self._packs,
            read_bytes=self._read_bytes,
            stored_bytes=self._stored_bytes,
            removed_groups=len(removed),
            removed_bytes=sum(group.size_bytes for group in removed),
            damaged=tuple(self._damaged),
            protection=measure_protection(needed, load_parity(self._repository)),
        )

    def _protect(self, packs: Sequence[PackSize]) -> None:
        """Store a parity object for packs; damaged ones are left out."""
        while packs:
            object_parts = self._compute(packs)
            if object_parts is not None:
                self._check_lock()
                _, size_bytes = self._repository.objects.put_named(PARITY, object_parts)
                self._stored_bytes += size_bytes
                self._groups += 1
                self._packs += len(packs)
                return
            packs = [pack for pack in packs if pack.digest not in self._damaged]

    def _compute(self, packs: Sequence[PackSize]) -> list[bytes | memoryview] | None:
        """Return the parity object of packs; None if one of them is damaged, which is noted in `_damaged`."""
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
        """Return a pack and the digests of its shards; None if it cannot be read or does not match its name."""
        try:
            data = self._repository.objects.get_bytes(pack_name(pack.digest))
        except (IntegrityError, ObjectNotFound, StoreUnavailable):
            return None
        if len(data) != pack.size_bytes or name_object([data]) != pack.digest:
            return None
        return memoryview(data), digest_shards(data, shard_bytes)


def _accumulate(code: ReedSolomon, content: memoryview, planes: Sequence[memoryview], at: int) -> None:
    """Add content at offset `at` of a group to its planes, column by column."""
    plane_bytes = len(planes[0])
    start = 0
    while start < len(content):
        column, offset = divmod(at + start, plane_bytes)
        length = min(plane_bytes - offset, len(content) - start)
        code.accumulate(column, content[start : start + length], [plane[offset:] for plane in planes])
        start += length
