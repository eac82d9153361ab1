# SPDX-License-Identifier: Apache-2.0
"""Which deltas to encode again, so that content that only they need can be deleted.

A delta keeps its sources, and the sources of these, though no snapshot may have them any more. Encoded again against those
sources that are needed anyway, or as a literal, it is larger, and the others can be deleted. This is decided by estimates, from
the index: a record's size is spread evenly over its slots; sources of several deltas are shared out among them,
and likewise the work of decoding it; and a delta that loses all of its sources becomes as large as literals are on average.

Memory  16 bytes a record, 8 a source of a delta, and a bit a slot.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from deltaimg.arrays import Flags
from deltaimg.engine.prune.needs import Mapped, Needs, find_needs, list_source_runs
from deltaimg.ids import EntryNumbers
from deltaimg.repo.index import LoadedIndex

_ROUNDS = 8

Numbers = npt.NDArray[np.float32]


class RecordSizes(Struct, frozen=True):
    """Of each record of an index."""

    payload: Numbers
    """What it takes in its pack, in bytes."""
    slots: Numbers
    """Slots that it has."""
    block_bytes: Numbers

    @property
    def content(self) -> Numbers:
        """What it expands to, in bytes."""
        return self.slots * self.block_bytes


class _Weights(Struct, frozen=True):
    """What is gained by encoding each delta again, what it costs, and what it then takes, in bytes."""

    gains: Numbers
    costs: Numbers
    payload: Numbers


def choose_recoded(
    index: LoadedIndex, mapped: Mapped, candidates: Flags, sizes: RecordSizes, least_gain: float, exempt: Flags
) -> tuple[Flags, Numbers]:
    """Choose deltas that free at least `least_gain` bytes, and more than none, for each byte that is decoded or written.

    Once some are chosen, others free more: sources that only these shared with them. So the choice is repeated, as the
    next prune would, until none is added.

    Args:
        candidates: deltas that may be chosen. exempt: others that lose their sources in any case, as of `find_needs`.

    Returns:
        Which are chosen, and about how many bytes each record takes then.
    """
    chosen, payload = np.zeros(len(index), np.bool_), sizes.payload.copy()
    for _ in range(_ROUNDS):
        added, weights = _choose_more(index, mapped, chosen | exempt, candidates & ~chosen, sizes, least_gain)
        if weights is None:
            break
        payload[added] = weights.payload[added]
        chosen |= added
    return chosen, payload


def _choose_more(
    index: LoadedIndex, mapped: Mapped, chosen: Flags, candidates: Flags, sizes: RecordSizes, least_gain: float
) -> tuple[Flags, _Weights | None]:
    """Return which candidates are worth being encoded again beside those chosen, and their weights, None if there are none."""
    before = find_needs(index, mapped, chosen)
    added = candidates & (before.slots > 0)
    for _ in range(_ROUNDS):
        if not added.any():
            break
        weights = _weigh(index, before, find_needs(index, mapped, chosen | added), added, sizes)
        kept = added & (weights.gains > 0) & (weights.gains >= least_gain * weights.costs)
        if np.array_equal(kept, added):
            return added, weights
        added = kept
    return np.zeros(len(index), np.bool_), None


def _weigh(index: LoadedIndex, before: Needs, after: Needs, added: Flags, sizes: RecordSizes) -> _Weights:
    """Weigh the added deltas, if all of them are encoded again.

    What is freed is charged from the bottom of each chain upwards: a delta that is deleted adds what it
    frees to what its users free. A delta that is kept frees nothing for others: all of its sources are decoded as before.
    """
    # A source may be missing where no snapshot needs the delta: such a delta is neither decoded nor charged here.
    entries = EntryNumbers(index.links.entries)
    sources = np.where(entries < 0, 0, before.mapped.resolve(EntryNumbers(np.maximum(entries, 0))))
    decoded = _close(index, sources, added)
    is_gone = (before.slots > 0) & (after.slots == 0)
    lost = _count_lost(index, EntryNumbers(np.flatnonzero((index.links.counts > 0) & (added | is_gone))), after)
    freed = _FreedBytes(index, sources, before, after, is_gone, lost, sizes)
    work = _Work(index, sources, decoded, sizes)
    weights = _Weights(*np.zeros((3, len(index)), np.float32))
    literal_share = find_literal_share((index.links.counts == 0) & (before.slots > 0), sizes)
    for depth in range(1, int(index.links.depths.max(initial=0)) + 1):
        deltas = np.flatnonzero((index.links.depths == depth) & (decoded | is_gone))
        if not len(deltas):
            continue
        links = _LinksOf(index, EntryNumbers(deltas))
        frees, costs = freed.charge(links), work.charge(links)
        kept = sizes.payload[deltas] * (after.slots[deltas] / sizes.slots[deltas])
        literal = literal_share * after.slots[deltas] * sizes.block_bytes[deltas]
        lost_share = links.sum(lost) / links.count_slots()
        weights.payload[deltas] = kept + lost_share * np.maximum(literal - kept, 0)
        weights.gains[deltas] = frees + sizes.payload[deltas] - weights.payload[deltas]
        weights.costs[deltas] = costs + weights.payload[deltas]
    return weights


class _LinksOf:
    """The links of some deltas, to be summed up delta by delta."""

    def __init__(self, index: LoadedIndex, deltas: EntryNumbers) -> None:
        self._links, self.deltas = index.links, deltas
        self.numbers = index.links.of(deltas)
        counts = index.links.counts[deltas]
        self._firsts = np.cumsum(counts) - counts

    def sum(self, of_link: npt.NDArray[np.number]) -> Numbers:
        """Return the sums, for each delta, of numbers that each link of the index has."""
        return self.sum_own(of_link[self.numbers])

    def sum_own(self, of_own: npt.NDArray[np.number]) -> Numbers:
        """Return the sums of numbers that each of these links has."""
        sums: Numbers = np.add.reduceat(of_own, self._firsts, dtype=np.float32)
        return sums

    def count_slots(self) -> Numbers:
        """Return how many slots each delta is encoded against."""
        runs, run_counts = self._links.runs_of(self.deltas)
        counts = np.add.reduceat(runs["count"], np.cumsum(run_counts) - run_counts, dtype=np.float32)
        return self.sum_own(counts)


class _FreedBytes:
    """Bytes freed with slots that are no longer needed, charged to the deltas that had them as sources."""

    def __init__(
        self,
        index: LoadedIndex,
        sources: npt.NDArray[np.integer],
        before: Needs,
        after: Needs,
        is_gone: Flags,
        lost: Numbers,
        sizes: RecordSizes,
    ) -> None:
        """Args: sources: of each link. lost: slots that each link loses."""
        self._sources, self._lost, self._is_gone = sources, lost, is_gone
        self._payload, self._needed = sizes.payload, np.maximum(before.slots, 1).astype(np.float32)
        freed = (before.slots - after.slots).astype(np.float32)
        of_source = np.bincount(sources, lost, len(index)).astype(np.float32)
        # A slot that several deltas lose counts once.
        self._share = freed / np.maximum(of_source, 1)
        self._worth = np.where(index.links.counts == 0, sizes.payload / sizes.slots, np.float32(0))
        """Of each slot that is deleted; of deltas as far as they were charged."""

    def charge(self, links: _LinksOf) -> Numbers:
        """Return how many bytes the loss of their sources frees for some deltas; those of less depth come first."""
        sources = self._sources[links.numbers]
        frees = links.sum_own(self._worth[sources] * self._lost[links.numbers] * self._share[sources])
        gone = self._is_gone[links.deltas]
        worth = (self._payload[links.deltas] + frees) / self._needed[links.deltas]
        self._worth[links.deltas[gone]] = worth[gone]
        return frees


class _Work:
    """How many bytes must be decoded to decode a record, its share in decoding its sources included."""

    def __init__(
        self, index: LoadedIndex, sources: npt.NDArray[np.integer], decoded: Flags, sizes: RecordSizes
    ) -> None:
        self._sources, self._content = sources, sizes.content
        uses = sources[index.links.of(EntryNumbers(np.flatnonzero(decoded & (index.links.counts > 0))))]
        self._users = np.maximum(np.bincount(uses, minlength=len(index)), 1).astype(np.float32)
        self._share = self._content / self._users

    def charge(self, links: _LinksOf) -> Numbers:
        """Return the work for some deltas; those of less depth come first."""
        deltas = links.deltas
        work = self._content[deltas] + links.sum_own(self._share[self._sources[links.numbers]])
        self._share[deltas] = work / self._users[deltas]
        return work


def _count_lost(index: LoadedIndex, deltas: EntryNumbers, needs: Needs) -> Numbers:
    """Return of each link of `deltas` how many of its slots are not needed."""
    lost = np.zeros(len(index.links.entries), np.float32)
    for runs in list_source_runs(index, deltas):
        unneeded = runs.counts - needs.count_in(runs.entries, runs.firsts, runs.counts)
        np.add.at(lost, runs.links, unneeded.astype(np.float32))
    return lost


def _close(index: LoadedIndex, sources: npt.NDArray[np.integer], added: Flags) -> Flags:
    """Return which records must be decoded for the added deltas, these included."""
    links, found = index.links, added.copy()
    for depth in range(int(links.depths.max(initial=0)), 0, -1):
        deltas = np.flatnonzero((links.depths == depth) & found)
        found[sources[links.of(EntryNumbers(deltas))]] = True
    return found


def find_literal_share(literals: Flags, sizes: RecordSizes) -> float:
    """Return how large literals are, on average, for each byte of their content."""
    content = float(sizes.content[literals].sum(dtype=np.float64))
    return min(1.0, float(sizes.payload[literals].sum(dtype=np.float64)) / content) if content else 1.0
