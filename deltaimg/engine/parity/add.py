# SPDX-License-Identifier: Apache-2.0
"""Add Reed-Solomon parity for packs without it, and remove parity that is no longer useful.

Reads   the tables of all parity objects, the index, and the whole of each pack that gets parity.
Memory  of `group`, for one object.
Always  a new object is durable before one that it replaces is removed, and only packs whose bytes match their names
        are covered by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from msgspec import Struct

from deltaimg.codec.reed_solomon import load_reed_solomon
from deltaimg.engine.cluster import Cluster
from deltaimg.engine.parity.group import GroupJob, ProtectedGroup, protect, protect_at
from deltaimg.engine.parity.plan import PackSize, plan_parity
from deltaimg.engine.parity.protection import ParityProtection, list_needed, measure_protection
from deltaimg.engine.progress import NoProgress, Progress, stage
from deltaimg.repo.lock import MaintenanceLock
from deltaimg.repo.parity import load_parity
from deltaimg.repo.reopen import RepositoryPlace
from deltaimg.repo.repository import Repository


class ParityAdded(Struct, frozen=True):
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
    cluster: Cluster | None = None,
) -> ParityAdded:
    """Store parity of `percent` for every pack that has none, or less.

    Args:
        is_thorough: read all parity that there is, and compute what is damaged again.
        cluster: where parity is computed and stored, a group at a time; in this process, if not given.

    Raises:
        ParityUnusable: the library that computes is not installed.
        RepositoryLocked: another run of this, of prune or of repair is at work.
    """
    load_reed_solomon()
    with MaintenanceLock(repository, "parity add", clock()) as lock:
        adder = _Adder(repository, percent, progress or NoProgress(), lock.check, cluster)
        return adder.run(is_thorough=is_thorough)


class _Adder:
    """One run of `add_parity`."""

    def __init__(
        self,
        repository: Repository,
        percent: float,
        progress: Progress,
        check_lock: Callable[[], None],
        cluster: Cluster | None,
    ) -> None:
        self._repository, self._percent, self._progress = repository, percent, progress
        self._check_lock, self._cluster = check_lock, cluster

    def run(self, *, is_thorough: bool) -> ParityAdded:
        groups = load_parity(self._repository, is_thorough=is_thorough).groups
        needed = list_needed(self._repository)
        plan = plan_parity(needed, groups, self._percent)
        with stage(self._progress, "computing parity", sum(pack.size_bytes for group in plan.groups for pack in group)):
            done = list(self._protect(plan.groups))
        damaged = tuple(dict.fromkeys(name for each in done for name in each.damaged))
        removed = [group for group in plan.superseded if set(damaged).isdisjoint(group.layout.packs)]
        for group in removed:
            self._check_lock()
            self._repository.objects.delete(group.name)
        return ParityAdded(
            groups=sum(bool(each.packs) for each in done),
            packs=sum(each.packs for each in done),
            read_bytes=sum(each.read_bytes for each in done),
            stored_bytes=sum(each.stored_bytes for each in done),
            removed_groups=len(removed),
            removed_bytes=sum(group.size_bytes for group in removed),
            damaged=damaged,
            protection=measure_protection(needed, load_parity(self._repository)),
        )

    def _protect(self, groups: Sequence[tuple[PackSize, ...]]) -> Iterator[ProtectedGroup]:
        """Compute and store parity, group after group; on a cluster several at a time."""
        if self._cluster is None:
            for packs in groups:
                job = GroupJob(packs, self._percent)
                yield protect(self._repository.objects, job, self._progress.advance, self._check_lock)
            return
        place = RepositoryPlace.of(self._repository)
        jobs = (GroupJob(packs, self._percent, place) for packs in groups)
        for packs, done in zip(groups, self._cluster.map(protect_at, jobs), strict=True):
            self._check_lock()
            self._progress.advance(sum(pack.size_bytes for pack in packs))
            yield done
