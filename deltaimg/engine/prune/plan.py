# SPDX-License-Identifier: Apache-2.0
"""What a prune will do, decided before anything is changed: which packs are deleted or repacked, what that frees and costs.

Packs in which much is unused are repacked: the records in them that are needed are copied, or *cut*, if only some of their
slots are needed and that frees enough for what it costs. Deltas may be encoded again as well (`engine/prune/recode_choice.py`),
and records split for faster restores (`engine/prune/splits.py`).

Made from the reachable slots and the sizes of objects alone; nothing here reads a pack or a signature.
Memory  a bit a slot, and a few numbers for each record and each object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from deltaimg.arrays import Flags, distinct
from deltaimg.engine.prune.needs import Mapped, Needs, choose_copies, find_needs
from deltaimg.engine.prune.recode_choice import RecordSizes, choose_recoded, find_literal_share
from deltaimg.engine.prune.sizes import (
    Inventory,
    choose_objects,
    count_packed,
    count_signed,
    signed_bytes,
)
from deltaimg.engine.prune.splits import Splits
from deltaimg.engine.record_copies import payload_bytes
from deltaimg.format.index import ENTRY
from deltaimg.ids import EntryNumbers
from deltaimg.options.prune import PruneOptions
from deltaimg.repo.index import LoadedIndex
from deltaimg.repo.reachability import Reachable

MAX_INDEXES = 64
"""More of them are merged, down to half as many."""
_LEAST_GAIN = {"auto": 0.1, "full": 0.0}
"""Bytes that cutting or re-encoding a record must free for each byte that it decodes or writes."""
_ABSENT_BYTES = 16
"""What a cut record has in the place of a slot: its digest."""
_ROUNDS = 8
_NOTHING = EntryNumbers(np.empty(0, np.int64))


class TrimPlan(Struct, frozen=True):
    """Records to store again under their ids with less in them, by entry."""

    cut: EntryNumbers
    """Literals of which only some slots are needed."""
    recoded: EntryNumbers
    """Deltas, which keep only those sources that are needed without them."""
    splits: Splits
    """Records in two parts, of which a restore of the newest snapshot needs one."""
    needs: Needs
    """What is needed once all of them are stored."""
    written_bytes: int = 0
    """An estimate; known exactly only afterwards."""

    @property
    def entries(self) -> EntryNumbers:
        """Of all these records."""
        return EntryNumbers(np.concatenate((self.cut, self.recoded, self.splits.entries)))

    def find_exempt(self, index: LoadedIndex) -> Flags:
        """Return which deltas lose those sources that nothing else needs."""
        return find_exempt(index, self.recoded, self.splits.find_whole(index, self.needs))

    @property
    def is_empty(self) -> bool:
        """Whether no record is trimmed."""
        return not len(self.entries)


class PrunePlan(Struct, frozen=True):
    """What is deleted, what is written first, and how much that is. Sizes in bytes; names are digests."""

    trim: TrimPlan
    dead_packs: tuple[str, ...]
    """Nothing in them is needed."""
    repacked_packs: tuple[str, ...]
    """What is needed of them is copied elsewhere."""
    indexes: tuple[str, ...]
    """They name packs that are deleted, and are replaced; or they are merged with others."""
    signatures: tuple[str, ...]
    maps: tuple[str, ...]
    moved: EntryNumbers
    """Entries of records to copy as they are."""
    resigned: EntryNumbers
    """Entries of kept records, whose digests are copied."""
    reindexed: EntryNumbers
    """Kept entries of deleted index objects."""
    total_bytes: int
    """Of the repository before."""
    freed_bytes: int
    written_bytes: int
    """An estimate; known exactly only afterwards."""
    unused_bytes: int
    """Unused bytes in kept packs, as far as repacking would free them."""

    @property
    def packs(self) -> tuple[str, ...]:
        """Digests of all packs that are deleted."""
        return self.dead_packs + self.repacked_packs

    @property
    def is_empty(self) -> bool:
        """Whether nothing is deleted or written."""
        return not (self.packs or self.indexes or self.signatures or self.maps)


def make_plan(
    reachable: Reachable,
    inventory: Inventory,
    options: PruneOptions,
    choose_splits: Callable[[Mapped], Splits] | None = None,
) -> PrunePlan:
    """Decide what is deleted, what is stored again, and what is copied.

    Args:
        choose_splits: returns what to split, given the copies of records that are used; None: nothing.
    """
    index = reachable.index
    sizes, mapped = _measure(index), choose_copies(index, reachable.mapped)
    untrimmed = _plan_splits(index, mapped, choose_splits(mapped) if choose_splits else Splits.none(index), sizes)
    trim, is_recoded = _plan_trim(index, untrimmed, options, sizes)
    is_cut, after = _find_cuts(index, trim.needs, options, sizes)
    is_cut[trim.splits.entries] = False
    taken = np.where(is_cut, after, sizes.payload)
    is_held = (trim.needs.slots > 0) & ~index.is_pending & ~is_recoded
    is_held[trim.splits.entries] = False
    # What only re-encoded deltas needed counts as unused in its pack, too.
    held_now = distinct(index.entries["pack"][(untrimmed.needs.slots > 0) & ~index.is_pending])
    needed = dict.fromkeys((index.packs[number] for number in held_now.tolist()), 0)
    needed |= count_packed(index.packs, index.entries["pack"], taken, is_held)
    most = options.max_repack_bytes
    repacked, unused = choose_objects(
        inventory.packs, needed, options.max_unused_percent / 100, None if most is None else most - trim.written_bytes
    )
    if not repacked:
        return settle(reachable, inventory, options, untrimmed, frozenset(), unused)
    is_cut &= names_chosen(index.packs, repacked)[index.entries["pack"]] & ~is_recoded
    cut_bytes = int(after[is_cut].sum(dtype=np.float64))
    trim = replace(trim, cut=EntryNumbers(np.flatnonzero(is_cut)), written_bytes=trim.written_bytes + cut_bytes)
    return settle(reachable, inventory, options, trim, frozenset(repacked), unused)


def settle(
    reachable: Reachable,
    inventory: Inventory,
    options: PruneOptions,
    trim: TrimPlan,
    repacked: frozenset[str],
    unused_bytes: int,
) -> PrunePlan:
    """Return the plan that follows once it is known which records are trimmed and which packs are repacked."""
    index = reachable.index
    is_kept = (trim.needs.slots > 0) & ~index.is_pending
    is_kept[trim.entries] = False
    is_moved = is_kept & names_chosen(index.packs, repacked)[index.entries["pack"]]
    stays = is_kept & ~is_moved
    held = {index.packs[number] for number in distinct(index.entries["pack"][stays]).tolist()}
    dead = tuple(name for name in inventory.packs if name not in held and name not in repacked)
    needed = count_signed(index.signatures, index.entries, stays)
    resigned, _ = choose_objects(inventory.signatures, needed, options.max_unused_percent / 100)
    signatures = tuple(name for name in inventory.signatures if name not in needed or name in resigned)
    is_resigned = stays & names_chosen(index.signatures, resigned)[index.entries["signature"]]
    indexes = _choose_indexes(index, inventory, stays & ~is_resigned)
    maps = tuple(name for name in inventory.maps if name not in reachable.maps)
    is_reindexed = stays & names_chosen(index.names, indexes)[index.object_of]
    gone = (
        (inventory.packs, (*dead, *repacked)),
        (inventory.indexes, indexes),
        (inventory.signatures, signatures),
        (inventory.maps, maps),
    )
    return PrunePlan(
        trim=trim,
        dead_packs=dead,
        repacked_packs=tuple(sorted(repacked)),
        indexes=indexes,
        signatures=signatures,
        maps=maps,
        moved=EntryNumbers(np.flatnonzero(is_moved)),
        resigned=EntryNumbers(np.flatnonzero(is_resigned)),
        reindexed=EntryNumbers(np.flatnonzero(is_reindexed)),
        total_bytes=inventory.total_bytes,
        freed_bytes=sum(sizes[name] for sizes, names in gone for name in names),
        written_bytes=trim.written_bytes + _count_written(index, trim.entries, is_moved, is_resigned, is_reindexed),
        unused_bytes=unused_bytes,
    )


def names_chosen(names: list[str], chosen: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Return for each name whether it is one of `chosen`."""
    wanted = frozenset(chosen)
    return np.fromiter((name in wanted for name in names), np.bool_, len(names))


