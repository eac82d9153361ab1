# SPDX-License-Identifier: Apache-2.0
"""Which packs should have parity, which have it, and how much damage it can repair.

Reads   the tables of all parity objects, the index, and the names and sizes of packs.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from msgspec import Struct

from deltaimg.errors import DeltaimgError
from deltaimg.format.pack import PACKS
from deltaimg.repo.deletions import load_deletions
from deltaimg.repo.index import load_index
from deltaimg.repo.keys import digest_of
from deltaimg.repo.lock import ReaderLock
from deltaimg.repo.parity import ParityGroup, ParityGroups, load_parity
from deltaimg.repo.repository import Repository


class GroupState(Struct, frozen=True):
    """One parity object, and how much damage of its packs it can still repair."""

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
    """Damage of this many contiguous bytes can be repaired, wherever it is."""
    survives_packs: int
    """This many whole packs may be lost, whichever they are."""
    damaged_parts: int
    """Damaged shards of the object itself, where that was checked; they make it weaker than the figures above."""


class ParityProtection(Struct, frozen=True):
    """What parity there is in a repository."""

    groups: tuple[GroupState, ...]
    protected_packs: int
    protected_bytes: int
    unprotected_packs: int
    unprotected_bytes: int
    lost: tuple[str, ...]
    """Packs that the index names and the store does not have."""
    damage: tuple[DeltaimgError, ...]
    """Errors of parity objects whose tables cannot be read."""

    @property
    def parity_bytes(self) -> int:
        """Size of all parity objects."""
        return sum(group.parity_bytes for group in self.groups)


def survey_parity(repository: Repository, *, is_thorough: bool = False) -> ParityProtection:
    """Return what parity there is, from listings and tables; with `is_thorough`, read all parity to find damage as well."""
    with ReaderLock(repository, "parity show", datetime.now(UTC)) as lock:
        protection = measure_protection(list_needed(repository), load_parity(repository, is_thorough=is_thorough))
        if protection.damage or protection.lost:
            lock.check()
    return protection


def measure_protection(needed: dict[str, int | None], parity: ParityGroups) -> ParityProtection:
    """Return what parity there is of the packs that `list_needed` returned, for runs that hold a lock already."""
    covered = {pack for group in parity.groups for pack in group.layout.packs if needed.get(pack) is not None}
    sizes = {pack: size for pack, size in needed.items() if size is not None}
    protected_bytes = sum(sizes[pack] for pack in covered)
    return ParityProtection(
        groups=tuple(_judge(group, needed) for group in parity.groups),
        protected_packs=len(covered),
        protected_bytes=protected_bytes,
        unprotected_packs=len(sizes) - len(covered),
        unprotected_bytes=sum(sizes.values()) - protected_bytes,
        lost=tuple(pack for pack, size in needed.items() if size is None),
        damage=parity.damage,
    )


def list_needed(repository: Repository) -> dict[str, int | None]:
    """Return the packs that the index names and that are not pending deletion, oldest first, with sizes; None if missing.

    Packs that no index names were left by an unfinished backup. Where the index is damaged, all packs count.
    """
    if repository.is_locked:
        return _list_unsealed(repository)
    # Before the index: what is listed later waits for this run's lock.
    pending = {pack for each in load_deletions(repository) for pack in each.objects.packs}
    index = load_index(repository)
    sizes = {digest_of(found.name): found.size_bytes for found in repository.objects.list(PACKS)}
    named = [*dict.fromkeys(index.packs), *(sorted(sizes) if index.damage else ())]
    return {pack: sizes.get(pack) for pack in named if pack not in pending}


def _list_unsealed(repository: Repository) -> dict[str, int | None]:
    """Return the packs that are not pending deletion: without a key, those that are missing are not known."""
    pending = {pack for each in load_deletions(repository) for pack in each.objects.packs}
    found = {digest_of(each.name): each.size_bytes for each in repository.objects.list(PACKS)}
    return {pack: size_bytes for pack, size_bytes in found.items() if pack not in pending}


def _judge(group: ParityGroup, needed: dict[str, int | None]) -> GroupState:
    tables = group.layout
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
