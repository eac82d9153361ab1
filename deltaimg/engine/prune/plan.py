# SPDX-License-Identifier: Apache-2.0
"""What a prune will do, decided before anything is touched: which packs go, which are repacked, what that frees and costs.

Told from the reachable records and the sizes of objects alone; nothing here reads a pack or a signature.
Memory  a few numbers for each record and each object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deltaimg.arrays import distinct
from deltaimg.format.framing import HEADER_BYTES
from deltaimg.format.index import ENTRY, INDEXES
from deltaimg.format.map import MAPS
from deltaimg.format.pack import FOOTER_ENTRY, PACKS, TRAILER
from deltaimg.format.record import RECORD_HEADER_BYTES
from deltaimg.format.signature import HEAD, SIGNATURES
from deltaimg.repo.deletions import PendingDeletion
from deltaimg.repo.index import Index
from deltaimg.repo.reachability import Reachable
from deltaimg.repo.repository import Repository

MAX_UNUSED_PERCENT = 2.0
MAX_INDEXES = 64
"""More of them are merged, down to half as many."""
_BYTES_A_SLOT, _BYTES_A_SIGNED_RECORD = 16, 18
_SIGNATURE_HEAD_BYTES = HEADER_BYTES + HEAD.size
_PIECE = 1 << 16
_KINDS = (PACKS, INDEXES, SIGNATURES, MAPS)

Entries = npt.NDArray[Any]
"""Of `ENTRY`."""
BytesOf = Callable[[Entries], npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """How far a prune goes for space."""

    max_unused: float = MAX_UNUSED_PERCENT / 100
    """Packs are repacked until at most this share of what all packs hold is unused."""
    max_repack_bytes: int | None = None
    """So much is written anew at most."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """Sizes of all objects that are not pending deletion, by kind and digest."""

    packs: dict[str, int]
    indexes: dict[str, int]
    signatures: dict[str, int]
    maps: dict[str, int]
    total_bytes: int
    """Of everything in the repository."""


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What goes, what is written first, and what that comes to. Sizes in bytes; names are digests."""

    dead_packs: tuple[str, ...]
    """Nothing in them is needed."""
    repacked_packs: tuple[str, ...]
    """What is needed in them is copied elsewhere."""
    indexes: tuple[str, ...]
    """They name what goes, and are replaced by others; or they are merged with others."""
    signatures: tuple[str, ...]
    maps: tuple[str, ...]
    moved: npt.NDArray[np.int64]
    """Entries of records to copy."""
    resigned: npt.NDArray[np.int64]
    """Entries of records that stay, whose digests are copied."""
    total_bytes: int
    """Of the repository before."""
    freed_bytes: int
    written_bytes: int
    """About; known exactly only when it is done."""
    unused_bytes: int
    """What packs that stay hold in vain."""

    @property
    def packs(self) -> tuple[str, ...]:
        return self.dead_packs + self.repacked_packs

    @property
    def is_empty(self) -> bool:
        return not (self.packs or self.indexes or self.signatures or self.maps)


def take_inventory(repository: Repository, pending: Iterable[PendingDeletion]) -> Inventory:
    """List all objects, those left out that are pending deletion."""
    lists = [each.objects for each in pending]
    gone = {name for each in lists for name in (*each.packs, *each.indexes, *each.signatures, *each.maps)}
    sizes: dict[str, dict[str, int]] = {kind: {} for kind in _KINDS}
    total = 0
    for found in repository.store.list(""):
        total += found.size_bytes
        kind, digest = found.name.partition("/")[0] + "/", found.name.rpartition("/")[2]
        if kind in sizes and digest not in gone:
            sizes[kind][digest] = found.size_bytes
    return Inventory(sizes[PACKS], sizes[INDEXES], sizes[SIGNATURES], sizes[MAPS], total)


def make_plan(reachable: Reachable, inventory: Inventory, options: PruneOptions) -> PrunePlan:
    """Decide what goes and what is copied."""
    index = reachable.index
    is_kept = reachable.is_live & ~index.is_pending
    used = _sum_by_name(index.packs, index.entries, "pack", is_kept, _packed_bytes)
    fixed = HEADER_BYTES + TRAILER.size
    needed = {name: used[name] + fixed for name in inventory.packs if used.get(name)}
    repacked, unused = _choose(inventory.packs, needed, options.max_unused, options.max_repack_bytes)
    return settle(reachable, inventory, options, frozenset(repacked), unused)