# -- trimming ----------------------------------------------------------------------------------------------------------


def _measure(index: LoadedIndex) -> RecordSizes:
    slots = index.cuts.count(EntryNumbers(np.arange(len(index)))).astype(np.float32)
    block_bytes = np.exp2(index.entries["block_shift"].astype(np.float32))
    return RecordSizes(payload_bytes(index.entries).astype(np.float32), slots, block_bytes)


def find_exempt(index: LoadedIndex, *parts: EntryNumbers) -> Flags:
    """Return of each entry whether it is in any of `parts`."""
    is_exempt = np.zeros(len(index), np.bool_)
    for part in parts:
        is_exempt[part] = True
    return is_exempt


def _plan_splits(index: LoadedIndex, mapped: Mapped, splits: Splits, sizes: RecordSizes) -> TrimPlan:
    """Return the plan that splits records and trims none."""
    needs = find_needs(index, mapped)
    if not len(splits.entries):
        return TrimPlan(_NOTHING, _NOTHING, splits, needs)
    entries, used = splits.entries, splits.newest.count()[splits.entries]
    others = np.maximum(needs.slots[entries].astype(np.int64) - used, 0)
    is_literal = (index.links.counts == 0) & (needs.slots > 0)
    written = find_literal_share(is_literal, sizes) * used * sizes.block_bytes[entries]
    written += sizes.payload[entries] * (others / sizes.slots[entries])
    for _ in range(_ROUNDS):
        # What a delta no longer needs may be all that newest snapshots do not use of its sources.
        before, needs = needs, find_needs(index, mapped, find_exempt(index, splits.find_whole(index, needs)))
        if np.array_equal(before.slots, needs.slots):
            break
    return TrimPlan(_NOTHING, _NOTHING, splits, needs, int(written.sum(dtype=np.float64)))


