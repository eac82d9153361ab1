# SPDX-License-Identifier: Apache-2.0
"""Which records keep content alive that no snapshot has any more: to be cut, or to be done without.

A record of which maps name some slots only is cut: these slots go into new records. One of which they name none is there for
deltas alone, which are encoded anew, as are those against what is cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deltaimg.engine.prune.plan import PruneOptions, payload_bytes
from deltaimg.repo.index import Index
from deltaimg.repo.reachability import Reachable

_SHARE_OF_BOUND = 0.5
"""Of the unused bytes that are allowed: the rest is for whole records that packs hold in vain."""


@dataclass(frozen=True, slots=True)
class TrimPlan:
    """Entries of records, and about how many bytes are freed and written."""

    cut: npt.NDArray[np.int64]
    dropped: npt.NDArray[np.int64]
    """Only deltas need them."""
    recoded: npt.NDArray[np.int64]
    """They stand on those, and are encoded anew, as literals or against what stays."""
    freed_bytes: int
    written_bytes: int

    @property
    def is_empty(self) -> bool:
        return not (len(self.cut) or len(self.dropped))


def plan_trim(reachable: Reachable, options: PruneOptions) -> TrimPlan:
    """Choose the records with the largest share of content that nobody has, until little enough of it is left."""
    index = reachable.index
    is_kept = reachable.is_live & ~index.is_pending
    # Numbers of 4 bytes: there are several for each record of a repository.
    payload = payload_bytes(index.entries).astype(np.uint32)
    shares = (index.entries["slots"] - reachable.mapped_slots).astype(np.float32)
    shares /= index.entries["slots"]
    shares[~is_kept] = 0
    # A delta that nobody has all of was made against a night that is gone, perhaps through several others: all of it may go.
    ranks = np.where((shares > 0) & (index.links.counts > 0), np.float32(1), shares)
    allowed = _SHARE_OF_BOUND * options.max_unused * int(payload[is_kept].sum())
    order = np.flatnonzero(ranks > 0)
    order = order[np.argsort(-ranks[order], kind="stable")]
    waste = ranks[order] * payload[order]
    least = int((ranks == 1).sum())
    count = 0
    if float(waste.sum()) > allowed:
        left = float(waste.sum()) - np.cumsum(waste)
        count = max(1 + int(np.argmax(left <= allowed)), least)
    plan = _plan(reachable, order[:count], shares, payload)
    while options.max_repack_bytes is not None and plan.written_bytes > options.max_repack_bytes:
        if count <= least:
            return _plan(reachable, order[:0], shares, payload)
        count = least + (count - least) // 2
        plan = _plan(reachable, order[:count], shares, payload)
    return plan


def find_dependents(index: Index, is_chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Tell of each entry whether one of its own sources is chosen."""
    links = index.links
    deltas = np.flatnonzero(links.counts)
    found = np.zeros(len(index), np.bool_)
    if len(deltas):
        hits = is_chosen[np.maximum(links.entries, 0)] & (links.entries >= 0)
        found[deltas] = np.logical_or.reduceat(hits, links.starts[deltas])
    return found


def _plan(
    reachable: Reachable,
    chosen: npt.NDArray[np.int64],
    shares: npt.NDArray[np.float32],
    payload: npt.NDArray[np.uint32],
) -> TrimPlan:
    index = reachable.index
    is_kept = reachable.is_live & ~index.is_pending
    is_chosen = np.zeros(len(index), np.bool_)
    is_chosen[chosen] = True
    while True:
        recoded = find_dependents(index, is_chosen) & is_kept & ~is_chosen
        # Encoded anew without its old sources, it would be larger by what nobody has of it.
        if not (more := recoded & (shares > 0)).any():
            break
        is_chosen |= more
    is_cut = is_chosen & (reachable.mapped_slots > 0)
    kept = (payload[is_cut] * (1 - shares[is_cut])).sum()
    return TrimPlan(
        cut=np.flatnonzero(is_cut),
        dropped=np.flatnonzero(is_chosen & ~is_cut),
        recoded=np.flatnonzero(recoded),
        freed_bytes=int((shares[is_chosen] * payload[is_chosen]).sum()),
        written_bytes=int(kept + payload[recoded].sum()) if len(chosen) else 0,
    )