def settle(
    reachable: Reachable, inventory: Inventory, options: PruneOptions, repacked: frozenset[str], unused_bytes: int
) -> PrunePlan:
    """Return the plan that follows once it is known which packs are repacked."""
    index = reachable.index
    is_kept = reachable.is_live & ~index.is_pending
    is_moved = is_kept & names_chosen(index.packs, repacked)[index.entries["pack"]]
    stays = is_kept & ~is_moved
    held = {index.packs[number] for number in distinct(index.entries["pack"][is_kept]).tolist()}
    dead = tuple(name for name in inventory.packs if name not in held)
    used = _sum_by_name(index.signatures, index.entries, "signature", stays, _signed_bytes)
    needed = {name: used[name] + _SIGNATURE_HEAD_BYTES for name in inventory.signatures if used.get(name)}
    resigned_names, _ = _choose(inventory.signatures, needed, options.max_unused, None)
    signatures = tuple(name for name in inventory.signatures if name not in needed or name in resigned_names)
    is_resigned = stays & names_chosen(index.signatures, resigned_names)[index.entries["signature"]]
    indexes = _choose_indexes(index, inventory, stays & ~is_resigned)
    maps = tuple(name for name in inventory.maps if name not in reachable.maps)
    reindexed = stays & names_chosen(index.names, indexes)[index.object_of]
    written = _sum(index.entries, is_moved, payload_bytes) + _sum(index.entries, is_moved | is_resigned, _signed_bytes)
    written += int((is_moved | reindexed).sum()) * ENTRY.itemsize
    gone = (
        (inventory.packs, (*dead, *repacked)),
        (inventory.indexes, indexes),
        (inventory.signatures, signatures),
        (inventory.maps, maps),
    )
    return PrunePlan(
        dead_packs=dead,
        repacked_packs=tuple(sorted(repacked)),
        indexes=indexes,
        signatures=signatures,
        maps=maps,
        moved=np.flatnonzero(is_moved),
        resigned=np.flatnonzero(is_resigned),
        total_bytes=inventory.total_bytes,
        freed_bytes=sum(sizes[name] for sizes, names in gone for name in names),
        written_bytes=written,
        unused_bytes=unused_bytes,
    )


def payload_bytes(entries: Entries) -> npt.NDArray[np.int64]:
    """Return what each record takes in a pack."""
    taken: npt.NDArray[np.int64] = entries["payload_bytes"].astype(np.int64) + RECORD_HEADER_BYTES
    return taken


def _packed_bytes(entries: Entries) -> npt.NDArray[np.int64]:
    """The same, with the record's part of the footer."""
    return payload_bytes(entries) + FOOTER_ENTRY.itemsize


def _signed_bytes(entries: Entries) -> npt.NDArray[np.int64]:
    """Return what each record takes in a signature."""
    taken: npt.NDArray[np.int64] = entries["slots"].astype(np.int64) * _BYTES_A_SLOT + _BYTES_A_SIGNED_RECORD
    return taken


def names_chosen(names: list[str], chosen: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Tell of each name whether it is one of `chosen`."""
    wanted = frozenset(chosen)
    return np.fromiter((name in wanted for name in names), np.bool_, len(names))


def _pieces(entries: Entries, is_counted: npt.NDArray[np.bool_]) -> Iterator[Entries]:
    """Yield those entries that count, some at a time: of all at once the numbers made of them would be what takes memory."""
    for first in range(0, len(entries), _PIECE):
        piece = slice(first, first + _PIECE)
        yield entries[piece][is_counted[piece]]


def _sum(entries: Entries, is_counted: npt.NDArray[np.bool_], bytes_of: BytesOf) -> int:
    return sum(int(bytes_of(piece).sum()) for piece in _pieces(entries, is_counted))


def _sum_by_name(
    names: list[str], entries: Entries, field: str, is_counted: npt.NDArray[np.bool_], bytes_of: BytesOf
) -> dict[str, int]:
    """Return the sum of bytes for each name, which may stand in the list more than once, by its number in a field."""
    totals = np.zeros(len(names), np.int64)
    for piece in _pieces(entries, is_counted):
        totals += np.bincount(piece[field], bytes_of(piece), len(names)).astype(np.int64)
    sums: dict[str, int] = {}
    for name, total in zip(names, totals.tolist(), strict=True):
        sums[name] = sums.get(name, 0) + total
    return sums


def _choose(
    sizes: dict[str, int], needed: dict[str, int], max_unused: float, max_written: int | None
) -> tuple[list[str], int]:
    """Return which objects to write anew, those with the largest unused share first, and what is unused in the others.

    Args:
        needed: bytes of each object that must be kept; none of those that go anyhow.
    """
    unused = {name: max(0, sizes[name] - bytes_) for name, bytes_ in needed.items()}
    total_unused, total = sum(unused.values()), sum(sizes[name] for name in needed)
    chosen: list[str] = []
    written = 0
    for name in sorted(unused, key=lambda name: (-unused[name] / sizes[name], name)):
        if total_unused <= max_unused * total or not unused[name]:
            break
        if max_written is not None and written + needed[name] > max_written:
            continue
        chosen.append(name)
        written += needed[name]
        total_unused -= unused[name]
        total -= unused[name]
    return chosen, total_unused


def _choose_indexes(index: Index, inventory: Inventory, stays: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    """Return which index objects go: those with entries that do not stay as they are, or all when there are too many."""
    spoilt = set(distinct(index.object_of[~stays]).tolist())
    names = {name: number for number, name in enumerate(index.names) if name in inventory.indexes}
    going = tuple(name for name, number in names.items() if number in spoilt)
    return tuple(names) if len(names) > MAX_INDEXES else going