def _plan_trim(
    index: LoadedIndex, untrimmed: TrimPlan, options: PruneOptions, sizes: RecordSizes
) -> tuple[TrimPlan, Flags]:
    """Return which deltas to re-encode, and likewise as flags."""
    mapped, splits = untrimmed.needs.mapped, untrimmed.splits
    candidates = (mapped.slots > 0) & ~index.is_pending & (index.links.counts > 0)
    candidates[splits.entries] = False
    exempt, chosen = untrimmed.find_exempt(index), np.zeros(len(index), np.bool_)
    if options.trim != "none" and options.max_repack_bytes != 0 and candidates.any():
        chosen, payload = choose_recoded(index, mapped, candidates, sizes, _LEAST_GAIN[options.trim], exempt)
    if not chosen.any():
        return untrimmed, chosen
    written = untrimmed.written_bytes + int(payload[chosen].sum(dtype=np.float64))
    recoded, needs = EntryNumbers(np.flatnonzero(chosen)), find_needs(index, mapped, chosen | exempt)
    return TrimPlan(_NOTHING, recoded, splits, needs, written), chosen


def _find_cuts(
    index: LoadedIndex, needs: Needs, options: PruneOptions, sizes: RecordSizes
) -> tuple[Flags, npt.NDArray[np.float32]]:
    """Return which literals are worth being cut, and about what each record takes with only the slots that are needed."""
    needed = needs.slots.astype(np.float32)
    absent_bytes = _ABSENT_BYTES * (index.entries["slots"] - needed)
    after = np.minimum(sizes.payload * (needed / sizes.slots) + absent_bytes, sizes.payload)
    is_cut = (needs.slots > 0) & (needed < sizes.slots) & (index.links.counts == 0) & ~index.is_pending
    if options.trim == "none":
        is_cut[:] = False
    else:
        freed = sizes.payload - after
        is_cut &= (freed > 0) & (freed >= _LEAST_GAIN[options.trim] * (sizes.content + after))
    return is_cut, after


# -- sums --------------------------------------------------------------------------------------------------------------


def _count_written(
    index: LoadedIndex,
    trimmed: EntryNumbers,
    is_moved: Flags,
    is_resigned: Flags,
    is_reindexed: Flags,
) -> int:
    """Return what is written but for the payloads of trimmed records."""
    is_signed = is_moved | is_resigned
    is_signed[trimmed] = True
    written = int(payload_bytes(index.entries[is_moved]).sum()) + int(signed_bytes(index.entries[is_signed]).sum())
    is_indexed = is_signed | is_reindexed
    return written + int(is_indexed.sum()) * ENTRY.itemsize


def _choose_indexes(index: LoadedIndex, inventory: Inventory, stays: Flags) -> tuple[str, ...]:
    """Return which index objects are replaced: those with entries that change, or all when there are too many."""
    spoilt = set(distinct(index.object_of[~stays]).tolist())
    names = {name: number for number, name in enumerate(index.names) if name in inventory.indexes}
    going = tuple(name for name, number in names.items() if number in spoilt)
    return tuple(names) if len(names) > MAX_INDEXES else going
